"""What is random in an epoch, made on the host before its first step, from (seed, epoch, purpose). Pure: no torch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainables.recipe import Epoch, Origin
from trainables.samplers import Purpose, epoch_order, generator


@dataclass(frozen=True)
class Draws:
    """An epoch's random numbers, of all ranks. They serve one epoch: its augmentation is still to be drawn.

    Attributes:
        steps: how many the epoch has.
        orders: for each branch of the network the images of its steps, as positions in the training set: (n,) each.
        streams: for each branch the generator of its augmentation, which is drawn once.
        shares: of each step, its share and what is left of 1: (2, steps); None where a step is one batch.
    """

    steps: int

    orders: tuple[NDArray[np.int64], ...]
    streams: tuple[np.random.Generator, ...]
    shares: NDArray[np.float64] | None


def draws(counts: NDArray[np.int64], epoch: Epoch, origin: Origin, index: int) -> Draws:
    """The numbers of the epoch with this index: of one sampler, or of a mixture.

    Args:
        counts: n_j: (C,).
        epoch: the instruction.
        origin: its seed, and how many ranks share a batch.
        index: which epoch it is, from 0.
    """
    mixture = epoch.mixture
    branches = [(epoch.sampler, epoch.replacement, Purpose.ORDER, Purpose.AUGMENTATION)]
    if mixture is not None and mixture.second is not None:
        branches.append((*mixture.second, Purpose.REVERSED_ORDER, Purpose.REVERSED_AUGMENTATION))
    orders, streams = [], []
    for sampler, replacement, ordering, augmenting in branches:
        order = epoch_order(counts, sampler, replacement, generator(origin.seed, index, ordering))
        rest = len(order) % epoch.batch_size
        # A last batch of fewer images than ranks is left out.
        orders.append(order[: len(order) - rest] if epoch.drop_last or rest < origin.ranks else order)
        streams.append(generator(origin.seed, index, augmenting))
    steps = -(-len(orders[0]) // epoch.batch_size)
    shares = None
    if mixture is not None:
        first = mixture.shares(steps, generator(origin.seed, index, Purpose.MIXTURE))
        shares = np.stack((first, 1 - first))
    return Draws(steps, tuple(orders), tuple(streams), shares)
