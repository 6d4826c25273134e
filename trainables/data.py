"""Long-tailed data sets, resident on the training device as uint8; crop, flip and normalisation happen there."""

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
from torch import Tensor

from study.refusal import Refusal
from trainables.datasets import DATASETS, Dataset
from trainables.samplers import Purpose, generator

DIGITS_TEST = 50  # test images a class

_FOLDERS = {"cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python"}


class LongTailed:
    """A long-tailed training set and its balanced test set on a device.

    Attributes:
        facts: what is declared of the data set.
        counts: n_j, largest first: (C,), NumPy.
        labels: of the training images, which are sorted by class: (N,).
        test_labels: (M,).
        in_val: which test images are the fixed class-balanced half for selection: (M,) bool.
    """

    def __init__(
        self, facts: Dataset, counts: NDArray[np.int64], train: NDArray[np.uint8], test: NDArray[np.uint8],
        test_labels: NDArray[np.int64], in_val: NDArray[np.bool_], crop: int, device: torch.device,
    ) -> None:  # fmt: skip
        self.facts, self.counts, self.crop, self.device = facts, counts, crop, device
        padded = np.pad(train, ((0, 0), (0, 0), (crop, crop), (crop, crop)))
        self._train = torch.from_numpy(padded).to(device)  # (N, channels, side + 2 crop, side + 2 crop)
        # Every crop as a view, (N, channels, 2 crop + 1, 2 crop + 1, side, side): a gather makes a batch of them.
        self._crops = self._train.unfold(2, facts.side, 1).unfold(3, facts.side, 1)
        self.labels = torch.from_numpy(np.repeat(np.arange(len(counts)), counts)).to(device)
        self._test = torch.from_numpy(test).to(device)
        self.test_labels = torch.from_numpy(test_labels).to(device)
        self.in_val = torch.from_numpy(in_val).to(device)
        self._mean = torch.tensor(facts.mean, device=device).view(-1, 1, 1) * facts.scale
        self._std = torch.tensor(facts.std, device=device).view(-1, 1, 1) * facts.scale

    def batch(self, picks: Tensor, top: Tensor, left: Tensor, mirror: Tensor | None) -> Tensor:
        """Normalised training images: (B, channels, side, side).

        Args:
            picks: positions in the training set: (B,).
            top, left: where the crop begins in the padded image, 0 … 2 crop: (B,).
            mirror: which images are flipped horizontally, (B,) bool; None for none.
        """
        images = self._crops[picks, :, top, left]
        if mirror is not None:
            images = torch.where(mirror.view(-1, 1, 1, 1), images.flip(-1), images)
        return self._normalise(images)

    def train_images(self, at: slice) -> Tensor:
        """Un-augmented, normalised training images."""
        return self._normalise(self._crops[at, :, self.crop, self.crop])

    def test_images(self, at: slice) -> Tensor:
        """Normalised test images."""
        return self._normalise(self._test[at])

    def _normalise(self, images: Tensor) -> Tensor:
        return (images.float() - self._mean) / self._std


@lru_cache(maxsize=4)
def load(
    dataset: str, imbalance: float, split_seed: int, subset_seed: int, crop: int, device: str, root: Path | None
) -> LongTailed:
    """The long-tailed version of a data set, on `device`.

    Args:
        dataset: a name of `DATASETS`.
        imbalance: IF.
        split_seed: digits: which images are for test and which digit gets which rank.
        subset_seed: which images are kept; see `subset`.
        crop: zero padding in pixels that `batch` crops from.
        device: cpu or cuda.
        root: where CIFAR's files lie, as torchvision expects them.
    """
    facts = DATASETS[dataset]
    counts = np.asarray(facts.counts(imbalance))
    if dataset == "digits":
        train, test, test_labels = _digits(counts, split_seed, subset_seed)
    else:
        train, test, test_labels = _cifar(dataset, counts, subset_seed, root)
    halves = generator(split_seed if dataset == "digits" else 0, 0, Purpose.SELECTION)
    in_val = np.zeros(len(test), dtype=bool)
    for label in range(facts.classes):
        members = np.flatnonzero(test_labels == label)
        in_val[halves.permutation(members)[: len(members) // 2]] = True
    return LongTailed(facts, counts, train, test, test_labels, in_val, crop, torch.device(device))


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
    if found != DATASETS["digits"].fingerprint:
        raise Refusal("digits", found, f"scikit-learn's digits with {DATASETS['digits'].fingerprint} would do")
    split = generator(split_seed, 0, Purpose.SPLIT)
    rank_of_digit = split.permutation(10)
    labels = rank_of_digit[targets]
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
    """See that a data set is on disk, whole, downloading it if that was asked for.

    Raises:
        Refusal: if it is not, saying how to get it.
    """
    if dataset in _FOLDERS:
        _torchvision(dataset, root, train=True, download=download)
