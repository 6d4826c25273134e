"""What is declared of each data set, so that a plan needs none of them on disk. Pure: no torch.

Balanced sets are made long-tailed as by LDAM and BBN: ``n_j = int(n_max * r ** (j / (C - 1)))``, r = 1/IF, truncated.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from importlib import metadata
from pathlib import Path

from study.errors import Refusal
from trainables.data.dataset import Dataset, Lists

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
    from trainables.data import folders

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
