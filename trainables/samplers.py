"""Class probabilities p_j ∝ n_j^q (eq. 1), and the order of the training images in an epoch, vectorised."""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray


class Purpose(IntEnum):
    """The purpose of a random number: each (seed, epoch, purpose) has a separate stream."""

    # Counted from 1: NumPy pads a seed with zeros, so [s, e] and [s, e, 0] are one stream.
    WEIGHTS = 1
    ORDER = 2
    AUGMENTATION = 3
    SPLIT = 4
    SELECTION = 5
    MIXTURE = 6
    REVERSED_ORDER = 7
    REVERSED_AUGMENTATION = 8
    LAYERS = 9


def generator(seed: int, epoch: int, purpose: Purpose) -> np.random.Generator:
    """Return the random stream of (seed, epoch, purpose)."""
    return np.random.default_rng([seed, epoch, int(purpose)])


def class_probabilities(counts: NDArray[np.int64], sampler: float | tuple[float, ...]) -> NDArray[np.float64]:
    """Return the probability of each class: (C,).

    Args:
        counts: n_j, the training images of each class: (C,). A class without images gets probability 0.
        sampler: the exponent q of eq. 1, or class weights (C,), which are normalised.

    Raises:
        ValueError: if the weights of all classes with images are 0.
    """
    present = counts > 0
    weights = np.zeros(len(counts))
    if isinstance(sampler, tuple):
        weights[present] = np.asarray(sampler)[present]
    else:
        powers = sampler * np.log(counts[present])  # in logs, since 5000^-200 underflows to 0
        weights[present] = np.exp(powers - powers.max())
    if not weights.sum() > 0:
        raise ValueError("the sampler's weights are 0 for every class that has images")
    probabilities: NDArray[np.float64] = weights / weights.sum()
    return probabilities


def epoch_order(
    counts: NDArray[np.int64], sampler: float | tuple[float, ...], replacement: bool, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Return the images of one epoch in order, as positions in the training set sorted by class: (N,), N = Σ n_j.

    q = 1 is instance-balanced sampling: a permutation. Otherwise each draw takes a class by its probability, then an
    image of the class: with `replacement` uniformly; without (Algorithm 1) the next of the class's shuffled images,
    which are shuffled again whenever they are used up. Deviation: the shuffles start anew each epoch, so that an epoch
    is independent of earlier ones.

    Args:
        counts: n_j: (C,). The images of class j have the positions Σ_{i<j} n_i … Σ_{i≤j} n_i - 1.
        sampler: the exponent q, or class weights (C,).
        replacement: whether images of a class are drawn with replacement.
        rng: the stream of (seed, epoch, `Purpose.ORDER`).
    """
    total = int(counts.sum())
    if sampler == 1.0:
        return rng.permutation(total)
    classes = _draw(class_probabilities(counts, sampler), total, rng)
    first = np.cumsum(counts) - counts
    if replacement:
        return first[classes] + (rng.random(total) * counts[classes]).astype(np.int64)

    # The k-th draw of class j is image k mod n_j of the class's shuffle number k div n_j.
    draws = np.bincount(classes, minlength=len(counts))
    short = np.uint16 if len(counts) <= 1 << 16 else np.int64  # NumPy sorts uint16 by radix, ten times faster
    by_class = np.argsort(classes.astype(short), kind="stable")
    turns = np.arange(total) - np.repeat(np.cumsum(draws) - draws, draws)
    # One array holds all shuffles, class by class. Sorting uniform keys inside each shuffle makes it.
    safe = np.maximum(counts, 1)
    room = -(-draws // safe) * counts
    start = np.cumsum(room) - room
    lengths = np.repeat(counts, room)
    within = np.arange(room.sum()) - np.repeat(start, room)
    shuffle = within // lengths + np.repeat(np.cumsum(room // safe) - room // safe, room)
    walk = np.argsort(shuffle + rng.random(len(shuffle)))
    images = np.repeat(first, room) + within % lengths

    order = np.empty(total, dtype=np.int64)
    order[by_class] = images[walk][np.repeat(start, draws) + turns]
    return order


def _draw(p: NDArray[np.float64], total: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return the draws of ``rng.choice(len(p), total, p=p)``, from the same stream: (total,).

    ``choice`` searches all classes for each draw. This function cuts the unit interval into cells, looks up the first
    class of a draw's cell, and moves the few draws beyond that class on, class by class.
    """
    bounds = p.cumsum()
    bounds /= bounds[-1]
    draws, cells = rng.random(total), 1 << 16
    classes = bounds.searchsorted(np.arange(cells) / cells, side="right")[(draws * cells).astype(np.int64)]
    beyond = np.flatnonzero(bounds[classes] <= draws)
    while len(beyond):
        classes[beyond] += 1
        beyond = beyond[bounds[classes[beyond]] <= draws[beyond]]
    return classes
