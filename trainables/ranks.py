"""Several processes that train one network together, each on its share of every batch (``torch.distributed``).

Every process draws order and augmentation for all ranks from (seed, epoch, purpose). From a batch, rank r of R takes
the images r, r + R, r + 2R, …, so the ranks together see the batches that one process would see. The loss is the loss
of the whole batch, also with class weights or with shares that differ by an image. Batch norm normalises with a rank's
share, as the public trainers do, and rank 0's statistics are kept. Mixup mixes within a share. A last batch with fewer
images than ranks is left out.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any

import psutil
import torch
from torch import Tensor, distributed

from study.errors import one_line

PATIENCE = timedelta(minutes=10)  # the longest wait for a rank, such as one that decodes its first images
JOINING = timedelta(minutes=1)  # the longest wait for all ranks to start


class RankLost(Exception):
    """Another rank is gone. Its exception, if it raised one, is the reason."""


@dataclass(frozen=True)
class Ranks:
    """One of several processes that train together. With one process, the methods do nothing.

    Attributes:
        rank: the number of this process, from 0.
        size: the number of processes; if more than one, they must have joined (`join`).
    """

    rank: int = 0
    size: int = 1

    @property
    def share(self) -> slice:
        """The share of this rank in a sequence, such as a batch or the test images."""
        return slice(self.rank, None, self.size)

    def shares(self, *numbers: Callable[[], Tensor]) -> Sequence[Tensor | float]:
        """Return this rank's fraction of each number's sum over the ranks.

        With one process the fractions are 1, and the functions are not called.
        """
        if self.size == 1:
            return [1.0] * len(numbers)
        local = torch.stack([number() for number in numbers])
        sums = local.clone()
        self.total(sums)
        return list(local / sums)

    def add(self, gradients: Sequence[Tensor]) -> None:
        """Replace gradients by their sums over the ranks in one message; all ranks pass them in the same order."""
        if self.size == 1:
            return
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        self.total(flat)
        sums = torch.split(flat, [gradient.numel() for gradient in gradients])
        for gradient, flat_sum in zip(gradients, sums, strict=True):
            gradient.copy_(flat_sum.view_as(gradient))

    def total(self, *tensors: Tensor) -> None:
        """Replace each tensor by its sum over the ranks."""
        if self.size > 1:
            for tensor in tensors:
                _together(partial(distributed.all_reduce, tensor))

    def whole(self, local: Tensor, length: int) -> Tensor:
        """Return a sequence of whole numbers from the shares of all ranks, in order: (length / R,) → (length,)."""
        if self.size == 1:
            return local
        merged = torch.zeros(length, dtype=torch.int32, device=local.device)
        merged[self.share] = local.int()
        self.total(merged)
        return merged.to(local.dtype)

    def align(self, buffers: Iterable[Tensor]) -> None:
        """Copy the buffers of rank 0 to every rank."""
        if self.size > 1:
            for buffer in buffers:
                _together(partial(distributed.broadcast, buffer, 0))


ALONE = Ranks()


def meet(host: str, size: int, port: int = 0) -> Any:
    """Return the ``TCPStore`` through which the ranks find each other.

    Args:
        host: the address of rank 0.
        size: the number of ranks.
        port: the port of rank 0; 0 in rank 0 itself, which opens a free port.
    """
    first, listening = not port, None
    if first:  # by default the store listens at every address of the machine
        server = socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
        port, listening = server.getsockname()[1], server.detach()
    return distributed.TCPStore(  # type: ignore[attr-defined]
        host, port, size, is_master=first, timeout=JOINING, wait_for_workers=False, master_listen_fd=listening
    )


def join(ranks: Ranks, device: str, address: str, make_store: Callable[[], Any]) -> None:
    """Join the other ranks, all at the same time.

    Args:
        ranks: this rank.
        device: cpu (gloo) or cuda (nccl).
        address: the address of this machine at which the other ranks reach it.
        make_store: a function that returns the store of `meet`.

    Raises:
        RankLost: if a rank does not start, or cannot be reached, within `JOINING`.
    """
    # By default gloo listens where the host's name leads. On Debian that is 127.0.1.1, which no other machine reaches.
    # NCCL chooses an interface by itself.
    interfaces = {one.address: name for name, each in psutil.net_if_addrs().items() for one in each}
    if address in interfaces:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", interfaces[address])
    # torch has a public name for it since 2.14.
    set_timeout = getattr(distributed, "set_timeout", None) or distributed.distributed_c10d._set_pg_timeout

    def act() -> None:
        store = make_store()
        store.set(str(ranks.rank), "here")
        store.wait([str(rank) for rank in range(ranks.size)], JOINING)
        distributed.init_process_group(
            "nccl" if device == "cuda" else "gloo",
            store=store,
            rank=ranks.rank,
            world_size=ranks.size,
            timeout=JOINING / 5,  # gloo waits five times as long for another rank to connect; NCCL connects later
        )
        set_timeout(PATIENCE)

    _together(act)


def leave() -> None:
    """Leave the other ranks."""
    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


def _together(act: Callable[[], object]) -> None:
    try:
        act()
    except RuntimeError as error:  # gloo's errors have no class
        if isinstance(error, distributed.DistError) or "gloo" in str(error):
            raise RankLost(f"another training process is gone: {one_line(error)}") from error
        raise
