"""The facts of a data set, as its file declares them. Pure: no torch.

Balanced sets are made long-tailed as by LDAM and BBN: ``n_j = int(n_max * r ** (j / (C - 1)))``, r = 1/IF, truncated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


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
class Dataset:
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
        fingerprint: names the files' content; checked when the data are prepared.
        natural: the imbalance factor of data that are long-tailed by nature; None for those that are made so.
        jitter: of files of images: by how much brightness, contrast and saturation vary at random.
        lists: of data that come as lists of files.
        train_counts: n_j of a folder of images, largest first: (C,).
        selection: where the images for selection, `val`, are from: ``half`` of the test images, fixed and
            class-balanced, so that test is val and holdout; a ``list`` of their own; or ``train``, images held out from
            training. In the latter two cases test and holdout are the same images.
        drawn: what a seed decides of the data: ``split``, which images are for test; ``subset``, which are kept.
    """

    classes: int
    largest: int
    channels: int
    side: int
    scale: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop: int
    flip: bool
    many: int
    few: int
    fingerprint: str
    natural: float | None = None
    jitter: float = 0.0
    lists: Lists | None = None
    train_counts: tuple[int, ...] = ()
    selection: str = "half"
    drawn: tuple[str, ...] = ()

    def counts(self, imbalance: float) -> tuple[int, ...]:
        """Training images of each class, largest first: (C,). Of lists they are known only once these are read."""
        if self.lists is not None:
            raise ValueError(f"{self.lists.name}: only its lists say how many images each class has")
        return self.train_counts or tuple(
            int(self.largest * (1.0 / imbalance) ** (rank / (self.classes - 1.0))) for rank in range(self.classes)
        )

    def images(self, imbalance: float) -> int:
        """Training images in all, N; of `selection` from ``train`` before the images for it are taken away."""
        return self.lists.train if self.lists is not None else sum(self.counts(imbalance))

    def shots(self, imbalance: float) -> dict[str, list[int]]:
        """The classes of each split at an imbalance factor; see `split`."""
        return self.split(self.counts(imbalance))

    def split(self, counts: Sequence[int]) -> dict[str, list[int]]:
        """The classes of each split, many-, medium- and few-shot, by their training images: (C,)."""
        splits: dict[str, list[int]] = {"many": [], "medium": [], "few": []}
        for rank, count in enumerate(counts):
            splits["many" if count > self.many else "few" if count < self.few else "medium"].append(rank)
        return splits
