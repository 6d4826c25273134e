"""Recorded steps, with a stand-in for the recording (`tape`): a replay has the bits of the direct call."""

import logging
from dataclasses import replace

import pytest
import safetensors.torch
import torch
from helpers import EPOCH, SHORT, digits, learner, on_tape, train
from test_every_method import SETTINGS

from study.machine import Machine
from trainables import loop, recording, steps
from trainables.data.loading import load
from trainables.learner import Learner
from trainables.losses.focal import Focal
from trainables.methods.bbn import Bilateral
from trainables.methods.mixup import Mixup
from trainables.origins import origin
from trainables.recording import WARM, Replayed
from trainables.schedule import epochs


def recording_learner(**settings):
    student = learner(**settings)
    student.recorder = on_tape
    return student


def recorded(student):
    return sum(each.step.recorded for each in student.steps.values())


# What is trained


@pytest.mark.parametrize(
    ("name", "precision"),
    [*((name, "fp32") for name in SETTINGS), *((name, "bf16") for name in ("switching", "bbn", "mixup"))],
)
def test_every_method_has_the_bits_of_its_steps_as_they_are_written(name, precision):
    recipe = epochs(SETTINGS[name])
    student = recording_learner(precision=precision, config=SETTINGS[name])
    assert train(student, recipe) == train(learner(precision=precision, config=SETTINGS[name]), recipe)
    assert recorded(student) >= 1


@pytest.mark.parametrize("backbone", ["resnext11", "resnet32"])
def test_so_has_every_network(backbone):
    config = replace(SHORT, backbone=backbone, batch_size=50)
    student = recording_learner(config=config)
    assert train(student, [EPOCH] * 2) == train(learner(config=config), [EPOCH] * 2)
    assert recorded(student) == 1


def test_epochs_that_differ_in_what_fills_tensors_share_a_recording_a_batch_size():
    recipe = [
        EPOCH,
        replace(EPOCH, lr=0.1, sampler=-1.0),
        replace(EPOCH, sampler=0.0, replacement=True, drop_last=True),
        replace(EPOCH, sampler=(0.0, *range(1, 10)), measures=("fit",)),
        replace(EPOCH, fresh_optimizer=True),
        replace(EPOCH, reinitialise="classifier"),
        EPOCH,
    ]
    student = recording_learner()
    assert train(student, recipe) == train(learner(), recipe)
    assert len(student.steps) == 1
    assert recorded(student) == 2  # 64 images, and the last 22


@pytest.mark.parametrize("a", [0.2, 1.0])
def test_shares_that_are_drawn_anew_in_every_step_are_no_part_of_a_recording(a):
    recipe = [replace(EPOCH, mixture=Mixup(a))] * 3
    assert train(recording_learner(), recipe) == train(learner(), recipe)


@pytest.mark.parametrize("mixtures", [(Mixup(0.2), Mixup(1.0)), (Bilateral(0.9), Bilateral(0.3))])
def test_epochs_that_differ_in_their_shares_only_share_a_recording(mixtures):
    config = replace(SHORT, first="IB", switch="IB", mixture=mixtures[0])
    recipe = [replace(EPOCH, mixture=mixture) for mixture in mixtures * 2]
    student = recording_learner(config=config)
    assert train(student, recipe) == train(learner(config=config), recipe)
    assert len(student.steps) == 1


@pytest.mark.parametrize(
    "other",
    [
        {"momentum": 0.5},
        {"nesterov": True},
        {"weight_decay": 0.1},
        {"decay_bias": False},
        {"flip": True},
        {"batch_size": 50},
        {"loss": Focal(1.0)},
        {"effective_number": 0.9},
        {"mixture": Mixup(1.0)},
        {"trains": "classifier"},
        {"batch_norm": "frozen"},
    ],
    ids=str,
)
def test_epochs_that_differ_in_the_step_itself_have_recordings_of_their_own(other):
    recipe = [EPOCH, replace(EPOCH, **other), EPOCH, replace(EPOCH, **other)]
    student = recording_learner()
    assert train(student, recipe) == train(learner(), recipe)
    assert len(student.steps) == 2


def test_the_recordings_that_were_not_used_for_longest_make_room(monkeypatch):
    monkeypatch.setattr(steps, "KEPT", 2)
    recipe = [replace(EPOCH, momentum=momentum) for momentum in (0.1, 0.2, 0.1, 0.3)]
    student, made = recording_learner(), []
    for index, epoch in enumerate(recipe):
        train(student, recipe[: index + 1], index)
        made.append(student.steps[steps.kind(epoch)])
    assert [each.momentum for each in student.steps] == [0.1, 0.3]
    assert made[0] is made[2]
    assert not made[1].step.recorded, "its memory is free, whoever still holds it"
    assert made[3].step.recorded


