import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from search_spaces.shared.protocol import READ_OUT_TAUS
from trainables.layers import Cosine, Linear
from trainables.network import add_scale
from trainables.readouts import ADJUSTED, NORMALISED, ReadOuts

HOLDOUT, VAL = 0, 1
CPU = torch.device("cpu")
COUNTS = (60, 20, 5, 2)
SHOTS = {"many": [0], "medium": [1], "few": [2, 3]}


def head(rng, features=6, classes=4):
    """Return a linear classifier whose rows differ in length, as after training on long-tailed data."""
    made = Linear(features, classes).requires_grad_(False)
    made.weight.copy_(torch.from_numpy(rng.normal(size=(classes, features)) * rng.uniform(0.2, 3, (classes, 1))))
    made.bias.copy_(torch.from_numpy(rng.normal(size=classes)))
    return made


def images(rng, number=120, features=6, classes=4):
    """Return features, labels and parts of random images; each class has at least one image in each part."""
    labels = np.concatenate((np.repeat(np.arange(classes), 2), rng.integers(classes, size=number - 2 * classes)))
    part = np.concatenate((np.tile([HOLDOUT, VAL], classes), rng.integers(2, size=number - 2 * classes)))
    x = rng.normal(size=(number, features)).astype(np.float32)
    return torch.from_numpy(x), torch.from_numpy(labels), torch.from_numpy(part)


def read(classifier, x, labels, part, counts=COUNTS, shots=SHOTS, batch=50):
    read_outs = ReadOuts(classifier, np.asarray(counts), 2, CPU)
    for start in range(0, len(x), batch):
        at = slice(start, start + batch)
        read_outs.add(classifier(x[at]), labels[at], part[at])
    return read_outs.read(VAL, HOLDOUT, shots)


# The definitions, image by image


def largest(scores):
    first, second = sorted(scores, reverse=True)[:2]
    assume(first - second > 1e-5)  # rounding decides nothing
    return scores.index(first)


def adjusted(classifier, x, tau, counts):
    """Return the class with the largest z_j - τ log π_j."""
    z = [float(w @ x + b) for w, b in zip(classifier.weight, classifier.bias, strict=True)]
    return largest([each - tau * math.log(n / sum(counts)) for each, n in zip(z, counts, strict=True)])


def tau_normalised(classifier, x, tau, counts):
    """Return the class with the largest w_j · x / ‖w_j‖^τ."""
    return largest([float(w @ x) / math.sqrt(float(w @ w)) ** tau for w in classifier.weight])


def slow_read(decide, taus, classifier, x, labels, part, counts, shots):
    def right(tau, which):
        chosen = [
            (int(y), decide(classifier, image, tau, counts)) for image, y in zip(x[which], labels[which], strict=True)
        ]
        return {y: [found == y for label, found in chosen if label == y] for y in range(len(counts))}

    def total(by_class):
        return sum(map(sum, by_class.values()))

    best = max(taus, key=lambda tau: (total(right(tau, part == VAL)), -tau))
    by_class = right(best, part == HOLDOUT)
    accuracy = [100 * sum(hits) / len(hits) for hits in by_class.values()]
    measures = {"tau": best, "top1": 100 * total(by_class) / sum(map(len, by_class.values())), "worst": min(accuracy)}
    return measures | {split: np.mean([accuracy[j] for j in members]) for split, members in shots.items() if members}


@settings(deadline=None, max_examples=12)
@given(seed=st.integers(0, 2**32 - 1))
def test_the_read_outs_agree_with_their_definitions(seed):
    rng = np.random.default_rng(seed)
    classifier = head(rng)
    x, labels, part = images(rng)
    labels = torch.where(torch.from_numpy(rng.random(len(x)) < 0.5), classifier(x).argmax(1), labels)
    labels[:8] = torch.arange(4).repeat_interleave(2)
    found = read(classifier, x, labels, part)
    expected = {}
    for name, decide, taus in (("adjusted", adjusted, ADJUSTED), ("tau_normalised", tau_normalised, NORMALISED)):
        slow = slow_read(decide, taus, classifier, x, labels, part, COUNTS, SHOTS)
        expected |= {f"{name}/{measure}": value for measure, value in slow.items()}
    assert found == pytest.approx(expected)


