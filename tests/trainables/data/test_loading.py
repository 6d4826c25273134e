import hashlib
import runpy
import sys
from collections import Counter
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from helpers import normalised
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits

from study.errors import Refusal
from study.machine import Machine
from trainables.config import Config
from trainables.data.datasets import facts
from trainables.data.loading import load
from trainables.data.resident import subset
from trainables.origins import origin
from trainables.recipe import Epoch

UNPACK = Path(__file__).parents[4] / "shared/data/unpack.py"


# The subset


@settings(max_examples=25)
@given(data=st.data())
def test_the_subset_is_the_published_one(data):
    counts = data.draw(st.lists(st.integers(0, 20), min_size=1, max_size=6))
    labels = np.random.default_rng(data.draw(st.integers(0, 999))).permutation(np.repeat(range(len(counts)), 20))
    np.random.seed(0)
    kept = []
    for label, count in enumerate(counts):
        of_class = np.array([i for i in range(len(labels)) if labels[i] == label])
        np.random.shuffle(of_class)
        kept += of_class[:count].tolist()
    assert subset(labels, np.asarray(counts), 0).tolist() == kept


@settings(max_examples=25)
@given(counts=st.lists(st.integers(0, 20), min_size=1, max_size=6), seed=st.integers(0, 99))
def test_a_smaller_class_keeps_the_first_of_the_images_that_a_larger_one_keeps(counts, seed):
    labels = np.random.default_rng(seed).permutation(np.repeat(range(len(counts)), 20))
    whole = subset(labels, np.full(len(counts), 20), seed).reshape(-1, 20)
    first = [image for row, count in zip(whole, counts, strict=True) for image in row[:count]]
    assert subset(labels, np.asarray(counts), seed).tolist() == first


def test_another_seed_keeps_other_images():
    labels = np.repeat(np.arange(2), 100)
    kept = {tuple(subset(labels, np.asarray([50, 10]), seed).tolist()) for seed in range(5)}
    assert len(kept) == 5


# Digits


def loaded(dataset, imbalance=50.0, split_seed=0, subset_seed=0, root=None, crop=None):
    config = Config(dataset=dataset, imbalance=imbalance, split_seed=split_seed, subset_seed=subset_seed)
    crop = facts(dataset).crop if crop is None else crop
    return load(origin(config, Machine("cpu", 1)), Epoch(lr=0.1, crop=crop), root)


def digits(imbalance=50.0, split_seed=0, subset_seed=0):
    return loaded("digits", imbalance, split_seed, subset_seed)


def raw_images(data, batches):
    """Return the grey values of normalised images, as bytes, which differ between any two of scikit-learn's digits."""
    mean, std, scale = data.facts.mean[0], data.facts.std[0], data.facts.scale
    images = torch.cat([batch[0] for batch in batches])
    return [image.tobytes() for image in ((images * std + mean) * scale).round().numpy().astype(np.uint8)]


def members(data):
    """Return the training and the test images of digits-LT, as bytes."""
    return raw_images(data, data.fit_batches()), raw_images(data, data.test_batches())


def test_data_are_loaded_once_for_all_instructions_that_crop_alike():
    assert loaded("digits") is loaded("digits")
    assert loaded("digits") is not loaded("digits", crop=2)
    assert loaded("digits") is not loaded("digits", subset_seed=1)


@pytest.mark.parametrize("imbalance", [1.0, 10.0, 50.0, 124.0])
def test_digits_has_its_counts_50_test_images_a_class_and_a_balanced_val_half(imbalance):
    data = digits(imbalance)
    assert np.bincount(data.labels).tolist() == list(facts("digits").counts(imbalance)) == data.counts.tolist()
    assert data.labels.tolist() == sorted(data.labels.tolist())
    assert np.bincount(data.test_labels).tolist() == [50] * 10
    assert np.bincount(data.test_labels[data.in_val]).tolist() == [25] * 10


