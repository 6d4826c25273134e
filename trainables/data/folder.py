"""Any folder of images as a data set: ``train/`` and ``test/`` below it, in each a folder a class. Pure: no torch."""

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
    """A folder of images, long-tailed as it is: ``train/`` and ``test/``, in each a folder a class.

    Args:
        path: absolute.

    Raises:
        Refusal: if it is not such a folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        found = look(path)
        self.train_counts = tuple(found.counts.tolist())
        self.classes, self.largest = len(self.train_counts), self.train_counts[0]
        self.natural = self.largest / self.train_counts[-1]
        self.fingerprint = f"{fingerprint(path, found)}; {decoders()}"

    def listing(self, root: Path) -> Listing:  # noqa: ARG002
        """See `Files.listing`."""
        return look(self.path)

    def prepare(self, root: Path, download: bool) -> None:
        """There is nothing to prepare: it was looked at."""


def look(folder: Path) -> Listing:
    """The images of a folder, those of a class in the order of their names; half of the test images are for selection.

    Classes of equal size are ranked in the order of their names. Files of other kinds and hidden ones are passed over.

    Raises:
        Refusal: if it is not such a folder.
    """
    classes, tested = _folders(folder / "train"), _folders(folder / "test")
    if tested != classes:
        odd = min(set(classes) ^ set(tested))
        raise Refusal("dataset", str(folder), f"train/ and test/ differ in {odd!r}: the same classes in both would do")
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
    """A digest of the names and contents of all images.

    Reading them takes a while, so it is kept in ``longtail-study/folders`` below the user's cache folder
    (``XDG_CACHE_HOME``, by default ``~/.cache``), for as long as every file keeps its name, size and time.

    Raises:
        Refusal: if a file is empty.
    """
    paths = [os.fsdecode(bytes(path)) for path in (*listing.train, *listing.test)]
    names = [os.path.relpath(path, folder) for path in paths]
    seen = hashlib.sha256()
    for path, name in zip(paths, names, strict=True):
        status = os.stat(path)
        if status.st_size == 0:
            raise Refusal("image", path, "it is empty: a file that Pillow reads, or none, would do")
        seen.update(f"{name}\0{status.st_size}\0{status.st_mtime_ns}\0".encode(errors="surrogateescape"))
    kept = _cache() / (hashlib.sha256(os.fsencode(folder)).hexdigest()[:20] + ".json")
    try:
        note = json.loads(kept.read_text(encoding="utf-8"))
        if note["seen"] == seen.hexdigest():
            return str(note["fingerprint"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # not kept, or not by us: the files are read
    content = hashlib.sha256()
    for path, name in sorted(zip(paths, names, strict=True)):
        with open(path, "rb") as file:
            own = hashlib.file_digest(file, "sha256").hexdigest()
        content.update(f"{name}\0{own}\0".encode(errors="surrogateescape"))
    found = f"sha256:{content.hexdigest()}"
    _keep(kept, {"folder": str(folder), "seen": seen.hexdigest(), "fingerprint": found})
    return found


def _keep(path: Path, note: dict[str, str]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(f".{os.getpid()}")
        unfinished.write_text(json.dumps(note), encoding="utf-8")
        unfinished.replace(path)
    except OSError:
        pass  # then they are read again next time


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "longtail-study" / "folders"


def _folders(part: Path) -> list[str]:
    """The names of the classes in ``train/`` or ``test/``."""
    try:
        with os.scandir(part) as entries:
            names = sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    except OSError as error:
        remedy = (
            f"{part.name}/ in it cannot be read ({error.strerror}): train/ and test/ with a folder a class would do"
        )
        raise Refusal("dataset", str(part.parent), remedy) from error
    if len(names) < 2:
        remedy = f"{part.name}/ has too few classes ({len(names)}): two or more would do"
        raise Refusal("dataset", str(part.parent), remedy)
    return names


def _images(folder: Path, least: int) -> list[bytes]:
    """The images anywhere below a class's folder."""
    found = []
    for where, below, names in os.walk(folder, followlinks=True):
        below[:] = [name for name in below if not name.startswith(".")]
        found += [os.path.join(where, name) for name in names if not name.startswith(".")]
    images = sorted(os.fsencode(path) for path in found if path.lower().endswith(SUFFIXES))
    if len(images) < least:
        why = "an image to train on" if least == 1 else "two images, one for selection and one to report"
        raise Refusal("dataset", str(folder), f"it has too few images ({len(images)}): {why} would do")
    return images
