import hashlib
import os
from pathlib import Path

import numpy as np
import pytest

from study.errors import Refusal
from trainables.data.datasets import facts, label
from trainables.data.folder import fingerprint as fingerprint_of
from trainables.data.folder import look
from trainables.data.lists import halves

TRAIN, TEST = {"ant": 2, "bee": 5, "cat": 2}, {"ant": 4, "bee": 2, "cat": 3}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Return the cache folder of the test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "longtail-study" / "folders"


def write(folder, train=TRAIN, test=TEST):
    """Write a folder of images of one pixel, as text."""
    for part, classes in (("train", train), ("test", test)):
        for name, count in classes.items():
            (folder / part / name).mkdir(parents=True)
            for k in range(count):
                (folder / part / name / f"{k}.jpg").write_text(f"P2 1 1 255 0 # {part} {name} {k}")
    return folder


def names(paths, folder):
    return [str(Path(path.decode()).relative_to(folder)) for path in paths.tolist()]


def test_classes_are_ranked_by_their_training_images_and_equals_by_name(tmp_path):
    folder = write(tmp_path / "images")
    listing = look(folder)
    by_rank = [("bee", 5), ("ant", 2), ("cat", 2)]
    assert names(listing.train, folder) == [f"train/{name}/{k}.jpg" for name, count in by_rank for k in range(count)]
    assert listing.counts.tolist() == listing.listed.tolist() == [5, 2, 2]
    assert names(listing.test, folder) == [f"test/{name}/{k}.jpg" for name, _ in by_rank for k in range(TEST[name])]
    assert listing.test_labels.tolist() == [0, 0, 1, 1, 1, 1, 2, 2, 2]


def test_half_of_each_class_s_test_images_are_for_selection(tmp_path):
    listing = look(write(tmp_path / "images"))
    assert np.bincount(listing.test_labels[listing.in_val]).tolist() == [1, 2, 1]
    assert (listing.in_val == halves(listing.test_labels, 0)).all()


def test_files_of_other_kinds_and_hidden_ones_are_passed_over(tmp_path):
    folder = write(tmp_path / "images")
    expected = names(look(folder).train, folder)
    for stray in ("train/README.txt", "train/bee/notes.txt", "train/bee/._0.jpg", "test/Thumbs.db"):
        (folder / stray).write_text("stray")
    for stray in (".git", "train/.checkpoints", "train/bee/.thumbnails"):
        (folder / stray).mkdir()
        (folder / stray / "0.jpg").write_text("stray")
    assert names(look(folder).train, folder) == expected


def test_other_endings_and_deeper_folders_count(tmp_path):
    folder = write(tmp_path / "images")
    (folder / "train/ant/more").mkdir()
    (folder / "train/ant/more/A.JPEG").write_text("one")
    (folder / "train/ant/b.png").write_text("two")
    assert look(folder).counts.tolist() == [5, 4, 2]


def test_the_facts_of_a_folder_are_what_is_found_there(tmp_path):
    known = facts(f"folder:{write(tmp_path / 'images')}")
    assert (known.classes, known.largest, known.natural, known.selection) == (3, 5, 2.5, "half")
    assert known.counts(known.natural) == (5, 2, 2)
    assert known.images(known.natural) == 9
    assert known.shots(known.natural) == {"many": [], "medium": [], "few": [0, 1, 2]}
    assert "pillow" in known.fingerprint
    assert known.listing(tmp_path / "elsewhere").counts.tolist() == [5, 2, 2]
    known.prepare(tmp_path / "elsewhere", download=False)  # it was looked at
    assert label(f"folder:{tmp_path / 'images'}") == "folder"


# The fingerprint


def fingerprint(folder):
    return fingerprint_of(folder, look(folder))


