"""Which image files a data set has, in which order and for what; read from its public lists. Pure: no torch.

Below the data folder, a data set of lists has a folder with its lists and, beside them, the images::

    ImageNet_LT/     ImageNet_LT_{train,val,test}.txt     train/n01440764/…  val/…        ILSVRC 2012's
    Places_LT/       Places_LT_{train,val,test}.txt       train/airfield/…   val/…        Places365's, 256 x 256
    iNaturalist18/   iNaturalist18_{train,val}.txt        train_val2018/Plantae/…

Folders of images may be links to where these lie. A line is ``path label``, the path relative to the list's folder.
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

HELD_OUT_FROM = 10  # training images of a class that gives one of them away

Paths = NDArray[np.bytes_]  # as the file system encodes them: arrays go to other processes much faster than lists


@dataclass(frozen=True)
class Listing:
    """The images of a data set of files. A class is called by its rank: 0 has the most training images.

    Attributes:
        train: paths, sorted by class, inside it by name: (N,).
        counts: n_j: (C,).
        listed: training images of each class before any were held out, which the splits go by: (C,).
        test: paths of all images that are evaluated: (M,).
        test_labels: (M,).
        in_val: which of them are for selection: (M,) bool.
    """

    train: Paths
    counts: NDArray[np.int64]
    listed: NDArray[np.int64]
    test: Paths
    test_labels: NDArray[np.int64]
    in_val: NDArray[np.bool_]


def halves(test_labels: NDArray[np.int64], seed: int) -> NDArray[np.bool_]:
    """Which test images are the half for selection, as many of each class: (M,) bool."""
    rng = generator(seed, 0, Purpose.SELECTION)
    in_val = np.zeros(len(test_labels), dtype=bool)
    for label in range(int(test_labels.max()) + 1):
        members = np.flatnonzero(test_labels == label)
        in_val[rng.permutation(members)[: len(members) // 2]] = True
    return in_val


def ranked(labels: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Each class's rank by its images, equals in the order of their labels, and the images by rank: (C,) each."""
    counts = np.bincount(labels)
    by_size = np.argsort(-counts, kind="stable")
    rank = np.empty_like(by_size)
    rank[by_size] = np.arange(len(by_size))
    return rank, counts[by_size]


def read(known: Dataset, root: Path) -> Listing:
    """What a data set's lists say, each line checked; the images themselves are not looked at.

    Where images for selection come from training, they are one of each class that has at least `HELD_OUT_FROM`: as
    many of a large class as of a small one, for selection must not prefer what is frequent.

    Args:
        known: what is declared of it.
        root: the data folder.

    Raises:
        Refusal: for a list that is missing, or is not as declared, naming the line.
    """
    parts = {part: _read(path, expected, known.classes) for part, path, expected in _files(known, root)}
    names, labels = parts["train"]
    rank, listed = ranked(labels)
    _check_ends(known, root, labels)
    by_class = np.lexsort((names, rank[labels]))  # by name inside a class: the order of a list's lines is no matter
    ranks, images = rank[labels][by_class], names[by_class]
    chosen = _held_out(listed) if known.selection == "train" else np.zeros(len(images), dtype=bool)
    selection, selection_labels = images[chosen], ranks[chosen]
    if known.selection == "list":
        selection, selection_labels = parts["val"][0], rank[parts["val"][1]]
    reported, reported_labels = parts["test" if _lists(known).test else "val"]
    return Listing(
        train=images[~chosen],
        counts=np.bincount(ranks[~chosen]),
        listed=listed,
        test=np.concatenate((selection, reported)),
        test_labels=np.concatenate((selection_labels, rank[reported_labels])),
        in_val=np.arange(len(selection) + len(reported)) < len(selection),
    )


def check(known: Dataset, root: Path) -> None:
    """See that a data set's lists are as declared and that every file in them is there.

    Raises:
        Refusal: if not, naming the first line in question.
    """
    read(known, root)
    for _, path, expected in _files(known, root):
        names, _ = _read(path, expected, known.classes)
        _check_presence(path, names)


