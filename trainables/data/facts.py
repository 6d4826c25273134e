"""Data sets: the facts that planning needs, and the interface that reads the images. Pure: no torch.

Balanced sets are made long-tailed as in LDAM and BBN: ``n_j = int(n_max * r ** (j / (C - 1)))`` with r = 1/IF. The
numbers are truncated.
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

    They are in the folder `name` below the data folder and have the names ``{name}_train.txt`` and so on. The paths in
    them are relative to that folder.

    Attributes:
        name: the name of the folder and the prefix of the files' names.
        train, val: the number of lines of these lists.
        test: the number of lines of the test list; 0 if there is no such list, and results on `val` are reported.
    """

    name: str
    train: int
    val: int
    test: int


@dataclass(frozen=True)
class Wanted:
    """The values of an origin and a worker that determine how a data set is loaded.

    Attributes:
        imbalance: IF; 1 keeps each class whole. The long-tailed subset of the same seed is the beginning of each class.
        split_seed: the seed of the test images, if they are drawn.
        subset_seed: the seed of the subset; see `resident.subset`.
        crop: the zero padding in pixels before a random crop.
        device: cpu or cuda.
        root: the data folder.
        workers: the number of processes that decode image files; the images are the same for any number.
        ranks: the rank whose shares the batches are.
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
    """A balanced data set in memory: uint8 images (N, channels, side, side), and the class of each (N,), from 0.

    Attributes:
        train, labels: the images from which a long-tailed training set is chosen.
        test, test_labels: the test images; each class has the same number of them.
    """

    train: NDArray[np.uint8]
    labels: NDArray[np.int64]
    test: NDArray[np.uint8]
    test_labels: NDArray[np.int64]


class Data(Protocol):
    """The interface of a loaded data set to the loop.

    If several processes train together, each batch is the share of this rank; random numbers are drawn for all ranks.

    Attributes:
        facts: the declared facts of the data set.
        counts: n_j, largest first: (C,), NumPy.
        shots: the classes of each split, many, medium and few.
        device: the device of the batches.
        in_val: True for images of `test_batches` that are for selection: (M,) bool.
    """

    facts: Dataset
    counts: NDArray[np.int64]
    shots: dict[str, list[int]]
    device: torch.device
    in_val: Tensor

    def batches(
        self, order: NDArray[np.int64], epoch: Epoch, rng: np.random.Generator
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Return batches of augmented, normalised training images (B, channels, side, side) with labels (B,).

        The call itself draws all random numbers from `rng`, before the first batch is requested.

        Args:
            order: positions in the training set, which is sorted by class: (n,).
            epoch: the instruction; its batch size, crop and flip are used.
            rng: the random stream of the augmentation.
        """
        ...

    def test_batches(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Return batches of normalised test images, their labels (B,) and their parts (B,): 1 is val, 0 holdout."""
        ...

    def fit_batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Return batches of un-augmented, normalised training images in the order of storage, with labels."""
        ...


class Dataset(ABC):
    """The facts of a data set that is balanced and made long-tailed, or long-tailed by nature.

    Attributes:
        classes: the number of classes C. A class is always identified by its rank: 0 has the most training images.
        largest: the number of images of the largest class, n_max.
        channels, side: the shape of an image, (channels, side, side), uint8, when it reaches the network.
        scale: the value of a white pixel; images are divided by it before mean and std apply.
        mean, std: mean and standard deviation per channel, after scaling.
        crop: zero padding in pixels before a random crop back to ``side``; 0 for image files, whose crop is random in
            size and shape.
        flip: whether images are flipped horizontally at random.
        many, few: a class is many-shot above ``many`` training images, few-shot below ``few``, else medium-shot.
        fingerprint: identifies the content of the files; ``prepare`` or ``read`` has to check it (`verified`). For data
            that code makes without files, any text is allowed, because the names of states include the code.
        natural: the imbalance factor of data that are long-tailed by nature; None for data that are made long-tailed.
        lists: the lists of data that come as lists of files; only the lists determine the number of images of a class.
        selection: the source of the images for selection, `val`. ``half``: one half of the test images, fixed and
            class-balanced; test is then val and holdout together. ``list``: a separate list. ``train``: images that
            are held out from training. With ``list`` and ``train``, test and holdout are the same images.
        drawn: the parts of the data that a seed determines: ``split``, the test images; ``subset``, the kept images.
        settings: the fields of `Config` in which its protocol differs from CIFAR's, with their values.
        jitter: the strength of random changes in brightness, contrast and saturation, for image files.
        short_steps: whether steps are so short that neither a GPU nor bf16 makes them shorter.
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
        """Check that the data set is complete on disk; download it if requested and possible.

        Raises:
            Refusal: if it is not complete. The message says how to get it.
        """

    @abstractmethod
    def load(self, wanted: Wanted) -> Data:
        """Return the loaded data, on the device.

        Raises:
            Refusal: if files are missing, or differ from those of the plan.
        """

    def counts(self, imbalance: float) -> tuple[int, ...]:
        """Return the number of training images of each class, largest first: (C,).

        Raises:
            ValueError: for data that come as lists, which must be read first.
        """
        if self.lists is not None:
            raise ValueError(f"{self.lists.name}: the class counts are known only from its lists")
        return tuple(
            int(self.largest * (1.0 / imbalance) ** (rank / (self.classes - 1.0))) for rank in range(self.classes)
        )

    def images(self, imbalance: float) -> int:
        """Return the number of training images N, including those that ``selection = train`` holds out."""
        return self.lists.train if self.lists is not None else sum(self.counts(imbalance))

    def shots(self, imbalance: float) -> dict[str, list[int]]:
        """Return the classes of each split at an imbalance factor; see `split`."""
        return self.split(self.counts(imbalance))

    def described(self) -> str:
        """Return all facts that training depends on, as text; a state's name includes the digest of this text."""
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
        """Return the classes of each split (many-, medium- and few-shot) from the number of images per class: (C,)."""
        splits: dict[str, list[int]] = {"many": [], "medium": [], "few": []}
        for rank, count in enumerate(counts):
            splits["many" if count > self.many else "few" if count < self.few else "medium"].append(rank)
        return splits


@cache
def decoders() -> str:
    """Return the versions of the libraries that decode images; other versions may give other pixels."""
    return ", ".join(f"{package} {metadata.version(package)}" for package in ("pillow", "torchvision"))


def verified(dataset: Dataset, *arrays: NDArray[Any]) -> None:
    """Check that the digest of arrays is the fingerprint of a data set, ``sha256:`` and the digest.

    Raises:
        Refusal: if the digest differs. Its value is the fingerprint of the arrays.
    """
    content = hashlib.sha256()
    for array in arrays:
        content.update(np.ascontiguousarray(array).tobytes())
    fingerprint = f"sha256:{content.hexdigest()}"
    if fingerprint != dataset.fingerprint:
        words = f"must have the declared fingerprint {dataset.fingerprint or None}"
        raise Refusal(type(dataset).__name__, fingerprint, words)
