"""What the tests of training share: short recipes on digits, a learner, and its states."""

from dataclasses import replace

import pytest
import safetensors.torch
import torch

from search_spaces.shared.protocol import base
from study.machine import Machine
from trainables.data.loading import load
from trainables.draws import draws
from trainables.loop import Learner, evaluate, train_epoch
from trainables.origins import origin
from trainables.recipe import Epoch
from trainables.steps import Steps

CUDA = pytest.param(
    "cuda",
    marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")],
)
# Warm-up, decay at 2, the switch at 3; a second stage, where a method has one, of two epochs.
SHORT = replace(base("digits"), epochs=5, milestones=(2,), S=1, warmup=2, retrain_epochs=2)
EPOCH = Epoch(lr=0.05, crop=1, flip=False)


def learner(seed=0, precision="fp32", device="cpu", config=SHORT):
    return Learner(origin(replace(config, seed=seed, precision=precision), Machine(device, 1)))


def digits(device="cpu"):
    return load(origin(SHORT, Machine(device, 1)), EPOCH, None)


def train(student, epochs, first=0, data=None):
    """Train from index `first` on; the state after each epoch as a file's bytes, and its measures."""
    data = digits(student.origin.device) if data is None else data
    states, measures = [], []
    for index, epoch in enumerate(epochs[first:], first):
        measures.append(train_epoch(student, data, epoch, index) | evaluate(student, data, epoch))
        states.append(safetensors.torch.save(student.state()))
    return states, measures


def steps_of(student, data, epoch, index=0):
    """What each step of an epoch would give the network, and its labels with how much they count; none is trained."""
    made, seen = Steps(student, data, epoch, student.obey(epoch, index)), []

    def note(batches):
        seen.append(made._mixed(batches))
        made._number += 1

    made._step = note
    made.run(draws(data.counts, epoch, student.origin, index), epoch)
    return seen


def snapshot(student):
    return {name: tensor.clone() for name, tensor in student.state().items()}


def moved(before, after):
    """The tensors that an epoch changed."""
    return {name for name in before if not torch.equal(before[name], after[name])}