def test_a_learner_of_several_methods_has_the_bits_of_one_that_keeps_none(monkeypatch):
    monkeypatch.setattr(steps, "KEPT", 2)
    recipe = [replace(EPOCH, momentum=momentum) for momentum in (0.1, 0.2, 0.3, 0.1, 0.3)]
    assert train(recording_learner(), recipe) == train(learner(), recipe)


# One stage after the other, in one process


def test_the_next_stage_s_state_goes_into_what_is_recorded_and_nothing_stays_of_the_one_before():
    recipe = [replace(EPOCH, measures=("fit", "events"))] * 4  # of which each has one smaller batch
    student = recording_learner(seed=1)
    train(student, recipe)
    before = recorded(student)
    other = learner(seed=2)
    assert student.fits(other.origin)
    student.begin(other.origin)
    assert train(student, recipe) == train(other, recipe)
    assert recorded(student) == before == 2  # none was made again


def test_a_stage_that_begins_with_a_stored_state():
    history, rest = epochs(SHORT)[:2], epochs(SHORT)
    (*_, stored), _ = train(learner(seed=2), history)
    student, fresh = recording_learner(seed=1), learner(seed=2)
    train(student, [replace(EPOCH, measures=("events",))] * 3)
    student.begin(fresh.origin)
    for each in (student, fresh):
        each.load(safetensors.torch.load(stored))
    assert train(student, rest, 2) == train(fresh, rest, 2)


def test_a_scale_is_another_network_s_recording():
    scaled = [replace(EPOCH, trains="scale", reinitialise="scale"), replace(EPOCH, trains="scale")]
    student = recording_learner(seed=1)
    train(student, [EPOCH, *scaled, EPOCH])
    assert "classifier.scale" in student.momentum
    other = learner(seed=2)
    student.begin(other.origin)
    recipe = [EPOCH, *scaled, scaled[0], EPOCH]
    assert train(student, recipe) == train(other, recipe)


def test_other_data_are_recorded_anew():
    student, split = recording_learner(), replace(SHORT, subset_seed=7)
    train(student, [EPOCH] * 2)
    other = Learner(origin(split, Machine("cpu", 1)))
    data = load(other.origin, EPOCH, None)
    assert data is not digits()
    student.begin(other.origin)
    assert train(student, [EPOCH] * 2, data=data) == train(other, [EPOCH] * 2, data=data)


@pytest.mark.parametrize(
    "other", [{"backbone": "resnext11"}, {"loss": "ldam"}, {"dataset": "cifar10"}, {"precision": "bf16"}], ids=str
)
def test_other_shapes_or_arithmetic_do_not_fit(other):
    assert not learner().fits(origin(replace(SHORT, **other), Machine("cpu", 1)))


def test_what_differs_in_values_only_fits():
    seeds = replace(SHORT, seed=1, split_seed=2, subset_seed=3, imbalance=10.0)
    assert learner().fits(origin(seeds, Machine("cpu", 1)))


# A recording by itself


def test_a_step_is_called_three_times_then_recorded_then_replayed_for_each_size():
    calls, replays = [], []

    def record(act):
        act()
        return lambda: replays.append("again")

    step = Replayed(calls.append, record)
    for size in [4, 4, 2, 4, 4, 4, 2, 2, 2, 2]:
        step(size)
    assert calls == [4, 4, 2, 4, 4, 2, 2, 2]
    assert replays == ["again", "again"]
    assert (step.recorded, WARM) == (2, 3)


def test_what_cannot_be_recorded_is_called_as_it_is_written_and_said_once(caplog):
    calls, attempts = [], []

    def record(act):
        attempts.append(act)
        raise RuntimeError("operation not permitted when stream is capturing\nmore of it")

    step = Replayed(calls.append, record)
    with caplog.at_level(logging.WARNING, recording.__name__):
        for _ in range(10):
            step(4)
        step(2)
    assert calls == [4] * 10 + [2]
    assert len(attempts) == 1
    assert [each.message for each in caplog.records] == [
        "steps cannot be recorded and are launched one by one: operation not permitted when stream is capturing"
    ]


def test_the_stand_in_shows_what_a_recording_would_get_wrong():
    x, total, host = torch.zeros(1), torch.zeros(1), {"lr": 1.0}

    def act():
        total.add_(x * host["lr"] + x.sum().item())

    again = on_tape(act)
    x += 1
    host["lr"] = 5.0
    again()
    assert total.item() == 1  # the number that was read, 0, and the lr, 1, are those of the recording


def test_without_a_gpu_nothing_is_recorded():
    student = Learner(learner().origin, recorded=True)
    assert student.recorder is None
    loop.train_epoch(student, digits(), EPOCH, 0)
    assert not recorded(student)
