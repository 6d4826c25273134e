"""One epoch's order of images under CB and CR: ours against torch's sampler, and against those in plain Python.

    python tests/benchmarks/sampler.py [--repeats 7] [--out JSON]

With replacement, ours and ``WeightedRandomSampler`` (weights n_j^(q-1) an image) draw from the same distribution.
Without, ours and the class-aware samplers walk through each class's shuffled images. These are written as those of the
public trainers are, an endless shuffled cycle over each class's images and some Python calls a draw; a class is found
among the cumulated probabilities by bisection (the better way), or, as BBN's code does, one after the other. All have
one core.

What differs: the peers yield Python integers one by one, as a DataLoader takes them, ours an array, as our data take
it; what does not change from epoch to epoch (weights, lists of each class's images) is not timed; of the linear search
2,000 draws are timed and multiplied. The sizes and the largest and smallest classes are the data sets' own; the class
sizes between are made (CIFAR-10-LT's, IF 50, are exact).
"""

from __future__ import annotations

import bisect
import itertools
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from measuring import alternate, arguments, ratio, seconds, spread, write
from numpy.typing import NDArray
from torch.utils.data import Sampler, WeightedRandomSampler

from trainables.data.datasets import facts
from trainables.samplers import Purpose, class_probabilities, epoch_order, generator

SAMPLERS = {"CB": 0.0, "CR": -1.0}
LINEAR_DRAWS = 2000


def sizes() -> dict[str, NDArray[np.int64]]:
    """The training images of each class, by data set."""
    return {
        "CIFAR-10-LT": np.asarray(facts("cifar10").counts(50)),
        "ImageNet-LT": tail(115_846, 1000, 1280, 5),
        "iNaturalist 2018": tail(437_513, 8142, 1000, 2),
    }


def tail(total: int, classes: int, largest: int, smallest: int) -> NDArray[np.int64]:
    """Class sizes that fall from the largest to the smallest and sum to the total: (C,)."""
    low, high = 0.01, 10.0  # of the power that bends a geometric fall
    missing = total
    while not 0 <= missing < classes // 2:
        power = (low + high) / 2
        counts = (largest * (smallest / largest) ** (np.linspace(0, 1, classes) ** power)).astype(np.int64)
        counts[-1] = smallest
        missing = total - int(counts.sum())
        low, high = (power, high) if missing > 0 else (low, power)
    counts[1 : missing + 1] += 1
    return counts


class ClassAware(Sampler[int]):
    """Draws a class by its probability, then the next image of that class's endless shuffled cycle."""

    def __init__(
        self, counts: NDArray[np.int64], exponent: float, find: Callable[[list[float], float], int], draws: int
    ) -> None:
        self.cumulated = list(itertools.accumulate(class_probabilities(counts, exponent).tolist()))
        self.cumulated[-1] = 1.0
        first = np.cumsum(counts) - counts
        self.cycles = [
            Cycle(list(range(start, start + n))) for start, n in zip(first.tolist(), counts.tolist(), strict=True)
        ]
        self.find, self.draws = find, draws

    def __iter__(self) -> Iterator[int]:
        for _ in range(self.draws):
            yield next(self.cycles[self.find(self.cumulated, random.random())])

    def __len__(self) -> int:
        return self.draws


class Cycle:
    """A class's images, again and again, shuffled each time."""

    def __init__(self, images: list[int]) -> None:
        random.shuffle(images)
        self.images, self.at = images, random.randrange(len(images))  # as after many epochs

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        if self.at == len(self.images):
            random.shuffle(self.images)
            self.at = 0
        self.at += 1
        return self.images[self.at - 1]


def linear(cumulated: list[float], draw: float) -> int:
    """The first class whose cumulated probability is above the draw, looked at one after the other."""
    return next(label for label, bound in enumerate(cumulated) if draw < bound)


def weighted(counts: NDArray[np.int64], exponent: float) -> WeightedRandomSampler:
    """torch's sampler for p_j ∝ n_j^q."""
    weights = np.repeat(counts.astype(float) ** (exponent - 1), counts)
    return WeightedRandomSampler(torch.from_numpy(weights), len(weights), replacement=True)


def compare(counts: NDArray[np.int64], q: float, epochs: int, repeats: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Ours against each peer: its name, and milliseconds an epoch."""
    total, rng = int(counts.sum()), generator(0, 0, Purpose.ORDER)
    peers: dict[str, tuple[bool, Sampler[int]]] = {
        "WeightedRandomSampler": (True, weighted(counts, q)),
        "class-aware": (False, ClassAware(counts, q, bisect.bisect, total)),
        "class-aware, linear search": (False, ClassAware(counts, q, linear, min(total, LINEAR_DRAWS))),
    }
    for name, (replacement, peer) in peers.items():

        def ours(replacement: bool = replacement) -> float:
            return seconds(lambda: epoch_order(counts, q, replacement, rng), epochs)

        def theirs(peer: Any = peer) -> float:
            return seconds(lambda: sum(1 for _ in peer), epochs) * total / len(peer)

        found = alternate({"ours": ours, "peer": theirs}, repeats)
        yield (
            name,
            {
                "replacement": replacement,
                "ours_ms": spread([1000 * each for each in found["ours"]]),
                "peer_ms": spread([1000 * each for each in found["peer"]]),
                "ratio": ratio(found["peer"], found["ours"]),
            },
        )


def main() -> None:
    """Every data set, sampler and peer."""
    parser = arguments(__doc__, "sampler", repeats=7)
    parser.add_argument("--epochs", type=int, default=3, help="that one measurement is the mean of")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    cases = [
        {"data": data, "images": int(counts.sum()), "classes": len(counts), "sampler": name, "peer": peer, **found}
        for data, counts in sizes().items()
        for name, q in SAMPLERS.items()
        for peer, found in compare(counts, q, asked.epochs, asked.repeats)
    ]
    write(asked.out, {"unit": "ms an epoch's order; ratio: peer / ours", "n": asked.repeats, "cases": cases})


if __name__ == "__main__":
    main()