def one_of_two(*images_of_part):
    """A classifier of classes of 3 and 1 images, under which logit adjustment says the second from τ = m / log 3 on,
    m being an image's first feature; an image is (m, label, part).
    """
    classifier = Linear(1, 2).requires_grad_(False)
    classifier.weight.copy_(torch.tensor([[1.0], [0.0]]))
    classifier.bias.zero_()
    x, labels, part = zip(*images_of_part, strict=True)
    found = read(classifier, torch.tensor(x)[:, None], torch.tensor(labels), torch.tensor(part), (3, 1), {"many": [0]})
    return found["adjusted/tau"], found["adjusted/top1"]


def test_tau_is_chosen_on_val_and_not_on_what_is_reported():
    margin = 0.9 * math.log(3)  # overcome from τ = 1 on
    val = [(margin, 1, VAL), (3.0, 0, VAL)]
    holdout = [(margin, 0, HOLDOUT), (0.1, 1, HOLDOUT)]  # τ = 0.25 would have both right, τ = 1 has one
    assert one_of_two(*val, *holdout) == (1.0, 50.0)
    swapped = [(m, y, 1 - part) for m, y, part in (*val, *holdout)]
    assert one_of_two(*swapped) == (0.25, 50.0)


def test_of_equally_good_ones_the_smallest_is_taken():
    far = 10.0  # no τ says anything but the first class
    assert one_of_two((far, 0, VAL), (far, 1, VAL), (far, 0, HOLDOUT), (far, 1, HOLDOUT)) == (0.0, 50.0)
    near = 0.6 * math.log(3)  # τ = 0.75 and all that follow are right
    assert one_of_two((near, 1, VAL), (near, 1, HOLDOUT), (far, 0, HOLDOUT)) == (0.75, 100.0)


def test_an_empty_split_is_left_out():
    rng = np.random.default_rng()
    found = read(head(rng), *images(rng), shots={"many": [0, 1, 2, 3], "medium": [], "few": []})
    kinds = ("tau", "top1", "worst", "many")
    assert found.keys() == {f"{name}/{kind}" for name in ("adjusted", "tau_normalised") for kind in kinds}
    assert all(map(math.isfinite, found.values()))


def test_a_class_without_reported_images_counts_in_no_split():
    rng = np.random.default_rng()
    classifier, (x, labels, part) = head(rng), images(rng)
    part[labels == 3] = VAL
    found = read(classifier, x, labels, part, shots={"many": [0, 1], "medium": [2, 3], "few": [3]})
    alone = read(classifier, x, labels, part, shots={"many": [0, 1], "medium": [2], "few": []})
    assert found == alone
    assert all(map(math.isfinite, found.values()))


def test_only_a_plain_linear_classifier_has_lengths_to_normalise():
    rng = np.random.default_rng()
    cosine, scaled = Cosine(6, 4, 30.0), torch.nn.Module()
    torch.nn.init.normal_(cosine.weight)
    scaled.classifier = head(rng)
    add_scale(scaled)
    for classifier in (cosine, scaled.classifier):
        classifier.requires_grad_(False)
        found = read(classifier, *images(rng))
        assert {name.partition("/")[0] for name in found} == {"adjusted"}


def test_a_class_without_training_images_is_as_rare_as_a_class_of_one():
    rng = np.random.default_rng()
    classifier, pictures = head(rng), images(rng)
    assert read(classifier, *pictures, counts=(60, 20, 5, 0)) == read(classifier, *pictures, counts=(60, 20, 5, 1))


def test_tau_runs_to_2_as_in_kang_et_al_s_code_and_tables_know_the_ends():
    """Check against ``np.linspace(0, 2, 21)`` in facebookresearch/classifier-balancing, tau_norm.py."""
    assert pytest.approx(tuple(np.linspace(0, 2, 21))) == NORMALISED
    assert (min(ADJUSTED), max(ADJUSTED)) == (min(NORMALISED), max(NORMALISED)) == READ_OUT_TAUS
