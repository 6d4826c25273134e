"""What a data set is: its facts, which planning needs, and how its images are read. Pure: no torch.

Balanced sets are made long-tailed as by LDAM and BBN: ``n_j = int(n_max * r ** (j / (C - 1)))``, r = 1/IF, truncated.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from study.errors import Refusal

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from trainables.ranks import Ranks
    from trainables.recipe import Epoch


@dataclass(frozen=True)
class Lists:
    """The public lists of a data set: text files with a line ``path label`` for each image.

    They lie in a folder of their own below the data folder and are called ``{name}_train.txt`` and so on; the paths in
    them are relative to that folder.

    Attributes:
        name: of the folder, with which the files' names begin.
        train, val: how many lines these lists have.
        test: likewise; 0 if there is no such list, and `val` is what is reported.
    """

    name: str
    train: int
    val: int
    test: int


@dataclass(frozen=True)
class Wanted:
    """What an origin and a worker want of a data set.

    Attributes:
        imbalance: IF; 1 keeps each class whole, and the long-tailed subset of the same seed is its beginning.
        split_seed: which images are for test, where that is drawn.
        subset_seed: which images are kept; see `resident.subset`.
        crop: zero padding in pixels that batches are cropped from.
        device: cpu or cuda.
        root: where the files of data sets lie.
        workers: processes that decode files of images; the images are the same for any number.
        ranks: whose shares its batches are.
    """

    imbalance: float
    split_seed: int
    subset_seed: int
    crop: int
    device: str
    root: Path
    workers: int
    ranks: Ranks


class Images(NamedTuple):
    """A balanced data set in memory: uint8 images (N, channels, side, side), and each one's class (N,), from 0.

    Attributes:
        train, labels: the images that a long-tailed training set is chosen of.
        test, test_labels: the test images, as many of each class.
    """

    train: NDArray[np.uint8]
    labels: NDArray[np.int64]
    test: NDArray[np.uint8]
    test_labels: NDArray[np.int64]


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


class Dataset(ABC):
    """The facts of a data set: balanced and made long-tailed, or long-tailed by nature.

    Attributes:
        classes: C. Everywhere a class is called by its rank: 0 has the most training images.
        largest: images of the largest class, n_max.
        channels, side: images are (channels, side, side), uint8, when they reach the network.
        scale: the value of a white pixel; images are divided by it before mean and std apply.
        mean, std: per channel, after scaling.
        crop: zero padding in pixels before a random crop back to ``side``; 0 for files of images, whose crop is random
            in size and shape.
        flip: whether images are flipped horizontally at random.
        many, few: a class is many-shot above ``many`` training images, few-shot below ``few``, else medium-shot.
        fingerprint: names what the files hold: ``prepare`` or ``read`` has to check it (`verified`). Of data that code
            makes without files any word will do, for the code is in the names of states by itself.
        natural: the imbalance factor of data that are long-tailed by nature; None for those that are made so.
        lists: of data that come as lists of files: only these say how many images a class has.
        selection: where the images for selection, `val`, are from: ``half`` of the test images, fixed and
            class-balanced, so that test is val and holdout; a ``list`` of their own; or ``train``, images held out from
            training. In the latter two cases test and holdout are the same images.
        drawn: what a seed decides of the data: ``split``, which images are for test; ``subset``, which are kept.
        settings: of its protocol, where that is not CIFAR's: fields of `Config`.
        jitter: of files of images: by how much brightness, contrast and saturation vary at random.
        short_steps: whether steps are too short for a GPU, or for bf16, to make them shorter.
    """

    classes: int
    largest: int
    channels: int
    side: int
    fingerprint: str
    scale: int = 255
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop: int = 4
    flip: bool = True
    many: int = 100
    few: int = 20
    natural: float | None = None
    lists: Lists | None = None
    selection: str = "half"
    drawn: tuple[str, ...] = ()
    settings: ClassVar[Mapping[str, Any]] = {}
    short_steps: bool = False
    jitter: float = 0.0

    @abstractmethod
    def prepare(self, root: Path, download: bool) -> None:
        """See that it is on disk, whole, downloading it if that was asked for and can be done.

        Raises:
            Refusal: if it is not, saying how to get it.
        """

    @abstractmethod
    def load(self, wanted: Wanted) -> Data:
        """What the loop trains on, on its device.

        Raises:
            Refusal: if files are missing, or not those of the plan.
        """

    def counts(self, imbalance: float) -> tuple[int, ...]:
        """Training images of each class, largest first: (C,). Of lists they are known only once these are read."""
        if self.lists is not None:
            raise ValueError(f"{self.lists.name}: only its lists say how many images each class has")
        return tuple(
            int(self.largest * (1.0 / imbalance) ** (rank / (self.classes - 1.0))) for rank in range(self.classes)
        )

    def images(self, imbalance: float) -> int:
        """Training images in all, N; of `selection` from ``train`` before the images for it are taken away."""
        return self.lists.train if self.lists is not None else sum(self.counts(imbalance))

    def shots(self, imbalance: float) -> dict[str, list[int]]:
        """The classes of each split at an imbalance factor; see `split`."""
        return self.split(self.counts(imbalance))

    def told(self) -> str:
        """All facts that training depends on, as text: a state's name holds its digest."""
        names = (
            "classes",
            "largest",
            "channels",
            "side",
            "scale",
            "mean",
            "std",
            "many",
            "few",
            "natural",
            "selection",
        )
        return repr([getattr(self, name) for name in (*names, "drawn", "jitter", "lists")])

    def split(self, counts: Sequence[int]) -> dict[str, list[int]]:
        """The classes of each split, many-, medium- and few-shot, by their training images: (C,)."""
        splits: dict[str, list[int]] = {"many": [], "medium": [], "few": []}
        for rank, count in enumerate(counts):
            splits["many" if count > self.many else "few" if count < self.few else "medium"].append(rank)
        return splits


@cache
def decoders() -> str:
    """The libraries that turn a file into pixels: other versions may make others of it."""
    return ", ".join(f"{package} {metadata.version(package)}" for package in ("pillow", "torchvision"))


def verified(dataset: Dataset, *arrays: NDArray[Any]) -> None:
    """Refuse arrays whose content is not what the fingerprint of a data set says: ``sha256:`` and their digest.

    Raises:
        Refusal: with the fingerprint of what was found.
    """
    content = hashlib.sha256()
    for array in arrays:
        content.update(np.ascontiguousarray(array).tobytes())
    found = f"sha256:{content.hexdigest()}"
    if found != dataset.fingerprint:
        raise Refusal(
            type(dataset).__name__, found, f"must have the declared fingerprint, {dataset.fingerprint or None}"
        )
