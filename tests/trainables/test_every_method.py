"""Each method, trained on digits through its switch and its second stage, epoch by epoch."""

from dataclasses import replace
from functools import lru_cache

import pytest
import safetensors.torch
import torch
from helpers import SHORT, digits, learner, moved

from trainables.loop import evaluate, train_epoch
from trainables.method import find
from trainables.methods.switching import weighted_switching
from trainables.references import LOSS, names, reference
from trainables.schedule import epochs

PAPER = replace(SHORT, epochs=4, milestones=(1,), warmup=1, measures=("fit", "events"))
SWITCH = 2  # m + S


def made(method):
    return find(method)(PAPER)


SETTINGS = {
    "cross-entropy": made("cross_entropy"),
    "focal": made("focal"),
    "cb-focal": made("cb_focal"),
    "cb-focal, sigmoid": replace(made("cb_focal"), loss="sigmoid_focal"),
    "ldam-drw": made("ldam_drw"),
    "ce-drs with replacement": replace(made("ce_drs"), replacement=True),
    "crt": made("crt"),
    "crt after ldam": replace(made("ldam_drw"), retrain="CB"),
    "lws": made("lws"),
    "bbn": made("bbn"),
    "bbn, drop_last": replace(made("bbn"), drop_last=True, nesterov=True),
    "switching": made("switching"),
    "irregularity": weighted_switching(PAPER, tuple(range(1, 11)), "rank"),
    "logit adjustment": made("logit_adjusted"),
    "label-aware smoothing": made("label_aware_smoothing"),
    "mixup": made("mixup_switching"),
    "fixed backbone": replace(PAPER, joint=False),
    "fixed backbone, new classifier": replace(PAPER, joint=False, reinitialise=True),
    "new classifier": replace(PAPER, reinitialise=True),
}


@lru_cache(maxsize=1)
def trained(name):
    """Return each epoch's instruction, the state before and after it as a file's bytes, and its measures."""
    student = learner(config=SETTINGS[name])
    state, found = safetensors.torch.save(student.state()), []
    for index, epoch in enumerate(epochs(SETTINGS[name])):
        measures = train_epoch(student, digits(), epoch, index) | evaluate(student, digits(), epoch)
        before, state = state, safetensors.torch.save(student.state())
        found.append((epoch, before, state, measures))
    return found


@pytest.fixture(params=SETTINGS, scope="module")
def name(request):
    """Return the name of a setting; its tests run one after the other."""
    return request.param


def below(prefix, state):
    return {key.removeprefix(prefix): tensor for key, tensor in state.items() if key.startswith(prefix)}


def test_an_epoch_changes_what_its_instruction_trains_and_nothing_else(name):
    for index, (epoch, *states, _) in enumerate(trained(name)):
        before, after = map(safetensors.torch.load, states)
        parameters = below("momentum.", after).keys()
        may = {
            "all": parameters,
            "classifier": {key for key in parameters if key.startswith("classifier.")},
            "scale": {"classifier.scale"},
        }[epoch.trains]
        old, new = below("network.", before), below("network.", after)
        if epoch.reinitialise == "scale":
            old["classifier.scale"] = torch.ones(10)
        changed = moved(old, new)
        # Under α = 1 the second branch has no gradient: its weights decay, and what is 0 stays 0.
        must = {key for key in may if new[key].ndim > 1 or key.startswith("classifier.")}
        assert must <= changed & parameters <= may, (index, epoch)
        assert {key for key in new if "running_" in key} <= changed
        old, new = below("momentum.", before), below("momentum.", after)
        if epoch.fresh_optimizer:
            assert not any(new[key].any() for key in parameters - may)
        else:
            assert not moved(old, new) - may


def test_a_replicate_taken_up_after_any_epoch_has_the_same_bits(name):
    for index, (epoch, before, after, measures) in enumerate(trained(name)):
        student = learner(config=SETTINGS[name])
        if index:
            student.load(safetensors.torch.load(before))
        again = train_epoch(student, digits(), epoch, index) | evaluate(student, digits(), epoch)
        assert again == measures, index
        assert safetensors.torch.save(student.state()) == after, index


def test_the_settings_have_what_an_instruction_may_ask_for():
    every = [(index, epoch) for config in SETTINGS.values() for index, epoch in enumerate(epochs(config))]
    assert {(index >= SWITCH, reference(epoch.loss)) for index, epoch in every} >= {
        (after, loss) for after in (False, True) for loss in ("cross_entropy", "focal", "sigmoid_focal", "ldam")
    }
    for field, values in {
        "trains": {"all", "classifier", "scale"},
        "reinitialise": {"nothing", "classifier", "scale"},
        "fresh_optimizer": {True, False},
        "decay_bias": {True, False},
        "drop_last": {True, False},
        "replacement": {True, False},
    }.items():
        assert {getattr(epoch, field) for _, epoch in every} == values
    assert {reference(epoch.loss) for _, epoch in every} == set(names(LOSS))
    mixtures = {epoch.mixture and reference(epoch.mixture) for _, epoch in every}
    assert mixtures == {None, "mixup", "trainables.methods.bbn:Bilateral"}
