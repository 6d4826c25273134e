"""Small data sets that are held on the device: their batches, image by image."""

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import normalised

from study.errors import Refusal
from trainables.data import resident
from trainables.data.datasets import facts
from trainables.data.facts import Images, Wanted
from trainables.data.resident import Arrays, LongTailed
from trainables.ranks import ALONE
from trainables.recipe import Epoch


def long_tailed(dataset, crop, counts=(5, 3, 2)):
    """Return a data set of random images, and its training and test images: (N, channels, side, side)."""
    rng, known = np.random.default_rng(), facts(dataset)
    shape = (known.channels, known.side, known.side)
    train, test = (rng.integers(0, known.scale + 1, (n, *shape), dtype=np.uint8) for n in (sum(counts), 6))
    halves = np.arange(6) % 2 == 0
    arrays = Arrays(np.asarray(counts), train, test, np.repeat(np.arange(3), 2), halves)
    return LongTailed(known, arrays, crop, torch.device("cpu")), train, test


@pytest.mark.parametrize("dataset", ["digits", "cifar10"])
@pytest.mark.parametrize("crop", [0, 1, 4])
@pytest.mark.parametrize("flip", [False, True])
def test_a_batch_is_padded_cropped_flipped_and_normalised_image_by_image(dataset, crop, flip):
    data, train, _ = long_tailed(dataset, crop)
    side, seed = data.facts.side, np.random.default_rng().integers(1 << 32)
    order = np.random.default_rng().integers(len(train), size=40)
    epoch = Epoch(lr=0.1, crop=crop, flip=flip, batch_size=16)
    batches = list(data.batches(order, epoch, np.random.default_rng(seed)))
    assert [len(labels) for _, labels in batches] == [16, 16, 8]
    images, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
    assert labels.tolist() == data.labels[order].tolist()

    rng = np.random.default_rng(seed)
    top, left = rng.integers(2 * crop + 1, size=(2, 40))
    mirror = rng.random(40) < 0.5
    for b in range(40):
        canvas = np.zeros((data.facts.channels, side + 2 * crop, side + 2 * crop))
        canvas[:, crop : crop + side, crop : crop + side] = train[order[b]]
        image = canvas[:, top[b] : top[b] + side, left[b] : left[b] + side]
        image = image[:, :, ::-1] if flip and mirror[b] else image
        np.testing.assert_allclose(images[b].numpy(), normalised(image, data.facts), rtol=1e-4, atol=1e-5)


def test_what_is_drawn_is_drawn_at_once_so_two_orders_can_be_walked_side_by_side():
    data, train, _ = long_tailed("cifar10", crop=4)
    epoch, orders = Epoch(lr=0.1, crop=4, batch_size=3), np.random.default_rng().integers(len(train), size=(2, 9))
    rng = np.random.default_rng(5)
    one_by_one = [list(data.batches(order, epoch, rng)) for order in orders]
    rng = np.random.default_rng(5)
    abreast = list(zip(*[data.batches(order, epoch, rng) for order in orders], strict=True))
    for step, pair in enumerate(abreast):
        for walked, (images, labels) in zip(one_by_one, pair, strict=True):
            assert torch.equal(walked[step][0], images)
            assert torch.equal(walked[step][1], labels)


@pytest.mark.parametrize("dataset", ["digits", "cifar10"])
@pytest.mark.parametrize("size", [2, 1000])
def test_un_augmented_images_come_in_the_order_of_storage(dataset, size, monkeypatch):
    monkeypatch.setattr("trainables.data.resident.EVALUATION_BATCH", size)
    data, train, test = long_tailed(dataset, crop=2)
    images, labels = (torch.cat(parts) for parts in zip(*data.fit_batches(), strict=True))
    np.testing.assert_allclose(images.numpy(), [normalised(i, data.facts) for i in train], rtol=1e-4, atol=1e-5)
    assert labels.tolist() == data.labels.tolist()
    images, labels, part = (torch.cat(parts) for parts in zip(*data.test_batches(), strict=True))
    np.testing.assert_allclose(images.numpy(), [normalised(i, data.facts) for i in test], rtol=1e-4, atol=1e-5)
    assert labels.tolist() == data.test_labels.tolist()
    assert part.tolist() == [1, 0, 1, 0, 1, 0] == data.in_val.long().tolist()


def test_the_splits_follow_the_actual_counts():
    data, _, _ = long_tailed("digits", crop=1, counts=(41, 40, 9))
    assert data.shots == {"many": [0], "medium": [1], "few": [2]}


def test_labels_follow_the_counts():
    data, _, _ = long_tailed("digits", crop=1)
    assert data.labels.tolist() == [0, 0, 0, 0, 0, 1, 1, 1, 2, 2]


IMAGES = np.zeros((1300, 1, 8, 8), np.uint8)
LABELS = np.arange(1300) % 10


@pytest.mark.parametrize(
    ("images", "why"),
    [
        ((IMAGES, LABELS, IMAGES, LABELS), "must return Images from read (got 'tuple')"),
        (Images(IMAGES / 255, LABELS, IMAGES, LABELS), "must have training images (N, 1, 8, 8) of uint8"),
        (Images(IMAGES[:, 0], LABELS, IMAGES, LABELS), "must have training images (N, 1, 8, 8) of uint8"),
        (Images(IMAGES[:-1], LABELS, IMAGES, LABELS), "must have training images (N, 1, 8, 8) of uint8"),
        (Images(IMAGES, LABELS, IMAGES[:, :, 1:], LABELS), "must have test images (N, 1, 8, 8) of uint8"),
        (Images(IMAGES[:1200], LABELS[:1200], IMAGES, LABELS), "at least 124 training images of each of 10 classes"),
        (Images(IMAGES, LABELS + 1, IMAGES, LABELS), "at least 124 training images of each of 10 classes"),
        (Images(IMAGES, LABELS - 1, IMAGES, LABELS), "at least 124 training images of each of 10 classes"),
        (Images(IMAGES, LABELS, IMAGES, 0 * LABELS), "at least 2 test images of each of 10 classes"),
    ],
)
def test_images_that_are_not_as_the_facts_say_are_refused(images, why):
    wanted = Wanted(1.0, 0, 0, 1, "cpu", Path(), 0, ALONE)
    resident.long_tailed(facts("digits"), Images(IMAGES, LABELS, IMAGES, LABELS), wanted)
    with pytest.raises(Refusal) as refused:
        resident.long_tailed(facts("digits"), images, wanted)
    assert refused.value.field == "Digits"
    assert why in str(refused.value)
    assert "\n" not in str(refused.value)
