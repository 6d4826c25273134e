"""Several processes that train one network together, each on its share of every batch (``torch.distributed``).

Order and augmentation are drawn whole in every process from (seed, epoch, purpose); of a batch, rank r of R takes the
images r, r + R, r + 2R, …, so the union of what they see is, batch by batch, what one process would see. Gradients are
averaged over the whole batch: where it is no multiple of R, shares differ by one image, and so do their weights. Batch
norm normalises with a rank's own share, as the public trainers do, and the statistics that are kept are those of rank
0. A last batch of fewer images than ranks is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

import torch
from torch import Tensor, distributed

PATIENCE = timedelta(minutes=10)  # for the slowest rank, such as one that decodes its first images


class Parted(OSError):
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

    def average(self, parameters: Iterable[Tensor], images: int) -> None:
        """Replace gradients of mean losses by those of the whole batch.

        Args:
            parameters: whose gradients; all ranks name them in the same order.
            images: of this rank's share.
        """
        if self.size == 1:
            return
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        flat = torch.cat([*(gradient.flatten() for gradient in gradients), gradients[0].new_ones(1)]) * images
        self.total(flat)
        means = torch.split(flat[:-1] / flat[-1], [gradient.numel() for gradient in gradients])
        for gradient, mean in zip(gradients, means, strict=True):
            gradient.copy_(mean.view_as(gradient))

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


def join(ranks: Ranks, device: str, address: str) -> None:
    """Join the others; all of them do at once.

    Args:
        ranks: which one this is.
        device: cpu (gloo) or cuda (nccl).
        address: HOST:PORT, a free port of rank 0's machine.
    """
    _together(
        partial(
            distributed.init_process_group, "nccl" if device == "cuda" else "gloo", init_method=f"tcp://{address}",
            rank=ranks.rank, world_size=ranks.size, timeout=PATIENCE,
        )
    )  # fmt: skip


def part() -> None:
    """Leave the others."""
    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


def _together(act: Callable[[], object]) -> None:
    try:
        act()
    except RuntimeError as error:  # what gloo and NCCL raise if a rank is gone
        raise Parted(f"a process that trains with this one is gone: {str(error).splitlines()[0]}") from error
