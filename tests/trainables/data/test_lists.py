from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from study.errors import Refusal
from trainables.data import lists
from trainables.data.datasets import facts
from trainables.data.facts import Lists
from trainables.data.kinds import Listed


def declared(**own):
    """Return a data set of three lists, with other facts if given."""
    known = {"classes": 3, "largest": 5, "natural": 2.5, "lists": Lists("Tiny", 9, 4, 6)}
    return type("Declared", (Listed,), {**known, **own})()


TINY = declared()
TRAIN = ["a/1 0", "b/1 2", "c/1 1", "b/2 2", "c/2 1", "b/3 2", "b/4 2", "a/2 0", "b/5 2"]
VAL = ["v/1 1", "v/2 0", "v/3 2", "v/4 2"]
TEST = ["t/1 0", "t/2 1", "t/3 2", "t/4 2", "t/5 1", "t/6 0"]


def write(root, name="Tiny", **parts):
    """Write the data set's lists below a data folder, and an empty file for each image in them."""
    parts = {"train": TRAIN, "val": VAL, "test": TEST, **parts}
    for part, lines in parts.items():
        path = root / name / f"{name}_{part}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(f"{line}\n" for line in lines))
        for line in lines:
            image = path.parent / line.rpartition(" ")[0]
            image.parent.mkdir(exist_ok=True)
            image.touch()
    return root


def names(paths, root):
    return [str(Path(path.decode()).relative_to(root / "Tiny")) for path in paths.tolist()]


# What is declared


@pytest.mark.parametrize(
    ("dataset", "classes", "largest", "smallest", "train", "evaluated"),
    [
        ("imagenet-lt", 1000, 1280, 5, 115_846, 20_000 + 50_000),
        ("places-lt", 365, 4980, 5, 62_500, 7_300 + 36_500),
        ("inaturalist2018", 8142, 1000, 2, 437_513, 24_426),
    ],
)
def test_the_public_lists(dataset, classes, largest, smallest, train, evaluated):
    known = facts(dataset)
    assert (known.classes, known.largest, known.largest / known.natural) == (classes, largest, smallest)
    assert known.images(known.natural) == train
    assert known.lists.val + known.lists.test == evaluated
    assert str(train) in known.fingerprint
    assert "pillow" in known.fingerprint
    with pytest.raises(ValueError, match="the class counts are known only from its lists"):
        known.counts(known.natural)


# Ranks


@given(labels=st.lists(st.integers(0, 5), min_size=1, max_size=40).map(lambda some: [*some, *range(6)]))
def test_classes_are_ranked_by_their_images_and_equals_by_their_labels(labels):
    rank, counts = lists.ranked(np.asarray(labels))
    by_size = sorted(range(6), key=lambda label: (-labels.count(label), label))
    assert [by_size.index(label) for label in range(6)] == rank.tolist()
    assert [labels.count(label) for label in by_size] == counts.tolist()


def test_images_are_sorted_by_rank_and_inside_a_class_as_they_are_listed(tmp_path):
    listing = lists.read(TINY, write(tmp_path))
    assert names(listing.train, tmp_path) == ["b/1", "b/2", "b/3", "b/4", "b/5", "a/1", "a/2", "c/1", "c/2"]
    assert listing.counts.tolist() == listing.listed.tolist() == [5, 2, 2]


def test_a_val_list_is_for_selection_and_the_test_list_is_what_is_reported(tmp_path):
    listing = lists.read(TINY, write(tmp_path))
    assert names(listing.test[listing.in_val], tmp_path) == ["v/1", "v/2", "v/3", "v/4"]
    assert names(listing.test[~listing.in_val], tmp_path) == ["t/1", "t/2", "t/3", "t/4", "t/5", "t/6"]
    assert listing.test_labels.tolist() == [2, 1, 0, 0, 1, 2, 0, 0, 2, 1]  # label 2 has rank 0, 0 has 1, 1 has 2


# Held-out training images

COUNTS = (100, 41, 40, 20, 19, 10, 9, 2)


