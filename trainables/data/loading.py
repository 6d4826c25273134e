"""From the files of data sets to what the loop trains on: small sets (`resident`) or files of images (`images`)."""

from __future__ import annotations

import hashlib
import importlib.util
import io
from contextlib import redirect_stdout
from functools import lru_cache
from http.client import HTTPException
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from study.errors import Refusal
from trainables.data import lists
from trainables.data.datasets import FOLDER, facts
from trainables.data.lists import halves
from trainables.data.resident import Arrays, Data, LongTailed
from trainables.ranks import ALONE, Ranks
from trainables.recipe import Epoch, Origin
from trainables.samplers import Purpose, generator

DIGITS_TEST = 50  # test images a class

_FOLDERS = {"cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python"}


def load(origin: Origin, epoch: Epoch, root: Path | None, workers: int = 1, ranks: Ranks = ALONE) -> Data:
    """The data of an origin, on its device; the same object for instructions that crop alike.

    Args:
        origin: its data set, imbalance factor, split and subset seeds, and device.
        epoch: the instruction; its crop.
        root: where the files of data sets lie.
        workers: processes that decode files of images; the images are the same for any number.
        ranks: whose shares its batches are.

    Raises:
        Refusal: if the files are missing, or not those of the plan.
    """
    known = facts(origin.dataset)
    if known.natural is not None:
        if known.fingerprint != origin.fingerprint:
            raise Refusal(origin.dataset, known.fingerprint, f"the plan was made with {origin.fingerprint}")
        return _files(origin.dataset, origin.device, root, workers, ranks)
    return _long_tailed(
        origin.dataset, origin.imbalance, origin.split_seed, origin.subset_seed, epoch.crop, origin.device, root, ranks
    )


@lru_cache(maxsize=2)
def _files(dataset: str, device: str, root: Path | None, workers: int, ranks: Ranks) -> Data:
    """A data set of image files."""
    from trainables.data import folders
    from trainables.data.images import ImageFiles

    known = facts(dataset)
    if known.lists is None:
        listing = folders.look(Path(dataset.removeprefix(FOLDER)))
    else:
        listing = lists.read(known, root if root is not None else Path())
    return ImageFiles(known, listing, torch.device(device), workers, ranks)


@lru_cache(maxsize=4)
def _long_tailed(
    dataset: str,
    imbalance: float,
    split_seed: int,
    subset_seed: int,
    crop: int,
    device: str,
    root: Path | None,
    ranks: Ranks,
) -> LongTailed:
    """The long-tailed version of a balanced data set.

    Args:
        dataset: digits, cifar10 or cifar100.
        imbalance: IF; 1 keeps each class whole, and the long-tailed subset of the same seed is its beginning.
        split_seed: digits: which images are for test and which digit is the n-th largest class.
        subset_seed: which images are kept; see `subset`.
        crop: zero padding in pixels that `batches` crops from.
        device: cpu or cuda.
        root: where CIFAR's files lie, as torchvision expects them.
        ranks: whose shares its batches are.
    """
    known = facts(dataset)
    counts = np.asarray(known.counts(imbalance))
    if dataset == "digits":
        train, test, test_labels = _digits(counts, split_seed, subset_seed)
    else:
        train, test, test_labels = _cifar(dataset, counts, subset_seed, root)
    in_val = halves(test_labels, split_seed if dataset == "digits" else 0)
    arrays = Arrays(counts, train, test, test_labels, in_val)
    return LongTailed(known, arrays, crop, torch.device(device), ranks)


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


def _digits(
    counts: NDArray[np.int64], split_seed: int, subset_seed: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.int64]]:
    # load_digits() reads the same file, but importing scikit-learn takes a worker two seconds.
    package = importlib.util.find_spec("sklearn")
    assert package is not None
    assert package.origin is not None
    table = np.loadtxt(
        Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz", delimiter=",", dtype=np.uint8
    )
    images, targets = table[:, :-1].reshape(-1, 8, 8), table[:, -1]
    found = "sha256:" + hashlib.sha256(images.tobytes() + targets.tobytes()).hexdigest()
    declared = facts("digits").fingerprint
    if found != declared:
        raise Refusal("digits", found, f"scikit-learn's digits with {declared} would do")
    split = generator(split_seed, 0, Purpose.SPLIT)
    class_of_digit = split.permutation(10)
    labels = class_of_digit[targets]
    test, pool = [], []
    for label in range(10):
        members = split.permutation(np.flatnonzero(labels == label))
        test.append(members[:DIGITS_TEST])
        pool.append(members[DIGITS_TEST:])
    rest = np.sort(np.concatenate(pool))
    train = rest[subset(labels[rest], counts, subset_seed)]
    images = images[:, None]
    return images[train], images[np.concatenate(test)], np.repeat(np.arange(10), DIGITS_TEST)


def _cifar(
    dataset: str, counts: NDArray[np.int64], subset_seed: int, root: Path | None
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.int64]]:
    parts = [_torchvision(dataset, root, train=train, download=False) for train in (True, False)]
    (images, targets), (test, test_labels) = parts
    return images[subset(targets, counts, subset_seed)], test, test_labels


def _torchvision(
    dataset: str, root: Path | None, train: bool, download: bool
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """One half of CIFAR through torchvision's class, which checks every file's MD5."""
    from torchvision.datasets import CIFAR10, CIFAR100

    kind = {"cifar10": CIFAR10, "cifar100": CIFAR100}[dataset]
    where = root if root is not None else Path()
    remedy = (
        f"--download fetches it into {where}; without a network, unpack the official archive there "
        f"(its folder {_FOLDERS[dataset]}) or name another folder with --data-dir"
    )
    try:
        with redirect_stdout(io.StringIO()):
            data = kind(root=str(where), train=train, download=download)
    except (OSError, HTTPException) as error:  # URLError, a connection reset, a folder that cannot be written
        verb = "downloaded" if download else "read"
        raise Refusal(dataset, str(where), f"its files cannot be {verb} ({error}): {remedy}") from error
    except RuntimeError as error:  # torchvision's word for files that are missing or damaged
        raise Refusal(dataset, str(where), f"its files are missing or damaged: {remedy}") from error
    return data.data.transpose(0, 3, 1, 2), np.asarray(data.targets)


def prepare(dataset: str, root: Path, download: bool) -> None:
    """See that a data set is on disk, whole, downloading it if that was asked for and can be done (CIFAR).

    Raises:
        Refusal: if it is not, saying how to get it.
    """
    if dataset in _FOLDERS:
        _torchvision(dataset, root, train=True, download=download)
    known = facts(dataset)  # of a folder, a look at all of it
    if known.lists is not None:
        lists.check(known, root)