def test_a_copy_has_the_same_fingerprint_wherever_it_lies(tmp_path):
    assert fingerprint(write(tmp_path / "images")) == fingerprint(write(tmp_path / "elsewhere" / "copy"))


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / "train/bee/0.jpg").write_text("train bee X"),
        lambda folder: (folder / "test/ant/3.jpg").write_text("longer than it was"),
        lambda folder: (folder / "train/bee/4.jpg").rename(folder / "train/bee/5.jpg"),
        lambda folder: (folder / "train/bee/4.jpg").unlink(),
        lambda folder: (folder / "test/cat/9.jpg").write_text("new"),
    ],
)
def test_any_change_is_another_fingerprint(change, cached, tmp_path, cache):
    folder = write(tmp_path / "images")
    before = fingerprint(folder)
    change(folder)
    if not cached:
        (note,) = cache.iterdir()
        note.unlink()
    assert fingerprint(folder) != before


def test_files_are_read_once(tmp_path, monkeypatch):
    folder = write(tmp_path / "images")
    before = fingerprint(folder)
    with monkeypatch.context() as patch:
        patch.setattr("hashlib.file_digest", lambda *_: pytest.fail("read again"))
        assert fingerprint(folder) == before
    os.utime(folder / "train/bee/0.jpg", (1, 1))
    read = []
    digest = hashlib.file_digest
    monkeypatch.setattr("hashlib.file_digest", lambda *given: read.append(given) or digest(*given))
    assert fingerprint(folder) == before
    assert len(read) == 18


@pytest.mark.parametrize("note", ["", "[]", "{}", '{"seen": 3}', "half a no"])
def test_a_damaged_note_is_written_anew(note, tmp_path, cache):
    folder = write(tmp_path / "images")
    before = fingerprint(folder)
    (path,) = cache.iterdir()
    path.write_text(note)
    assert fingerprint(folder) == before
    assert before in path.read_text()
    assert list(cache.iterdir()) == [path]


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("no folder")
    folder = write(tmp_path / "images")
    before = fingerprint(folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert fingerprint(folder) == before


# What is refused


def refusal(folder):
    with pytest.raises(Refusal) as refused:
        facts(f"folder:{folder}")
    line = str(refused.value)
    assert "\n" not in line
    return line


def test_a_relative_path_is_refused_with_the_absolute_one(tmp_path, monkeypatch):
    write(tmp_path / "images")
    monkeypatch.chdir(tmp_path)
    hint = f"Use 'folder:{tmp_path}/images'"
    assert refusal("images") == f"dataset must be an absolute path (got 'folder:images'). {hint}"


@pytest.mark.parametrize("part", ["train", "test"])
def test_a_folder_without_train_or_test_is_refused(part, tmp_path):
    folder = write(tmp_path / "images")
    (folder / part).rename(folder / "other")
    hint = "The folder must have train/ and test/, each with a folder per class"
    assert refusal(folder) == f"{part}/ of '{folder}' cannot be read (No such file or directory). {hint}"


def test_a_class_that_is_not_in_both_is_refused(tmp_path):
    for folder in (
        write(tmp_path / "one", train={**TRAIN, "dog": 1}),
        write(tmp_path / "two", test={**TEST, "dog": 2}),
    ):
        allowed = "must have the same classes in train/ and test/"
        assert refusal(folder) == f"dataset {allowed} (got '{folder}'). Only one of them has 'dog'"


def test_a_single_class_is_refused(tmp_path):
    folder = write(tmp_path / "images", {"ant": 3}, {"ant": 3})
    assert refusal(folder) == f"dataset must have at least 2 classes in train/ (got '{folder}'). It has 1"


def test_a_class_without_training_images_or_with_one_test_image_is_refused(tmp_path):
    line = refusal(write(tmp_path / "one", train={**TRAIN, "cat": 0}))
    assert line == f"dataset must have at least 1 image (got '{tmp_path}/one/train/cat'). It has 0"
    line = refusal(write(tmp_path / "two", test={**TEST, "cat": 1}))
    allowed = "must have at least 2 images, one for selection and one to report"
    assert line == f"dataset {allowed} (got '{tmp_path}/two/test/cat'). It has 1"
