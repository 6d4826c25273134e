"""The measures of the loop after an epoch, and its observations of single images."""

import copy
import math
from dataclasses import replace
from itertools import pairwise

import pytest
import safetensors.torch
import torch
from helpers import EPOCH, digits, learner, moved, snapshot, train

from trainables.loop import Diverged, evaluate, train_epoch
from trainables.readouts import ADJUSTED

EVENTS = replace(EPOCH, measures=("fit", "events"))
KINDS = {"loss", "top1", "worst", "ece", "class_accuracy", "many", "medium", "few"}
READ_OUTS = {
    f"{name}/{kind}" for name in ("adjusted", "tau_normalised") for kind in KINDS - {"loss", "ece", "class_accuracy"}
}
READ_OUTS |= {"adjusted/tau", "tau_normalised/tau"}


def the_test_set(data):
    """Return the test images in one batch, their labels, and which are for selection."""
    images, labels, part = map(torch.cat, zip(*data.test_batches(), strict=True))
    return images, labels, part == 1


def logits_of(student, images):
    student.network.eval()
    with torch.no_grad():
        return student.network(images)


def loss_and_top1(student, images, labels):
    """Return the measures by their formulae, in one batch."""
    logits = logits_of(student, images)
    right = logits.gather(1, labels[:, None])[:, 0]
    hits = sum(row.argmax() == label for row, label in zip(logits, labels, strict=True))
    return [(logits.exp().sum(1).log() - right).mean().item(), 100 * hits.item() / len(labels)]


# The fixed set


def test_val_and_holdout_are_the_halves_of_test():
    student, data = learner(), digits()
    train(student, [EPOCH] * 3)
    measures = evaluate(student, data, EPOCH)
    images, labels, val = the_test_set(data)
    halves = {"val": val, "holdout": ~val, "test": val | ~val}
    for part, chosen in halves.items():
        expected = loss_and_top1(student, images[chosen], labels[chosen])
        assert [measures[f"{part}/loss"], measures[f"{part}/top1"]] == pytest.approx(expected, rel=1e-4)
    whole = {f"{part}/{kind}" for part in halves for kind in KINDS}
    assert measures.keys() == (whole - {"val/class_accuracy", "holdout/class_accuracy"}) | READ_OUTS


@pytest.mark.parametrize("selection", ["list", "train"])
def test_images_for_selection_that_are_none_of_the_test_set_are_not_in_test(selection):
    student, data = learner(), copy.copy(digits())
    data.facts = copy.copy(data.facts)
    data.facts.selection = selection
    measures = evaluate(student, data, EPOCH)
    for kind in KINDS - {"class_accuracy"}:
        assert measures[f"test/{kind}"] == measures[f"holdout/{kind}"]
    assert measures["val/loss"] != measures["test/loss"]
    images, labels, val = the_test_set(data)
    observed = student.state()
    assert observed["observed.test_labels"].tolist() == labels[~val].tolist()
    assert observed["observed.predictions"].tolist() == logits_of(student, images).argmax(1)[~val].tolist()


def test_logit_adjustment_is_read_out_with_the_tau_that_is_best_on_val():
    student, data = learner(), digits()
    train(student, [EPOCH] * 6)
    images, labels, val = the_test_set(data)
    logits, share = logits_of(student, images), torch.tensor(data.counts / data.counts.sum())
    correct = [(logits - tau * share.log()).argmax(1) == labels for tau in ADJUSTED]
    on_val = [right[val].sum().item() for right in correct]
    best = on_val.index(max(on_val))
    measures = evaluate(student, data, EPOCH)
    assert best > 0  # a network trained on long-tailed data gains by it
    assert measures["adjusted/tau"] == ADJUSTED[best]
    assert measures["adjusted/top1"] == pytest.approx(100 * correct[best][~val].double().mean().item())


def test_measuring_changes_nothing_that_is_trained():
    student = learner()
    train_epoch(student, digits(), EPOCH, 0)
    before = snapshot(student)
    evaluate(student, digits(), EVENTS)
    assert not moved(before, student.state())


def test_lost_weights_are_noticed_when_they_are_measured():
    student = learner()
    student.network.classifier.weight.data.fill_(math.nan)
    with pytest.raises(Diverged, match="test loss is nan"):
        evaluate(student, digits(), EPOCH)


# The training set


@pytest.mark.parametrize("asked", [("fit",), ("events",), ("fit", "events")])
def test_the_training_set_is_measured_un_augmented_when_asked_for(asked):
    student, data = learner(), digits()
    train(student, [EPOCH] * 2)
    fixed, more = evaluate(student, data, EPOCH), evaluate(student, data, replace(EPOCH, measures=asked))
    extra = {name: value for name, value in more.items() if name not in fixed}
    assert {name: more[name] for name in fixed} == fixed
    assert extra.keys() == {f"fit/{kind}" for kind in KINDS | {"class_loss"}}
    images, labels = map(torch.cat, zip(*data.fit_batches(), strict=True))
    assert [extra["fit/loss"], extra["fit/top1"]] == pytest.approx(loss_and_top1(student, images, labels), rel=1e-4)
    by_class = [loss_and_top1(student, images[labels == label], labels[labels == label]) for label in range(10)]
    assert extra["fit/class_loss"] == pytest.approx([loss for loss, _ in by_class], rel=1e-4, abs=1e-6)
    assert extra["fit/class_accuracy"] == pytest.approx([top1 for _, top1 in by_class], abs=1e-4)
    assert (data.counts @ extra["fit/class_loss"]) / data.counts.sum() == pytest.approx(extra["fit/loss"], abs=1e-6)


# Single images


def test_predictions_are_what_has_the_largest_logit_in_the_order_of_the_test_set():
    student, data = learner(), digits()
    train(student, [EPOCH] * 2)
    evaluate(student, data, EPOCH)
    images, labels, _ = the_test_set(data)
    state = student.state()
    assert state["observed.predictions"].tolist() == logits_of(student, images).argmax(1).tolist()
    assert state["observed.test_labels"].tolist() == labels.tolist()
    assert "observed.learned" not in state


def correctness(student, data):
    images, labels = map(torch.cat, zip(*data.fit_batches(), strict=True))
    return [int(row.argmax() == label) for row, label in zip(logits_of(student, images), labels, strict=True)]


def test_events_are_counted_image_by_image_from_epoch_to_epoch_and_across_a_state():
    student, data = learner(), digits()
    history = [[0] * len(data.labels)]  # acc_0 = 0
    for index in range(6):
        if index in (2, 3):  # a stop after this epoch, another right after the first one since
            states = safetensors.torch.save(student.state())
            student = learner()
            student.load(safetensors.torch.load(states))
        train_epoch(student, data, EVENTS, index)
        evaluate(student, data, EVENTS)
        history.append(correctness(student, data))
        images = list(zip(*history, strict=True))
        learned = [sum(image) for image in images]  # eq. 17
        forgotten = [sum(a > b for a, b in pairwise(image)) for image in images]  # eq. 18
        assert student.state()["observed.learned"].tolist() == learned
        assert student.state()["observed.forgotten"].tolist() == forgotten
    assert 0 < sum(forgotten) < sum(learned)


def test_without_events_nothing_is_observed_of_training_images():
    student = learner()
    evaluate(student, digits(), replace(EPOCH, measures=("fit",)))
    assert {name for name in student.state() if name.startswith("observed.")} == {
        "observed.predictions",
        "observed.test_labels",
    }