@pytest.mark.parametrize("seed", [0, 1, 7])
def test_digits_train_and_test_are_disjoint_and_each_rank_is_one_digit(seed):
    digit = {i.astype(np.uint8).tobytes(): t for i, t in zip(*load_digits(return_X_y=True), strict=True)}
    data = digits(1.0, seed, seed)
    train, test = members(data)
    assert Counter(train + test).most_common(1)[0][1] == 1
    named = Counter((label, digit[i]) for label, i in zip(data.labels.tolist(), train, strict=True))
    named_in_test = Counter((label, digit[i]) for label, i in zip(data.test_labels.tolist(), test, strict=True))
    assert len(named) == len({d for _, d in named}) == 10
    assert named.keys() == named_in_test.keys()


def test_another_split_seed_tests_on_other_images_with_other_ranks():
    sets, halves, smallest = set(), set(), set()
    digit = {i.astype(np.uint8).tobytes(): t for i, t in zip(*load_digits(return_X_y=True), strict=True)}
    for seed in range(5):
        train, test = members(digits(split_seed=seed))
        sets.add(frozenset(test))
        halves.add(tuple(digits(split_seed=seed).in_val.tolist()))
        smallest.add(digit[train[-1]])
    assert len(sets) == len(halves) == 5
    assert len(smallest) > 1


def test_another_subset_seed_trains_on_other_images_of_the_same_split():
    (train, test), (other_train, other_test) = members(digits()), members(digits(subset_seed=1))
    assert test == other_test
    assert set(train) != set(other_train)
    assert set(other_train).isdisjoint(test)


@pytest.mark.parametrize("seed", [0, 3])
def test_the_balanced_set_begins_each_class_with_the_long_tailed_images(seed):
    small, whole = digits(50.0, seed, seed), digits(1.0, seed, seed)
    (train, test), (more, same_test) = members(small), members(whole)
    assert test == same_test
    assert whole.counts.tolist() == [124] * 10
    begun = [more[124 * rank : 124 * rank + count] for rank, count in enumerate(small.counts)]
    assert train == [image for images in begun for image in images]


# A data set of the user's own

STRIPES = """
import numpy as np

from trainables.data.facts import Images, verified
from trainables.data.kinds import Small


class Stripes(Small):
    classes = 3
    largest = 8
    channels = 1
    side = 8
    scale = 16
    mean = (0.5,)
    std = (0.25,)
    crop = 1
    fingerprint = "{fingerprint}"

    def read(self, root, split_seed):
        images, labels = np.load(root / "images.npy"), np.arange(36) % 3
        verified(self, images, labels)
        return Images(images[:24], labels[:24], images[24:], labels[24:])
"""


@pytest.fixture
def stripes(tmp_path):
    """Return the data set's images, (36, 1, 8, 8), and a function that writes its file with a fingerprint."""
    images = np.random.default_rng().integers(0, 17, (36, 1, 8, 8), dtype=np.uint8)
    np.save(tmp_path / "images.npy", images)

    def write(fingerprint):
        (tmp_path / "stripes.py").write_text(STRIPES.format(fingerprint=fingerprint))
        return f"{tmp_path}/stripes.py:Stripes"

    return images, write


def test_a_balanced_data_set_of_the_user_s_own_is_made_long_tailed(stripes, tmp_path):
    images, write = stripes
    content = hashlib.sha256(images.tobytes() + (np.arange(36) % 3).tobytes()).hexdigest()
    data = loaded(write(f"sha256:{content}"), imbalance=4.0, root=tmp_path)
    assert data.counts.tolist() == [8, 4, 2]
    assert data.test_labels.tolist() == [0, 1, 2] * 4
    assert np.bincount(data.test_labels[data.in_val]).tolist() == [2, 2, 2]
    train, test = members(data)
    assert test == [image.tobytes() for image in images[24:]]
    assert train == [images[i].tobytes() for i in subset(np.arange(24) % 3, data.counts, 0)]


def test_content_that_is_not_the_declared_one_is_refused_with_its_own_fingerprint(stripes, tmp_path):
    images, write = stripes
    content = hashlib.sha256(images.tobytes() + (np.arange(36) % 3).tobytes()).hexdigest()
    with pytest.raises(Refusal, match="must have the declared fingerprint sha256:another") as refused:
        loaded(write("sha256:another"), imbalance=4.0, root=tmp_path)
    assert refused.value.value == f"sha256:{content}"


# CIFAR