@pytest.fixture
def held_out(tmp_path):
    """Return a data set that reports on its val list, its folder, and its files."""
    counts = Lists("Tiny", sum(COUNTS), 8, 0)
    known = declared(classes=8, largest=100, natural=50.0, lists=counts, selection="train")
    train = [f"{rank}/{k} {7 - rank}" for k in range(100) for rank, count in enumerate(COUNTS) if k < count]
    root = write(tmp_path, train=train, val=[f"v/{rank} {7 - rank}" for rank in range(8)], test=[])
    return known, root, lists.read(known, root)


def test_a_training_image_of_each_class_of_ten_or_more_is_held_out(held_out):
    _, root, listing = held_out
    assert listing.counts.tolist() == [99, 40, 39, 19, 18, 9, 9, 2]
    assert listing.listed.tolist() == list(COUNTS)
    selection = names(listing.test[listing.in_val], root)
    assert [int(name.partition("/")[0]) for name in selection] == listing.test_labels[listing.in_val].tolist()
    train = names(listing.train, root)
    assert len({*train, *selection}) == sum(COUNTS)
    assert set(train).isdisjoint(selection)
    assert names(listing.test[~listing.in_val], root) == [f"v/{rank}" for rank in range(8)]


def test_the_same_images_are_held_out_each_time_and_not_just_the_first(held_out):
    known, root, listing = held_out
    assert (lists.read(known, root).test == listing.test).all()
    first = ["0/0"]
    assert [name for name in names(listing.test, root) if name.startswith("0/")] != first


def test_the_order_of_a_list_s_lines_is_no_matter(held_out, tmp_path):
    known, root, listing = held_out
    path = root / "Tiny" / "Tiny_train.txt"
    path.write_text("\n".join(reversed(path.read_text().splitlines())) + "\n")
    again = lists.read(known, root)
    assert (again.train == listing.train).all()
    assert (again.test == listing.test).all()


@given(counts=st.lists(st.integers(1, 2000), min_size=1, max_size=20))
def test_classes_stay_in_order_when_images_are_held_out(counts):
    counts = sorted(counts, reverse=True)
    chosen = lists._held_out(np.asarray(counts))
    left = [int((~own).sum()) for own in np.split(chosen, np.cumsum(counts)[:-1])]
    assert left == sorted(left, reverse=True)
    assert all(kept >= 0.9 * count and kept >= 1 for kept, count in zip(left, counts, strict=True))


# What is refused


def refusal(known, root):
    with pytest.raises(Refusal) as refused:
        lists.check(known, root)
    line = str(refused.value)
    assert "\n" not in line
    return line


def test_lists_as_declared_are_not_refused(tmp_path):
    lists.check(TINY, write(tmp_path))


@pytest.mark.parametrize("bad", ["b/3 3", "b/3 -1", "b/3 2.0", "b/3 two", "b/3", "2", "", "b/3\xa02x"])
def test_a_bad_line_is_refused_with_its_number(bad, tmp_path):
    root = write(tmp_path)
    path = root / "Tiny" / "Tiny_train.txt"
    path.write_text("\n".join([*TRAIN[:5], bad, *TRAIN[6:]]) + "\n")
    line = refusal(TINY, root)
    assert line == f"{path}, line 6 must be a path and a label from 0 to 2 (got {bad!r})"


def test_paths_may_have_spaces_and_lines_may_end_as_on_other_systems(tmp_path):
    root = write(tmp_path, train=["a b/1 0", *TRAIN[1:]])
    path = root / "Tiny" / "Tiny_train.txt"
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    lists.check(TINY, root)
    assert "a b/1" in names(lists.read(TINY, root).train, root)


@pytest.mark.parametrize(
    ("part", "lines", "at"),
    [
        ("train", [*TRAIN, "b/6 2"], "Line 10 is too many"),
        ("train", TRAIN[:-1], "It ends at line 8"),
        ("val", [*VAL, "v/5 0"], "Line 5 is too many"),
        ("test", TEST[1:], "It ends at line 5"),
    ],
)
def test_a_wrong_number_of_lines_is_refused(part, lines, at, tmp_path):
    line = refusal(TINY, write(tmp_path, **{part: lines}))
    count = f"Tiny_{part}.txt must have {getattr(TINY.lists, part)} lines (got {len(lines)})"
    assert line.endswith(f"{count}. {at}. Replace it by the public list")