def _files(known: Dataset, root: Path) -> list[tuple[str, Path, int]]:
    """Part, path and number of lines of each list."""
    lists = _lists(known)
    parts = (("train", lists.train), ("val", lists.val), ("test", lists.test))
    return [(part, root / lists.name / f"{lists.name}_{part}.txt", lines) for part, lines in parts if lines]


def _lists(known: Dataset) -> Lists:
    assert known.lists is not None
    return known.lists


def _read(path: Path, expected: int, classes: int) -> tuple[Paths, NDArray[np.int64]]:
    """A list's absolute paths and labels, line by line."""
    try:
        lines = path.read_text(encoding="utf-8").rstrip("\n").split("\n")
    except FileNotFoundError:
        remedy = (
            f"no such file: the public list belongs there, and beside it the images that it names; or name another "
            f"folder than {path.parents[1]} with --data-dir"
        )
        raise Refusal("list", str(path), remedy) from None
    except (OSError, UnicodeDecodeError) as error:
        raise Refusal("list", str(path), f"it cannot be read ({error}): the public list would do") from error
    folder = str(path.parent)
    names, labels = [], []
    for number, line in enumerate(lines, 1):
        words = line.strip().rsplit(maxsplit=1)
        if len(words) != 2 or not words[1].isdecimal() or int(words[1]) >= classes:
            remedy = f"a path and a label from 0 to {classes - 1} would do"
            raise Refusal(f"{path}, line {number}", line, remedy)
        names.append(os.fsencode(os.path.join(folder, words[0])))
        labels.append(int(words[1]))
    if len(lines) != expected:
        at = min(len(lines), expected + 1)
        raise Refusal(f"{path}, line {at}", f"{len(lines)} lines in all", f"the public list's {expected} would do")
    found = np.asarray(labels)
    missing = np.flatnonzero(np.bincount(found, minlength=classes) == 0)
    if len(missing):
        remedy = f"each of the {classes} classes needs an image"
        raise Refusal(f"{path}, line {len(lines)}", f"no image of class {missing[0]}", remedy)
    return np.asarray(names), found


def _check_ends(known: Dataset, root: Path, labels: NDArray[np.int64]) -> None:
    """The largest and the smallest class are as declared; another list of as many lines would show there."""
    assert known.natural is not None
    counts = np.bincount(labels)
    for label, declared in ((counts.argmax(), known.largest), (counts.argmin(), known.largest / known.natural)):
        if counts[label] != round(declared):
            _, path, _ = _files(known, root)[0]
            line = int(np.flatnonzero(labels == label)[-1]) + 1
            word = "most" if declared == known.largest else "fewest"
            remedy = f"{round(declared)} is what the class with the {word} has in the public list"
            raise Refusal(f"{path}, line {line}", f"image {counts[label]} of class {label}", remedy)


def _held_out(counts: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which training images, sorted by class, are for selection instead; always the same: (N,) bool."""
    rng = generator(0, 0, Purpose.SELECTION)
    chosen = []
    for count in counts:
        own = np.zeros(count, dtype=bool)
        own[rng.permutation(count)[: 1 if count >= HELD_OUT_FROM else 0]] = True
        chosen.append(own)
    return np.concatenate(chosen)


def _check_presence(path: Path, names: Sequence[bytes] | Paths) -> None:
    """Every file of a list is there. Folders are listed once each: to ask for a million files would take minutes."""
    wanted: dict[bytes, list[tuple[int, bytes]]] = defaultdict(list)
    for number, name in enumerate(names, 1):
        folder, _, leaf = bytes(name).rpartition(b"/")
        wanted[folder].append((number, leaf))
    missing = []
    for folder, own in wanted.items():
        try:
            there = set(os.listdir(folder))
        except OSError:
            there = set()
        missing += [number for number, leaf in own if leaf not in there]
    if missing:
        first = os.fsdecode(bytes(names[min(missing) - 1]))
        remedy = (
            f"no such file, nor are {len(missing) - 1} others of the list's {len(names)} there: the data set's own "
            f"images, or links to their folders, would do"
        )
        raise Refusal(f"{path}, line {min(missing)}", first, remedy)