@pytest.fixture(scope="module")
def cifar(tmp_path_factory):
    """Return a folder with CIFAR-10 as torchvision expects it."""
    if not UNPACK.exists():
        pytest.skip("no CIFAR-10 beside the repository")
    root = tmp_path_factory.mktemp("cifar")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [str(UNPACK), str(root), "cifar10"])
        runpy.run_path(str(UNPACK), run_name="__main__")
    return root


def test_cifar10_is_the_published_subset_of_the_official_files(cifar):
    from torchvision.datasets import CIFAR10

    facts("cifar10").prepare(cifar, download=False)
    data = loaded("cifar10", root=cifar)
    assert np.bincount(data.labels).tolist() == [5000, 3237, 2096, 1357, 878, 568, 368, 238, 154, 100]
    assert np.bincount(data.test_labels).tolist() == [1000] * 10
    assert np.bincount(data.test_labels[data.in_val]).tolist() == [500] * 10

    official = CIFAR10(str(cifar), train=True, download=False)
    kept = subset(np.asarray(official.targets), data.counts, 0)
    images = torch.cat([images for images, _ in data.fit_batches()])
    for position in np.random.default_rng().integers(len(kept), size=20).tolist():
        image, label = official[kept[position]]
        expected = normalised(np.asarray(image).transpose(2, 0, 1), data.facts)
        found = images[position]
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-4, atol=1e-5)
        assert data.labels[position] == label


def test_val_on_cifar10_is_one_half_whatever_the_seeds(cifar):
    halves = [loaded("cifar10", 100.0, seed, seed, cifar).in_val for seed in (0, 1)]
    assert torch.equal(*halves)


def test_the_balanced_cifar10_begins_each_class_with_the_long_tailed_images(cifar):
    small, whole = loaded("cifar10", 100.0, root=cifar), loaded("cifar10", 1.0, root=cifar)
    assert whole.counts.tolist() == [5000] * 10
    train, more = (torch.cat([images for images, _ in data.fit_batches()]) for data in (small, whole))
    first = np.cumsum(small.counts) - small.counts
    for rank, (start, count) in enumerate(zip(first, small.counts, strict=True)):
        assert torch.equal(train[start : start + count], more[5000 * rank : 5000 * rank + count])


@pytest.mark.parametrize("dataset", ["cifar10", "cifar100"])
@pytest.mark.parametrize(
    "ask",
    [
        lambda dataset, root: loaded(dataset, root=root),
        lambda dataset, root: facts(dataset).prepare(root, download=False),
    ],
)
def test_missing_files_are_refused_in_one_line_that_says_how_to_get_them(dataset, ask, tmp_path, capsys):
    with pytest.raises(Refusal) as refused:
        ask(dataset, tmp_path)
    line = str(refused.value)
    assert refused.value.field == dataset
    assert line.startswith(f"{dataset} is missing or damaged in '{tmp_path}'. Download it with --download. ")
    assert line.endswith("), or name another folder with --data-dir")
    assert "\n" not in line
    assert capsys.readouterr().out == ""


def test_damaged_files_are_refused(tmp_path):
    (tmp_path / "cifar-10-batches-py").mkdir()
    (tmp_path / "cifar-10-batches-py" / "data_batch_1").write_bytes(b"half a file")
    with pytest.raises(Refusal, match="missing or damaged"):
        facts("cifar10").prepare(tmp_path, download=False)


@pytest.mark.parametrize("failure", [URLError("no route to host"), ConnectionResetError("reset"), TimeoutError("slow")])
def test_a_failing_download_is_refused_with_its_reason(failure, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise failure

    monkeypatch.setattr("torchvision.datasets.cifar.download_and_extract_archive", fail)
    with pytest.raises(
        Refusal, match=r"^cifar10 in '.*' cannot be downloaded \(.*\)\. Download it with --download"
    ) as refused:
        facts("cifar10").prepare(tmp_path, download=True)
    assert str(failure) in str(refused.value)
    assert "--data-dir" in str(refused.value)


def test_digits_need_nothing_on_disk(tmp_path):
    facts("digits").prepare(tmp_path / "missing", download=False)
    assert not list(tmp_path.iterdir())
