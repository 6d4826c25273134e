import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers import asked, call_study, draft, parsed
from PIL import Image

from study.errors import Refusal
from study.store import records
from study.store.states import Store
from trainables.data import datasets, decoding, inspection

NOISE = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Return the cache folder of the test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "longtail-study" / "images"


@pytest.fixture
def folder(tmp_path):
    """Write a folder of JPEG files: two classes of eight images for training and four for test."""
    for part, count in (("train", 8), ("test", 4)):
        for name in "ab":
            (tmp_path / "birds" / part / name).mkdir(parents=True)
            for k in range(count):
                path = tmp_path / "birds" / part / name / f"{k}.jpg"
                Image.fromarray(np.roll(NOISE, k, axis=0)).save(path)
    return tmp_path / "birds"


def look(folder):
    """Return the facts of a folder as another process finds them."""
    datasets._folder.cache_clear()
    return datasets.facts(f"folder:{folder}")


def refusal(call, *arguments):
    with pytest.raises(Refusal) as refused:
        call(*arguments)
    return str(refused.value)


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_all_files_that_are_no_images_are_named_at_once(folder):
    (folder / "train/a/0.jpg").write_text("text")
    (folder / "train/a/1.jpg").write_bytes(b"")
    (folder / "train/b/2.jpg").unlink()
    (folder / "train/b/2.jpg").symlink_to("/gone.jpg")
    header = folder / "test/a/3.jpg"
    header.write_bytes(header.read_bytes()[:10])
    (folder / "test/b/1.jpg").unlink()
    os.mkfifo(folder / "test/b/1.jpg")
    assert refusal(look, folder) == (
        f"5 images of '{folder}' cannot be read: test/a/3.jpg (truncated file read); "
        "test/b/1.jpg (not a file); train/a/0.jpg (not an image that Pillow reads); train/a/1.jpg (empty file); "
        "train/b/2.jpg (broken link to '/gone.jpg'). Replace or remove them"
    )


def test_the_first_ten_are_named_and_the_others_counted(folder):
    for path in folder.glob("train/*/*.jpg"):
        path.write_text("text")
    line = refusal(look, folder)
    assert line.startswith(f"16 images of '{folder}' cannot be read: train/a/0.jpg (")
    assert line.count("not an image") == 10
    assert line.endswith("; train/b/1.jpg (not an image that Pillow reads); and 6 more. Replace or remove them")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_files_and_folders_without_permission_are_named(folder):
    (folder / "train/a/0.jpg").chmod(0)
    assert "train/a/0.jpg (permission denied)" in refusal(look, folder)
    (folder / "train/b").chmod(0)
    assert "1 folder of" in refusal(look, folder)


@pytest.mark.parametrize("link", ["train/c", "train/a/more"])
def test_a_broken_link_to_a_folder_is_named_since_its_images_would_be_missing(link, folder):
    (folder / link).symlink_to("/unmounted")
    line = f"1 folder of '{folder}' cannot be read: {link} (broken link to '/unmounted'). Replace or remove it"
    assert refusal(look, folder) == line


def test_pixels_are_decoded_on_request_and_a_truncated_image_is_named(folder):
    name = f"folder:{folder}"
    datasets.verify(name, Path())
    truncate(folder / "train/b/3.jpg")
    look(folder)  # its header is whole
    line = refusal(datasets.verify, name, Path())
    assert line.startswith(f"1 image of '{folder}' cannot be read: train/b/3.jpg (image file is truncated (")


@pytest.mark.parametrize("pixels", [False, True])
def test_a_file_is_decoded_once_until_its_size_or_time_changes(pixels, folder, monkeypatch):
    paths = np.asarray([os.fsencode(path) for path in sorted(folder.glob("*/*/*.jpg"))])
    inspection.check(folder, paths, pixels)
    decoded = []
    examine = decoding.examine
    monkeypatch.setattr(decoding, "examine", lambda paths, pixels: decoded.extend(paths) or examine(paths, pixels))
    inspection.check(folder, paths, pixels)
    inspection.check(folder, paths)
    assert decoded == []
    others = paths[:2]
    inspection.check(folder, others, pixels, "another data set of this folder")
    inspection.check(folder, paths, pixels)
    assert decoded == others.tolist()
    decoded.clear()
    os.utime(folder / "train/a/0.jpg", (1, 1))
    inspection.check(folder, paths, pixels)
    assert decoded == [os.fsencode(folder / "train/a/0.jpg")]


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 half an archive"])
def test_a_damaged_record_is_written_anew(content, folder, cache):
    known = look(folder)
    for path in cache.iterdir():
        path.write_bytes(content)
    assert look(folder).fingerprint == known.fingerprint
    assert datasets.changes(f"folder:{folder}", "sha256:another; pillow") == "its images have changed"


def test_processes_give_the_same_results_as_one(folder, monkeypatch):
    (folder / "train/a/0.jpg").write_text("text")
    truncate(folder / "train/a/1.jpg")
    paths = [os.fsencode(path) for path in sorted(folder.glob("*/*/*.jpg"))]
    expected = decoding.examine(paths, True)
    monkeypatch.setattr(decoding, "SHARE", 5)
    monkeypatch.setattr(decoding, "cpus", lambda: 3)
    assert decoding.examine(paths, True) == expected
    assert sum(bool(reason) for _, reason in expected) == 2


