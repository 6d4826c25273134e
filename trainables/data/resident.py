"""What the loop asks of a data set, and small sets, which are resident on the device."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainables.data.facts import Dataset, Small, Wanted
from trainables.data.lists import halves
from trainables.ranks import ALONE, Ranks
from trainables.recipe import Epoch

EVALUATION_BATCH = 1000
GPU_EVALUATION_BATCH = 5000  # fixed, so that results do not depend on free memory; 330 MB an activation of ResNet-32


class Data(Protocol):
    """What the loop asks of a data set, wherever its images are.

    If several processes train together, all batches are a rank's own shares; what is drawn is drawn whole.

    Attributes:
        facts: what is declared of the data set.
        counts: n_j, largest first: (C,), NumPy.
        shots: the classes of each split, many, medium and few.
        device: where the batches are.
        in_val: which of the images that `test_batches` gives are for selection: (M,) bool.
    """

    facts: Dataset
    counts: NDArray[np.int64]
    shots: dict[str, list[int]]
    device: torch.device
    in_val: Tensor

    def batches(
        self, order: NDArray[np.int64], epoch: Epoch, rng: np.random.Generator
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Augmented, normalised training images (B, channels, side, side) with their labels (B,).

        All that is drawn of `rng` is drawn by the call itself, before the first batch is asked for.

        Args:
            order: positions in the training set, which is sorted by class: (n,).
            epoch: the instruction; its batch size, crop and flip.
            rng: the augmentation is drawn from it.
        """
        ...

    def test_batches(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Normalised test images, their labels (B,), and the part that each belongs to (B,): 1 is val, 0 holdout."""
        ...

    def fit_batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Un-augmented, normalised training images in the order of storage, with their labels."""
        ...


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


def long_tailed(known: Small, wanted: Wanted) -> LongTailed:
    """The long-tailed version of a balanced data set."""
    images = known.read(wanted.root, wanted.split_seed)
    counts = np.asarray(known.counts(wanted.imbalance))
    train = images.train[subset(images.labels, counts, wanted.subset_seed)]
    in_val = halves(images.test_labels, wanted.split_seed if "split" in known.drawn else 0)
    arrays = Arrays(counts, train, images.test, images.test_labels, in_val)
    return LongTailed(known, arrays, wanted.crop, torch.device(wanted.device), wanted.ranks)


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
