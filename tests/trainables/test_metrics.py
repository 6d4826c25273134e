import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trainables.metrics import BINS, Tally, summary

SHOTS = {"many": [0, 1], "medium": [2], "few": []}


def slow_summary(logits, labels, shots):
    """Return the measures by their definitions, image by image."""
    classes = len(logits[0])
    losses, hits, bins = [], {label: [] for label in range(classes)}, {}
    for row, label in zip(logits, labels, strict=True):
        total = sum(math.exp(z - max(row)) for z in row)
        probabilities = [math.exp(z - max(row)) / total for z in row]
        confidence = max(probabilities)
        correct = probabilities.index(confidence) == label
        losses.append(math.log(total) + max(row) - row[label])
        hits[label].append(correct)
        bins.setdefault(min(int(confidence * BINS), BINS - 1), []).append((correct, confidence))
    accuracy = [100 * sum(each) / len(each) if each else None for each in hits.values()]
    gaps = [len(b) * abs(sum(c for c, _ in b) / len(b) - sum(p for _, p in b) / len(b)) for b in bins.values()]
    measures = {
        "loss": sum(losses) / len(losses),
        "top1": 100 * sum(map(sum, hits.values())) / len(losses),
        "worst": min(each for each in accuracy if each is not None),
        "ece": 100 * sum(gaps) / len(losses),
        "class_accuracy": accuracy,
    }
    for split, members in shots.items():
        own = [accuracy[label] for label in members if accuracy[label] is not None]
        if own:
            measures[split] = sum(own) / len(own)
    return measures


def images(seed, scale=2.0, classes=3, number=200):
    """Return random logits, better than chance, and labels of every class."""
    rng = np.random.default_rng(seed)
    labels = np.concatenate((np.arange(classes), rng.integers(classes, size=number - classes)))
    logits = scale * rng.standard_normal((number, classes)).astype(np.float32)
    logits[np.arange(number), labels] += 1
    return logits, labels


def measured(logits, labels, part=None, parts=1, batch=64):
    tally = Tally(logits.shape[1], parts, torch.device("cpu"))
    part = np.zeros_like(labels) if part is None else part
    for start in range(0, len(labels), batch):
        at = slice(start, start + batch)
        tally.add(*(torch.from_numpy(array[at]) for array in (logits, labels, part)))
    return tally.read()


def assert_same(measures, expected):
    def numbers(value):  # of a class that has none, -1
        return [-1 if each is None else each for each in value] if isinstance(value, list) else value

    assert measures.keys() == expected.keys()
    for name, value in expected.items():
        assert numbers(measures[name]) == pytest.approx(numbers(value), rel=1e-4, abs=1e-4), name


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**32 - 1), scale=st.sampled_from([0.1, 2.0, 100.0]))
def test_the_fixed_set_agrees_with_its_definitions(seed, scale):
    logits, labels = images(seed, scale)
    by_class, by_bin = measured(logits, labels)
    measures = summary("test", by_class[:, 0], by_bin[:, 0], SHOTS)
    expected = slow_summary(logits.tolist(), labels.tolist(), SHOTS)
    assert_same(measures, {f"test/{name}": value for name, value in expected.items()})


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**32 - 1))
def test_parts_are_measured_apart_and_add_up(seed):
    logits, labels = images(seed)
    part = np.random.default_rng(seed).integers(2, size=len(labels))
    part[:6], labels[:6] = [0, 0, 0, 1, 1, 1], [0, 1, 2, 0, 1, 2]
    by_class, by_bin = measured(logits, labels, part, parts=2)
    for number in (0, 1):
        expected = slow_summary(logits[part == number].tolist(), labels[part == number].tolist(), SHOTS)
        measures = summary("p", by_class[:, number], by_bin[:, number], SHOTS)
        assert_same(measures, {f"p/{name}": value for name, value in expected.items()})
    whole = slow_summary(logits.tolist(), labels.tolist(), SHOTS)
    measures = summary("p", by_class.sum(1), by_bin.sum(1), SHOTS)
    assert_same(measures, {f"p/{name}": value for name, value in whole.items()})


def test_how_the_images_are_batched_does_not_matter():
    logits, labels = images(seed=None)
    for one, other in zip(measured(logits, labels, batch=7), measured(logits, labels, batch=200), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**32 - 1), absent=st.integers(0, 2))
def test_a_class_without_images_has_no_accuracy_and_counts_in_no_split(seed, absent):
    logits, labels = images(seed)
    labels[labels == absent] = (absent + 1) % 3
    by_class, by_bin = measured(logits, labels)
    measures = summary("val", by_class[:, 0], by_bin[:, 0], SHOTS)
    expected = slow_summary(logits.tolist(), labels.tolist(), SHOTS)
    assert measures["val/class_accuracy"][absent] is None
    assert_same(measures, {f"val/{name}": value for name, value in expected.items()})


def test_adding_a_batch_says_what_was_predicted():
    logits, labels = images(seed=None)
    tally = Tally(3, 1, torch.device("cpu"))
    predicted = tally.add(torch.from_numpy(logits), torch.from_numpy(labels), torch.zeros(200, dtype=torch.int64))
    assert predicted.tolist() == [row.index(max(row)) for row in logits.tolist()]


def test_an_empty_shot_split_is_left_out():
    by_class, by_bin = measured(*images(seed=None))
    measures = summary("val", by_class[:, 0], by_bin[:, 0], SHOTS)
    assert "val/few" not in measures
    assert "val/many" in measures


def test_a_sure_and_right_network_is_calibrated_and_a_sure_and_wrong_one_is_not():
    labels = np.arange(3)
    sure = 1000 * np.eye(3, dtype=np.float32)
    for logits, top1, ece in ((sure, 100.0, 0.0), (sure[[1, 2, 0]], 0.0, 100.0)):
        by_class, by_bin = measured(logits, labels)
        measures = summary("x", by_class[:, 0], by_bin[:, 0], SHOTS)
        assert (measures["x/top1"], measures["x/ece"]) == (top1, ece)