# Changes


def test_removed_changed_and_added_files_are_named(folder):
    planned = look(folder).fingerprint
    (folder / "train/a/0.jpg").unlink()
    shutil.copy(folder / "train/a/1.jpg", folder / "train/a/2.jpg")
    shutil.copy(folder / "train/a/1.jpg", folder / "test/b/9.jpg")
    os.utime(folder / "train/b/0.jpg", (1, 1))  # its content is the same
    look(folder)
    words = "removed: train/a/0.jpg; changed: train/a/2.jpg; added: test/b/9.jpg"
    assert datasets.changes(f"folder:{folder}", planned) == words


def test_the_first_ten_changes_are_named_and_the_others_counted(folder):
    planned = look(folder).fingerprint
    for k in range(6):
        (folder / f"train/a/{k}.jpg").unlink()
        shutil.copy(folder / "train/a/7.jpg", folder / f"train/b/{k + 10}.jpg")
    look(folder)
    words = datasets.changes(f"folder:{folder}", planned)
    assert (words.count("train/a/"), words.count("train/b/")) == (6, 4)
    assert words.endswith("added: train/b/10.jpg, train/b/11.jpg, train/b/12.jpg, train/b/13.jpg; and 2 more")


def test_without_a_record_the_folder_is_said_to_have_changed(folder, cache):
    planned = look(folder).fingerprint
    shutil.rmtree(cache)
    (folder / "train/a/0.jpg").unlink()
    look(folder)
    assert datasets.changes(f"folder:{folder}", planned) == "its images have changed"


def test_other_libraries_are_named_as_such(folder):
    content, _, libraries = look(folder).fingerprint.partition("; ")
    words = datasets.changes(f"folder:{folder}", f"{content}; pillow 1")
    assert words == f"decoded by {libraries} instead of pillow 1"


def test_a_folder_that_changed_since_this_process_planned_is_refused_once(folder):
    look(folder)
    (folder / "train/a/0.jpg").unlink()
    line = refusal(datasets.prepare, f"folder:{folder}", Path(), False)
    words = f"data set 'folder:{folder}' has changed while the run was planned (removed: train/a/0.jpg)"
    assert line == f"{words}. Give the same command again"
    datasets.prepare(f"folder:{folder}", Path(), download=False)


# The command line


@pytest.fixture
def home(folder, tmp_path):
    """Return a home with the run `mine` of Table 9 on the folder, planned and not yet trained."""
    datasets._folder.cache_clear()
    plan = draft("table9", replicates=1, request=asked(data=(f"folder:{folder}",))).plan.named("mine")
    records.save_plan(Store(str(tmp_path / "home/store")), plan)
    return tmp_path / "home"


def refused(home, *arguments):
    """Return the one line in which a command of a new process refuses its arguments."""
    datasets._folder.cache_clear()
    message = str(call_study(*arguments, home=home, code=2).exception)
    assert "\n" not in message
    return message


def test_every_command_that_would_train_names_the_files_that_have_changed_since_the_plan(folder, home):
    (folder / "train/a/0.jpg").unlink()
    shutil.copy(folder / "train/a/1.jpg", folder / "train/a/2.jpg")
    shutil.copy(folder / "train/a/1.jpg", folder / "test/b/9.jpg")
    words = (
        f"these sources have changed since run 'mine' was planned: folder:{folder} (removed: train/a/0.jpg; changed: "
        "train/a/2.jpg; added: test/b/9.jpg). Restore the files that the run was planned with, or train the run anew "
        "with --retrain"
    )
    run = ("run", "table9", "--data", f"folder:{folder}", "--seeds", "1", "--name", "mine")
    for arguments in (("resume", "mine"), run, (*run, "--dry-run")):
        assert refused(home, *arguments) == words
    assert [path.name for path in home.rglob("*.json")] == ["plan.json"]


@pytest.mark.parametrize(
    ("damage", "options", "reason"),
    [
        (lambda path: path.write_text("text"), (), "train/a/3.jpg (not an image that Pillow reads)"),
        (truncate, ("--verify-images",), "train/a/3.jpg (image file is truncated ("),
    ],
)
def test_bad_files_are_refused_before_anything_is_stored(damage, options, reason, folder, tmp_path):
    damage(folder / "train/a/3.jpg")
    line = refused(tmp_path / "home", "run", "table9", "--data", f"folder:{folder}", "--seeds", "1", *options)
    assert line.startswith(f"1 image of '{folder}' cannot be read: {reason}")
    assert not (tmp_path / "home").exists()


def test_a_run_whose_folder_is_gone_is_still_shown_and_reported(folder, home):
    shutil.move(folder, folder.with_name("away"))
    datasets._folder.cache_clear()
    assert parsed(call_study("status", "mine", "--json", home=home))["waiting"] == 9
    assert f"folder:{folder}" in call_study("report", "mine", home=home).stdout
    assert "table9" in call_study("list", home=home).stdout
    assert refused(home, "resume", "mine").startswith(f"train/ of '{folder}' cannot be read")
