"""What is declared of each data set, so that a plan needs none of them on disk. Pure: no torch.

Balanced sets are made long-tailed as by LDAM and BBN: ``n_j = int(n_max * r ** (j / (C - 1)))``, r = 1/IF, truncated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import metadata
from pathlib import Path

from study.refusal import Refusal


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


_CIFAR_MEAN, _CIFAR_STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)


def _files(classes: int, largest: int, natural: float, lists: Lists | None, fingerprint: str) -> Dataset:
    """Files of images with the statistics of ImageNet and its size, at Liu et al.'s thresholds (2019)."""
    return Dataset(
        classes=classes,
        largest=largest,
        channels=3,
        side=224,
        scale=255,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        crop=0,
        flip=True,
        many=100,
        few=20,
        fingerprint=fingerprint,
        natural=natural,
        lists=lists,
    )


def _listed(classes: int, largest: int, smallest: int, lists: Lists) -> Dataset:
    totals = f"lists:{lists.train}/{lists.val}/{lists.test} of {classes}"
    return replace(_files(classes, largest, largest / smallest, lists, totals), selection="list")


DATASETS = {
    "digits": Dataset(
        classes=10,
        largest=124,
        channels=1,
        side=8,
        scale=16,
        mean=(0.3053,),
        std=(0.3761,),
        crop=1,
        flip=False,
        many=40,
        few=10,
        fingerprint="sha256:87ff0c9e40dc7e2c0e34e7257799c2e3f3aec1a016363bb11cad869ec428a826",
        drawn=("split", "subset"),
    ),
    # The fingerprints of CIFAR are the MD5 sums of the official archives; torchvision checks each file's own.
    "cifar10": Dataset(
        classes=10,
        largest=5000,
        channels=3,
        side=32,
        scale=255,
        mean=_CIFAR_MEAN,
        std=_CIFAR_STD,
        crop=4,
        flip=True,
        many=100,
        few=20,
        fingerprint="md5:c58f30108f718f92721af3b95e74349a",
        drawn=("subset",),
    ),
    "cifar100": Dataset(
        classes=100,
        largest=500,
        channels=3,
        side=32,
        scale=255,
        mean=_CIFAR_MEAN,
        std=_CIFAR_STD,
        crop=4,
        flip=True,
        many=100,
        few=20,
        fingerprint="md5:eb9058c3a382ffc7106e4002c42a8d85",
        drawn=("subset",),
    ),
    # Transforms and statistics as in the code of Kang et al. (2020); Places-LT as it is there, with the jitter.
    "imagenet-lt": replace(_listed(1000, 1280, 5, Lists("ImageNet_LT", 115_846, 20_000, 50_000)), jitter=0.4),
    "places-lt": replace(_listed(365, 4980, 5, Lists("Places_LT", 62_500, 7_300, 36_500)), jitter=0.4),
    # Its val list, three images a class, is what papers report; for selection, one training image is held out of each
    # class that has ten or more.
    "inaturalist2018": replace(
        _listed(8142, 1000, 2, Lists("iNaturalist18", 437_513, 24_426, 0)),
        mean=(0.466, 0.471, 0.380),
        std=(0.195, 0.194, 0.192),
        selection="train",
    ),
}

FOLDER = "folder:"


def facts(name: str) -> Dataset:
    """What is declared of a data set; of a folder of images, ``folder:PATH``, what is found there.

    Raises:
        Refusal: if there is none of that name, or the folder is not as it should be.
    """
    if name.startswith(FOLDER):
        return _folder(name)
    if name not in DATASETS:
        raise Refusal("dataset", name, f"one of {', '.join(DATASETS)} or {FOLDER}PATH would do")
    known = DATASETS[name]
    return known if known.lists is None else _with_decoder(known)


@cache
def _folder(name: str) -> Dataset:
    from trainables import folders

    path = Path(name.removeprefix(FOLDER))
    if not path.is_absolute():  # workers run elsewhere
        raise Refusal("dataset", name, f"an absolute path would do: {FOLDER}{path.expanduser().absolute()}")
    found = folders.look(path)
    counts = tuple(found.counts.tolist())
    known = _files(len(counts), counts[0], counts[0] / counts[-1], None, folders.fingerprint(path, found))
    return _with_decoder(replace(known, train_counts=counts))


@cache
def _with_decoder(known: Dataset) -> Dataset:
    """With the libraries that turn a file into pixels in the fingerprint: other versions may make others of it."""
    versions = ", ".join(f"{package} {metadata.version(package)}" for package in ("pillow", "torchvision"))
    return replace(known, fingerprint=f"{known.fingerprint}; {versions}")
