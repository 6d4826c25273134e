"""Small data sets that are held on the device."""

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
        test_labels: the labels of the test images: (M,).
        in_val: which test images are the fixed class-balanced half for selection: (M,).
    """

    counts: NDArray[np.int64]
    train: NDArray[np.uint8]
    test: NDArray[np.uint8]
    test_labels: NDArray[np.int64]
    in_val: NDArray[np.bool_]


def long_tailed(dataset: Dataset, images: Images, wanted: Wanted) -> LongTailed:
    """Return the long-tailed version of a balanced data set.

    Raises:
        Refusal: if the images differ from the declared facts.
    """
    counts = np.asarray(dataset.counts(wanted.imbalance))
    if not isinstance(images, Images):
        raise Refusal(type(dataset).__name__, type(images).__name__, "must return Images from read")
    _check(dataset, images)
    train = images.train[subset(images.labels, counts, wanted.subset_seed)]
    in_val = halves(images.test_labels, wanted.split_seed if "split" in dataset.drawn else 0)
    arrays = Arrays(counts, train, images.test, images.test_labels, in_val)
    return LongTailed(dataset, arrays, wanted.crop, torch.device(wanted.device), wanted.ranks)


def _check(dataset: Dataset, images: Images) -> None:
    shape = (dataset.channels, dataset.side, dataset.side)
    for part, pixels, labels in (
        ("training", images.train, images.labels),
        ("test", images.test, images.test_labels),
    ):
        least = dataset.largest if part == "training" else 2
        if pixels.dtype != np.uint8 or pixels.shape != (len(labels), *shape):
            description = f"{pixels.dtype} {pixels.shape}, {len(labels)} labels"
            words = f"must have {part} images (N, {', '.join(map(str, shape))}) of uint8"
            raise Refusal(type(dataset).__name__, description, words)
        counts = np.bincount(labels, minlength=dataset.classes) if len(labels) and labels.min() >= 0 else np.zeros(1)
        if len(counts) != dataset.classes or counts.min() < least:
            words = f"must have at least {least} {part} images of each of {dataset.classes} classes"
            description = f"{part} images by class: {counts.tolist()}"[:80]
            raise Refusal(type(dataset).__name__, description, words, f"Labels are 0 to {dataset.classes - 1}")


def subset(labels: NDArray[np.int64], counts: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """Return the long-tailed subset of LDAM and BBN: positions sorted by class, (Σ n_j,).

    One `RandomState(seed)` shuffles each class's positions, in ascending order of the classes; the first n_j are kept.
    """
    rng = np.random.RandomState(seed)
    chosen = []
    for label, count in enumerate(counts):
        positions = np.flatnonzero(labels == label)
        rng.shuffle(positions)
        chosen.append(positions[:count])
    return np.concatenate(chosen)


class LongTailed:
    """A long-tailed training set and its balanced test set, held on a device as uint8; see `Data`.

    The device crops, flips and normalises the images.

    Attributes:
        labels: the labels of the training images, which are sorted by class: (N,).
        test_labels: the labels of the test images: (M,).
        in_val: which test images are the fixed class-balanced half for selection: (M,) bool.
    """

    def __init__(self, facts: Dataset, arrays: Arrays, crop: int, device: torch.device, ranks: Ranks = ALONE) -> None:
        self.facts, self.counts, self.crop, self.device, self._share = facts, arrays.counts, crop, device, ranks.share
        counts = arrays.counts
        self.shots = facts.split(counts.tolist())
        padded = np.pad(arrays.train, ((0, 0), (0, 0), (crop, crop), (crop, crop)))
        self._train = torch.from_numpy(padded).to(device)  # (N, channels, side + 2 crop, side + 2 crop)
        # A view of every crop, (N, channels, 2 crop + 1, 2 crop + 1, side, side): a gather from it makes a batch.
        self._crops = self._train.unfold(2, facts.side, 1).unfold(3, facts.side, 1)
        self.labels = torch.from_numpy(np.repeat(np.arange(len(counts)), counts)).to(device)
        self._test = torch.from_numpy(arrays.test).to(device)
        self.test_labels = torch.from_numpy(arrays.test_labels).to(device)
        self.in_val = torch.from_numpy(arrays.in_val).to(device)
        self._mean = torch.tensor(facts.mean, device=device).view(-1, 1, 1) * facts.scale
        self._std = torch.tensor(facts.std, device=device).view(-1, 1, 1) * facts.scale

    def rows(self, order: NDArray[np.int64], epoch: Epoch, rng: np.random.Generator) -> NDArray[np.int64]:
        """Return the input of `cut`: each image's position, top and left of its crop, and whether it is mirrored.

        The rows are made on the host, for the images of all ranks: (4, n). `order` and `rng` are those of
        `Data.batches`.
        """
        assert epoch.crop == self.crop
        crops = rng.integers(0, 2 * epoch.crop + 1, size=(2, len(order)))
        mirrored = (rng.random(len(order)) < 0.5) if epoch.flip else np.zeros(len(order), dtype=bool)
        return np.stack((order, *crops, mirrored.astype(np.int64)))

    def cut(self, rows: Tensor, flip: bool) -> tuple[Tensor, Tensor]:
        """Return the batch of `rows`, (4, B): augmented, normalised images and their labels.

        Without `flip` the last row is ignored.
        """
        picks, top, left, mirrored = rows
        images = self._crops[picks, :, top, left]
        if flip:
            images = torch.where(mirrored.bool().view(-1, 1, 1, 1), images.flip(-1), images)
        return self._normalise(images), self.labels[picks]

    def batches(
        self, order: NDArray[np.int64], epoch: Epoch, rng: np.random.Generator
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """See `Data.batches`. Order, crops and flips are drawn at once and copied to the device at once."""
        rows = torch.from_numpy(self.rows(order, epoch, rng)).to(self.device)
        return (
            self.cut(rows[:, start : start + epoch.batch_size][:, self._share], epoch.flip)
            for start in range(0, len(order), epoch.batch_size)
        )

    def test_batches(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """See `Data.test_batches`."""
        images, labels, part = self._test[self._share], self.test_labels[self._share], self.in_val[self._share].long()
        for at in self._evaluation_batches(len(labels)):
            yield self._normalise(images[at]), labels[at], part[at]

    def fit_batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """See `Data.fit_batches`."""
        images, labels = self._crops[self._share, :, self.crop, self.crop], self.labels[self._share]
        for at in self._evaluation_batches(len(labels)):
            yield self._normalise(images[at]), labels[at]

    def _evaluation_batches(self, images: int) -> Iterator[slice]:
        size = EVALUATION_BATCH if self.device.type == "cpu" else GPU_EVALUATION_BATCH
        return (slice(start, start + size) for start in range(0, images, size))

    def _normalise(self, images: Tensor) -> Tensor:
        return (images.float() - self._mean) / self._std
