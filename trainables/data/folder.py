"""Folders of images as data sets: ``train/`` and ``test/``, each with a folder per class. Pure: no torch."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import numpy as np

from study.errors import Refusal
from trainables.data.facts import decoders
from trainables.data.kinds import Files
from trainables.data.lists import Listing, halves, ranked

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")


class Folder(Files):
    """A folder of long-tailed images: ``train/`` and ``test/``, each with a folder per class.

    Args:
        path: the absolute path of the folder.

    Raises:
        Refusal: if the folder has another structure.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        listing = look(path)
        self.train_counts = tuple(listing.counts.tolist())
        self.classes, self.largest = len(self.train_counts), self.train_counts[0]
        self.natural = self.largest / self.train_counts[-1]
        self.fingerprint = f"{fingerprint(path, listing)}; {decoders()}"

    def listing(self, root: Path) -> Listing:  # noqa: ARG002
        """See `Files.listing`."""
        return look(self.path)

    def prepare(self, root: Path, download: bool) -> None:
        """Do nothing: the constructor has checked the folder."""


def look(folder: Path) -> Listing:
    """Return the images of a folder, those of a class in the order of their names.

    Half of the test images are for selection. Classes of equal size are ranked in the order of their names. Hidden
    files and files of other kinds are ignored.

    Raises:
        Refusal: if the folder has another structure.
    """
    classes, test_classes = _folders(folder / "train"), _folders(folder / "test")
    if test_classes != classes:
        odd = min(set(classes) ^ set(test_classes))
        hint = f"Only one of them has {odd!r}"
        raise Refusal("dataset", str(folder), "must have the same classes in train/ and test/", hint)
    train = [_images(folder / "train" / name, 1) for name in classes]
    test = [_images(folder / "test" / name, 2) for name in classes]
    rank, counts = ranked(np.repeat(np.arange(len(classes)), [len(images) for images in train]))
    by_rank = np.argsort(rank)
    test_labels = np.repeat(np.arange(len(classes)), [len(test[label]) for label in by_rank])
    return Listing(
        train=np.asarray([path for label in by_rank for path in train[label]]),
        counts=counts,
        listed=counts,
        test=np.asarray([path for label in by_rank for path in test[label]]),
        test_labels=test_labels,
        in_val=halves(test_labels, 0),
    )


def fingerprint(folder: Path, listing: Listing) -> str:
    """Return a digest of the names and contents of all images.

    Since reading all images takes long, the digest is cached in ``longtail-study/folders`` below the user's cache
    folder (``XDG_CACHE_HOME``, by default ``~/.cache``). It is valid while every file keeps its name, size and time.

    Raises:
        Refusal: if a file is empty.
    """
    paths = [os.fsdecode(bytes(path)) for path in (*listing.train, *listing.test)]
    names = [os.path.relpath(path, folder) for path in paths]
    seen = hashlib.sha256()
    for path, name in zip(paths, names, strict=True):
        status = os.stat(path)
        if status.st_size == 0:
            raise Refusal("image", path, f"image '{path}' is empty", "Replace it by an image, or remove it")
        seen.update(f"{name}\0{status.st_size}\0{status.st_mtime_ns}\0".encode(errors="surrogateescape"))
    cache_file = _cache() / (hashlib.sha256(os.fsencode(folder)).hexdigest()[:20] + ".json")
    try:
        entry = json.loads(cache_file.read_text(encoding="utf-8"))
        if entry["seen"] == seen.hexdigest():
            return str(entry["fingerprint"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # no valid entry: the files are read
    content = hashlib.sha256()
    for path, name in sorted(zip(paths, names, strict=True)):
        with open(path, "rb") as file:
            file_digest = hashlib.file_digest(file, "sha256").hexdigest()
        content.update(f"{name}\0{file_digest}\0".encode(errors="surrogateescape"))
    digest = f"sha256:{content.hexdigest()}"
    _keep(cache_file, {"folder": str(folder), "seen": seen.hexdigest(), "fingerprint": digest})
    return digest


def _keep(path: Path, entry: dict[str, str]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(f".{os.getpid()}")
        unfinished.write_text(json.dumps(entry), encoding="utf-8")
        unfinished.replace(path)
    except OSError:
        pass  # without a cache the files are read again next time


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "longtail-study" / "folders"


def _folders(part: Path) -> list[str]:
    """Return the names of the classes in ``train/`` or ``test/``."""
    try:
        with os.scandir(part) as entries:
            names = sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    except OSError as error:
        words = f"{part.name}/ of '{part.parent}' cannot be read ({error.strerror})"
        hint = "The folder must have train/ and test/, each with a folder per class"
        raise Refusal("dataset", str(part.parent), words, hint) from error
    if len(names) < 2:
        hint = f"It has {len(names)}"
        raise Refusal("dataset", str(part.parent), f"must have at least 2 classes in {part.name}/", hint)
    return names


def _images(folder: Path, least: int) -> list[bytes]:
    """Return the sorted paths of all images below a class's folder, at any depth."""
    paths = []
    for where, below, names in os.walk(folder, followlinks=True):
        below[:] = [name for name in below if not name.startswith(".")]
        paths += [os.path.join(where, name) for name in names if not name.startswith(".")]
    images = sorted(os.fsencode(path) for path in paths if path.lower().endswith(SUFFIXES))
    if len(images) < least:
        allowed = "1 image" if least == 1 else f"{least} images, one for selection and one to report"
        raise Refusal("dataset", str(folder), f"must have at least {allowed}", f"It has {len(images)}")
    return images
