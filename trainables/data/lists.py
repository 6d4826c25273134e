"""The image files of a data set, their order and their use, read from its public lists. Pure: no torch.

Below the data folder, a data set of lists has a folder with its lists and its images::

    ImageNet_LT/     ImageNet_LT_{train,val,test}.txt     train/n01440764/…  val/…        ILSVRC 2012's
    Places_LT/       Places_LT_{train,val,test}.txt       train/airfield/…   val/…        Places365's, 256 x 256
    iNaturalist18/   iNaturalist18_{train,val}.txt        train_val2018/Plantae/…

Folders of images may be links. A line is ``path label``, the path relative to the list's folder.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from study.errors import Refusal
from trainables.data.facts import Dataset, Lists
from trainables.samplers import Purpose, generator

HELD_OUT_FROM = 10  # one image is held out of each class that has at least so many training images

Paths = NDArray[np.bytes_]  # as the file system encodes them: arrays go to other processes much faster than lists


@dataclass(frozen=True)
class Listing:
    """The images of a data set of files. A class is identified by its rank: 0 has the most training images.

    Attributes:
        train: paths, sorted by class and inside a class by name: (N,).
        counts: n_j: (C,).
        listed: training images of each class including those held out, which determine the splits: (C,).
        test: paths of all images that are evaluated: (M,).
        test_labels: their labels: (M,).
        in_val: which of them are for selection: (M,) bool.
    """

    train: Paths
    counts: NDArray[np.int64]
    listed: NDArray[np.int64]
    test: Paths
    test_labels: NDArray[np.int64]
    in_val: NDArray[np.bool_]


def halves(test_labels: NDArray[np.int64], seed: int) -> NDArray[np.bool_]:
    """Return which test images are the half for selection, half of each class: (M,) bool."""
    rng = generator(seed, 0, Purpose.SELECTION)
    in_val = np.zeros(len(test_labels), dtype=bool)
    for label in range(int(test_labels.max()) + 1):
        members = np.flatnonzero(test_labels == label)
        in_val[rng.permutation(members)[: len(members) // 2]] = True
    return in_val


def ranked(labels: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return each class's rank by its number of images, and the numbers by rank: (C,) each.

    Classes of equal size are ranked in the order of their labels.
    """
    counts = np.bincount(labels)
    by_size = np.argsort(-counts, kind="stable")
    rank = np.empty_like(by_size)
    rank[by_size] = np.arange(len(by_size))
    return rank, counts[by_size]


def read(dataset: Dataset, root: Path) -> Listing:
    """Return the files of a data set from its lists, each line checked; the images are not read.

    If images for selection are held out from training, one is taken of each class with at least `HELD_OUT_FROM` images:
    equally many of large and small classes, since selection must not prefer frequent classes.

    Args:
        dataset: the data set with its declared facts.
        root: the data folder.

    Raises:
        Refusal: for a list that is missing or differs from its declaration. The message names the line.
    """
    parts = {part: _read(path, expected, dataset.classes) for part, path, expected in _files(dataset, root)}
    names, labels = parts["train"]
    rank, listed = ranked(labels)
    _check_ends(dataset, root, labels)
    by_class = np.lexsort((names, rank[labels]))  # by name inside a class: the order of the lines has no effect
    ranks, images = rank[labels][by_class], names[by_class]
    held_out = _held_out(listed) if dataset.selection == "train" else np.zeros(len(images), dtype=bool)
    selection, selection_labels = images[held_out], ranks[held_out]
    if dataset.selection == "list":
        selection, selection_labels = parts["val"][0], rank[parts["val"][1]]
    reported, reported_labels = parts["test" if _lists(dataset).test else "val"]
    return Listing(
        train=images[~held_out],
        counts=np.bincount(ranks[~held_out]),
        listed=listed,
        test=np.concatenate((selection, reported)),
        test_labels=np.concatenate((selection_labels, rank[reported_labels])),
        in_val=np.arange(len(selection) + len(reported)) < len(selection),
    )


def check(dataset: Dataset, root: Path) -> None:
    """Check that a data set's lists are as declared and that every file in them exists.

    Raises:
        Refusal: if not. The message names the first wrong line.
    """
    read(dataset, root)
    for _, path, expected in _files(dataset, root):
        names, _ = _read(path, expected, dataset.classes)
        _check_presence(path, names)


