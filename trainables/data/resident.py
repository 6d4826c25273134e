"""Small data sets, which are resident on the device."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from study.errors import Refusal
from trainables.data.facts import Dataset, Images, Wanted
from trainables.data.lists import halves
from trainables.ranks import ALONE, Ranks
from trainables.recipe import Epoch

EVALUATION_BATCH = 1000
GPU_EVALUATION_BATCH = 5000  # fixed, so that results do not depend on free memory; 330 MB an activation of ResNet-32


@dataclass(frozen=True)
class Arrays:
    """The images of a long-tailed training set, sorted by class, and of its balanced test set.

    Attributes:
        counts: n_j, largest first: (C,).
        train, test: (N, channels, side, side) and (M, channels, side, side).
        test_labels: (M,).
        in_val: which test images are the fixed class-balanced half for selection: (M,).
    """

    counts: NDArray[np.int64]
    train: NDArray[np.uint8]
    test: NDArray[np.uint8]
    test_labels: NDArray[np.int64]
    in_val: NDArray[np.bool_]


def long_tailed(known: Dataset, images: Images, wanted: Wanted) -> LongTailed:
    """The long-tailed version of a balanced data set.

    Raises:
        Refusal: if its images are not what its facts say.
    """
    counts = np.asarray(known.counts(wanted.imbalance))
    if not isinstance(images, Images):
        raise Refusal(type(known).__name__, type(images).__name__, "must read Images")
    _check(known, images)
    train = images.train[subset(images.labels, counts, wanted.subset_seed)]
    in_val = halves(images.test_labels, wanted.split_seed if "split" in known.drawn else 0)
    arrays = Arrays(counts, train, images.test, images.test_labels, in_val)
    return LongTailed(known, arrays, wanted.crop, torch.device(wanted.device), wanted.ranks)


def _check(known: Dataset, images: Images) -> None:
    shape = (known.channels, known.side, known.side)
    for part, own, labels in (
        ("training", images.train, images.labels),
        ("test", images.test, images.test_labels),
    ):
        least = known.largest if part == "training" else 2
        found = f"{own.dtype} {own.shape}, {len(labels)} labels"
        if own.dtype != np.uint8 or own.shape != (len(labels), *shape):
            raise Refusal(
                type(known).__name__, found, f"must have {part} images (N, {', '.join(map(str, shape))}) of uint8"
            )
        each = np.bincount(labels, minlength=known.classes) if len(labels) and labels.min() >= 0 else np.zeros(1)
        if len(each) != known.classes or each.min() < least:
            remedy = f"must have at least {least} {part} images of each of {known.classes} classes, called 0, 1, …"
            raise Refusal(type(known).__name__, f"{part} images by class: {each.tolist()}"[:80], remedy)


def subset(labels: NDArray[np.int64], counts: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """LDAM's and BBN's long-tailed subset: positions sorted by class, (Σ n_j,).

    One `RandomState(seed)`; classes ascending; each class's positions are shuffled and the first n_j kept.
    """
    rng = np.random.RandomState(seed)
    kept = []
    for label, count in enumerate(counts):
        positions = np.flatnonzero(labels == label)
        rng.shuffle(positions)
        kept.append(positions[:count])
    return np.concatenate(kept)


class LongTailed:
    """A long-tailed training set and its balanced test set, resident on a device as uint8; see `Data`.

    Crop, flip and normalisation happen there.

    Attributes:
        labels: of the training images, which are sorted by class: (N,).
        test_labels: (M,).
        in_val: which test images are the fixed class-balanced half for selection: (M,) bool.
    """

    def __init__(self, facts: Dataset, arrays: Arrays, crop: int, device: torch.device, ranks: Ranks = ALONE) -> None:
        self.facts, self.counts, self.crop, self.device, self._own = facts, arrays.counts, crop, device, ranks.own
        counts = arrays.counts
        self.shots = facts.split(counts.tolist())
        padded = np.pad(arrays.train, ((0, 0), (0, 0), (crop, crop), (crop, crop)))
        self._train = torch.from_numpy(padded).to(device)  # (N, channels, side + 2 crop, side + 2 crop)
        # Every crop as a view, (N, channels, 2 crop + 1, 2 crop + 1, side, side): a gather makes a batch of them.
        self._crops = self._train.unfold(2, facts.side, 1).unfold(3, facts.side, 1)
        self.labels = torch.from_numpy(np.repeat(np.arange(len(counts)), counts)).to(device)
        self._test = torch.from_numpy(arrays.test).to(device)
        self.test_labels = torch.from_numpy(arrays.test_labels).to(device)
        self.in_val = torch.from_numpy(arrays.in_val).to(device)
        self._mean = torch.tensor(facts.mean, device=device).view(-1, 1, 1) * facts.scale
        self._std = torch.tensor(facts.std, device=device).view(-1, 1, 1) * facts.scale

    def rows(self, order: NDArray[np.int64], epoch: Epoch, rng: np.random.Generator) -> NDArray[np.int64]:
        """What `cut` needs of each image: its position, the top and the left of its crop, and whether it is mirrored.

        Made on the host, of all ranks' images: (4, n). `order` and `rng` are those of `Data.batches`.
        """
        assert epoch.crop == self.crop
        crops = rng.integers(0, 2 * epoch.crop + 1, size=(2, len(order)))
        mirrored = (rng.random(len(order)) < 0.5) if epoch.flip else np.zeros(len(order), dtype=bool)
        return np.stack((order, *crops, mirrored.astype(np.int64)))

    def cut(self, rows: Tensor, flip: bool) -> tuple[Tensor, Tensor]:
        """Cut the batch that `rows`, (4, B), describes: images, augmented and normalised, and their labels.

        Without `flip` the row that says what is mirrored is ignored.
        """
        picks, top, left, mirrored = rows
        images = self._crops[picks, :, top, left]
        if flip:
            images = torch.where(mirrored.bool().view(-1, 1, 1, 1), images.flip(-1), images)
        return self._normalise(images), self.labels[picks]

    def batches(
        self, order: NDArray[np.int64], epoch: Epoch, rng: np.random.Generator
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """See `Data.batches`. Order, crops and flips are drawn in one go and sent to the device in one go."""
        rows = torch.from_numpy(self.rows(order, epoch, rng)).to(self.device)
        return (
            self.cut(rows[:, start : start + epoch.batch_size][:, self._own], epoch.flip)
            for start in range(0, len(order), epoch.batch_size)
        )

    def test_batches(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """See `Data.test_batches`."""
        images, labels, part = self._test[self._own], self.test_labels[self._own], self.in_val[self._own].long()
        for at in self._evaluation_batches(len(labels)):
            yield self._normalise(images[at]), labels[at], part[at]

    def fit_batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """See `Data.fit_batches`."""
        images, labels = self._crops[self._own, :, self.crop, self.crop], self.labels[self._own]
        for at in self._evaluation_batches(len(labels)):
            yield self._normalise(images[at]), labels[at]

    def _evaluation_batches(self, images: int) -> Iterator[slice]:
        size = EVALUATION_BATCH if self.device.type == "cpu" else GPU_EVALUATION_BATCH
        return (slice(start, start + size) for start in range(0, images, size))

    def _normalise(self, images: Tensor) -> Tensor:
        return (images.float() - self._mean) / self._std