@pytest.mark.parametrize("part", ["train", "val", "test"])
def test_a_class_without_images_is_refused(part, tmp_path):
    lines = {"train": TRAIN, "val": VAL, "test": TEST}[part]
    line = refusal(TINY, write(tmp_path, **{part: [line.replace(" 1", " 2") for line in lines]}))
    assert line.endswith(f"Tiny_{part}.txt must have images of all 3 classes (got 2). It has no image of class 1")


def test_another_distribution_over_the_classes_is_refused(tmp_path):
    line = refusal(TINY, write(tmp_path, train=[*TRAIN[:8], "a/3 0"]))
    hint = "That is class 2, whose last image is in line 7. Replace the list by the public one"
    assert line.endswith(f"Tiny_train.txt must have 5 images of its largest class (got 4). {hint}")
    line = refusal(TINY, write(tmp_path, train=["b/6 2", *TRAIN[1:]]))
    assert "must have 5 images of its largest class (got 6). That is class 2, whose last image is in line 9" in line
    line = refusal(declared(natural=5.0), write(tmp_path))
    assert "must have 1 image of its smallest class (got 2). That is class 0, whose last image is in line 8" in line


@pytest.mark.parametrize("part", ["train", "val", "test"])
def test_a_missing_list_is_refused_with_where_it_belongs(part, tmp_path):
    path = write(tmp_path) / "Tiny" / f"Tiny_{part}.txt"
    path.unlink()
    line = refusal(TINY, tmp_path)
    hint = "Put the public list and its images into that folder, or name another folder than"
    assert line == f"list '{path}' does not exist. {hint} {tmp_path} with --data-dir"


def test_a_list_that_is_no_text_is_refused(tmp_path):
    (write(tmp_path) / "Tiny" / "Tiny_val.txt").write_bytes(b"\xff\xfe\x00 0\n" * 4)
    assert "Tiny_val.txt' cannot be read (" in refusal(TINY, tmp_path)


@pytest.mark.parametrize(
    ("gone", "named", "first", "missing"),
    [
        (["c/2"], "train.txt, line 5", "c/2", "1 of 9"),
        (["b/5", "b/2"], "train.txt, line 4", "b/2", "2 of 9"),
        (["t/3"], "test.txt, line 3", "t/3", "1 of 6"),
    ],
)
def test_a_missing_file_is_refused_with_the_line_that_names_it(gone, named, first, missing, tmp_path):
    root = write(tmp_path)
    for name in gone:
        (root / "Tiny" / name).unlink()
    line = refusal(TINY, root)
    hint = f"Missing files of this list: {missing}. Put the data set's images there, or links to their folders"
    assert line.endswith(f"Tiny_{named}: file '{root}/Tiny/{first}' does not exist. {hint}")


def test_a_missing_folder_of_images_is_refused_as_its_files_are(tmp_path):
    root = write(tmp_path)
    (root / "Tiny" / "v").rename(root / "elsewhere")
    assert "Tiny_val.txt, line 1" in refusal(TINY, root)
    (root / "Tiny" / "v").symlink_to(root / "elsewhere")
    lists.check(TINY, root)


@pytest.mark.parametrize("download", [False, True])
def test_a_data_set_of_lists_is_prepared_by_checking_them(download, tmp_path):
    with pytest.raises(
        Refusal, match=r"Tiny_train.txt' does not exist\. Put the public list and its images into that folder"
    ):
        TINY.prepare(tmp_path, download)
    TINY.prepare(write(tmp_path), download)
    (tmp_path / "Tiny" / "t" / "1").unlink()
    with pytest.raises(Refusal, match="line 1"):
        TINY.prepare(tmp_path, download)