def _files(dataset: Dataset, root: Path) -> list[tuple[str, Path, int]]:
    """Return the part, the path and the number of lines of each list."""
    lists = _lists(dataset)
    parts = (("train", lists.train), ("val", lists.val), ("test", lists.test))
    return [(part, root / lists.name / f"{lists.name}_{part}.txt", lines) for part, lines in parts if lines]


def _lists(dataset: Dataset) -> Lists:
    assert dataset.lists is not None
    return dataset.lists


def _read(path: Path, expected: int, classes: int) -> tuple[Paths, NDArray[np.int64]]:
    """Return a list's absolute paths and labels, line by line."""
    try:
        lines = path.read_text(encoding="utf-8").rstrip("\n").split("\n")
    except FileNotFoundError:
        hint = (
            "Put the public list and its images into that folder, or name another folder than "
            f"{path.parents[1]} with --data-dir"
        )
        raise Refusal("list", str(path), f"list '{path}' does not exist", hint) from None
    except (OSError, UnicodeDecodeError) as error:
        words = f"list '{path}' cannot be read ({error})"
        raise Refusal("list", str(path), words, "Replace it by the public list") from error
    folder = str(path.parent)
    names, labels = [], []
    for number, line in enumerate(lines, 1):
        columns = line.strip().rsplit(maxsplit=1)
        if len(columns) != 2 or not columns[1].isdecimal() or int(columns[1]) >= classes:
            words = f"must be a path and a label from 0 to {classes - 1}"
            raise Refusal(f"{path}, line {number}", line, words)
        names.append(os.fsencode(os.path.join(folder, columns[0])))
        labels.append(int(columns[1]))
    if len(lines) != expected:
        odd = f"Line {expected + 1} is too many" if len(lines) > expected else f"It ends at line {len(lines)}"
        raise Refusal(str(path), len(lines), f"must have {expected} lines", f"{odd}. Replace it by the public list")
    label_array = np.asarray(labels)
    missing = np.flatnonzero(np.bincount(label_array, minlength=classes) == 0)
    if len(missing):
        hint = f"It has no image of class {missing[0]}"
        raise Refusal(str(path), classes - len(missing), f"must have images of all {classes} classes", hint)
    return np.asarray(names), label_array


def _check_ends(dataset: Dataset, root: Path, labels: NDArray[np.int64]) -> None:
    """Check that the largest and the smallest class have the declared sizes, which detects another list."""
    assert dataset.natural is not None
    counts = np.bincount(labels)
    for label, declared in ((counts.argmax(), dataset.largest), (counts.argmin(), dataset.largest / dataset.natural)):
        if counts[label] != round(declared):
            _, path, _ = _files(dataset, root)[0]
            line = int(np.flatnonzero(labels == label)[-1]) + 1
            size = "largest" if declared == dataset.largest else "smallest"
            noun = "image" if round(declared) == 1 else "images"
            words = f"must have {round(declared)} {noun} of its {size} class"
            hint = f"That is class {label}, whose last image is in line {line}. Replace the list by the public one"
            raise Refusal(str(path), int(counts[label]), words, hint)


def _held_out(counts: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which training images, sorted by class, are held out for selection, always the same: (N,) bool."""
    rng = generator(0, 0, Purpose.SELECTION)
    masks = []
    for count in counts:
        mask = np.zeros(count, dtype=bool)
        mask[rng.permutation(count)[: 1 if count >= HELD_OUT_FROM else 0]] = True
        masks.append(mask)
    return np.concatenate(masks)


def _check_presence(path: Path, names: Sequence[bytes] | Paths) -> None:
    """Check that every file of a list exists.

    Each folder is listed once, since a query for each of a million files would take minutes.
    """
    by_folder: dict[bytes, list[tuple[int, bytes]]] = defaultdict(list)
    for number, name in enumerate(names, 1):
        folder, _, leaf = bytes(name).rpartition(b"/")
        by_folder[folder].append((number, leaf))
    missing = []
    for folder, listed in by_folder.items():
        try:
            existing = set(os.listdir(folder))
        except OSError:
            existing = set()
        missing += [number for number, leaf in listed if leaf not in existing]
    if missing:
        first, line = os.fsdecode(bytes(names[min(missing) - 1])), min(missing)
        hint = (
            f"Missing files of this list: {len(missing)} of {len(names)}. Put the data set's images there, or links to "
            "their folders"
        )
        raise Refusal(f"{path}, line {line}", first, f"{path}, line {line}: file '{first}' does not exist", hint)
