"""The random numbers of an epoch, drawn on the host from (seed, epoch, purpose) before its first step. Pure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainables.recipe import Epoch, Origin
from trainables.samplers import Purpose, epoch_order, generator


@dataclass(frozen=True)
class Draws:
    """An epoch's random numbers, for all ranks. They serve one epoch, since `streams` can be drawn from only once.

    Attributes:
        steps: the number of steps.
        orders: for each branch of the network the images of its steps, as positions in the training set: (n,) each.
        streams: for each branch the random stream of the augmentation.
        shares: the share of each step and 1 minus the share: (2, steps); None where a step is one batch.
    """

    steps: int

    orders: tuple[NDArray[np.int64], ...]
    streams: tuple[np.random.Generator, ...]
    shares: NDArray[np.float64] | None


def draws(counts: NDArray[np.int64], epoch: Epoch, origin: Origin, index: int) -> Draws:
    """Return the random numbers of an epoch with one sampler or a mixture.

    Args:
        counts: n_j: (C,).
        epoch: the instruction.
        origin: the origin; its seed and its number of ranks are used.
        index: the number of the epoch, from 0.
    """
    mixture = epoch.mixture
    branches = [(epoch.sampler, epoch.replacement, Purpose.ORDER, Purpose.AUGMENTATION)]
    if mixture is not None and mixture.second is not None:
        branches.append((*mixture.second, Purpose.REVERSED_ORDER, Purpose.REVERSED_AUGMENTATION))
    orders, streams = [], []
    for sampler, replacement, ordering, augmenting in branches:
        order = epoch_order(counts, sampler, replacement, generator(origin.seed, index, ordering))
        last_batch = len(order) % epoch.batch_size
        # A last batch with fewer images than ranks is left out.
        orders.append(order[: len(order) - last_batch] if epoch.drop_last or last_batch < origin.ranks else order)
        streams.append(generator(origin.seed, index, augmenting))
    steps = -(-len(orders[0]) // epoch.batch_size)
    shares = None
    if mixture is not None:
        first = mixture.shares(steps, generator(origin.seed, index, Purpose.MIXTURE))
        shares = np.stack((first, 1 - first))
    return Draws(steps, tuple(orders), tuple(streams), shares)
