"""Several processes that train one network together, each on its share of every batch (``torch.distributed``).

Order and augmentation are drawn whole in every process from (seed, epoch, purpose); of a batch, rank r of R takes the
images r, r + R, r + 2R, …, so the union of what they see is, batch by batch, what one process would see. The loss is
that of the whole batch, also where classes have weights or shares differ by an image. Batch norm normalises with a
rank's own share, as the public trainers do, and the statistics that are kept are those of rank 0; mixup mixes within a
share. A last batch of fewer images than ranks is left out.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any

import torch
from torch import Tensor, distributed

from study.errors import one_line

PATIENCE = timedelta(minutes=10)  # for the slowest rank, such as one that decodes its first images
JOINING = timedelta(minutes=1)  # all of them have started by then


class RankLost(Exception):
    """Another rank is gone; what it raised, if it did, is the reason."""


@dataclass(frozen=True)
class Ranks:
    """One of several processes that train together. Alone, it has everything, and its methods do nothing.

    Attributes:
        rank: which one it is, from 0.
        size: how many there are; if more than one, they must have joined (`join`).
    """

    rank: int = 0
    size: int = 1

    @property
    def own(self) -> slice:
        """The share of this rank of whatever has an order, such as a batch or the test images."""
        return slice(self.rank, None, self.size)

    def shares(self, *own: Callable[[], Tensor]) -> Sequence[Tensor | float]:
        """Of each number, how much of its sum over the ranks is this one's; alone 1, and none is asked for."""
        if self.size == 1:
            return [1.0] * len(own)
        mine = torch.stack([number() for number in own])
        whole = mine.clone()
        self.total(whole)
        return list(mine / whole)

    def add(self, gradients: Sequence[Tensor]) -> None:
        """Replace gradients by their sums over the ranks, all in one message; all ranks name them in the same order."""
        if self.size == 1:
            return
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        self.total(flat)
        sums = torch.split(flat, [gradient.numel() for gradient in gradients])
        for gradient, whole in zip(gradients, sums, strict=True):
            gradient.copy_(whole.view_as(gradient))

    def total(self, *tensors: Tensor) -> None:
        """Replace each tensor by its sum over the ranks."""
        if self.size > 1:
            for tensor in tensors:
                _together(partial(distributed.all_reduce, tensor))

    def whole(self, own: Tensor, length: int) -> Tensor:
        """What all ranks hold of something of that length, in its order: (length / R,) → (length,), whole numbers."""
        if self.size == 1:
            return own
        found = torch.zeros(length, dtype=torch.int32, device=own.device)
        found[self.own] = own.int()
        self.total(found)
        return found.to(own.dtype)

    def align(self, buffers: Iterable[Tensor]) -> None:
        """Give every rank what rank 0 has."""
        if self.size > 1:
            for buffer in buffers:
                _together(partial(distributed.broadcast, buffer, 0))


ALONE = Ranks()


def meet(host: str, size: int, port: int = 0) -> Any:
    """Where so many ranks find each other, a ``TCPStore``: rank 0 makes it on a free port, then the others on that."""
    first, listening = not port, None
    if first:  # by itself it would listen at every address of the machine
        own = socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
        port, listening = own.getsockname()[1], own.detach()
    return distributed.TCPStore(  # type: ignore[attr-defined]
        host, port, size, is_master=first, timeout=JOINING, wait_for_workers=False, master_listen_fd=listening
    )


def join(ranks: Ranks, device: str, place: Callable[[], Any]) -> None:
    """Join the others; all of them do at once.

    Args:
        ranks: which one this is.
        device: cpu (gloo) or cuda (nccl).
        place: makes what `meet` returns.
    """

    def act() -> None:
        store = place()
        store.set(str(ranks.rank), "here")
        store.wait([str(rank) for rank in range(ranks.size)], JOINING)  # gloo itself would wait for as long as a batch
        distributed.init_process_group(
            "nccl" if device == "cuda" else "gloo",
            store=store,
            rank=ranks.rank,
            world_size=ranks.size,
            timeout=PATIENCE,
        )

    _together(act)


def leave() -> None:
    """Leave the others."""
    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


def _together(act: Callable[[], object]) -> None:
    try:
        act()
    except RuntimeError as error:  # gloo's own have no class
        if isinstance(error, distributed.DistError) or "gloo" in str(error):
            raise RankLost(f"a process that trains with this one is gone: {one_line(error)}") from error
        raise
