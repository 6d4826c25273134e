"""The work of a GPU, tested without one: tensors are on ``meta``, which has shapes but no numbers.

Not seen here: kernels, their speed and their arithmetic, autocast, memory.
"""

from collections import Counter
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import EPOCH, SHORT, digits, learner, on_tape
from test_every_method import SETTINGS
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from trainables.data.datasets import facts
from trainables.data.resident import Arrays, LongTailed
from trainables.draws import draws
from trainables.loop import evaluate, train_epoch
from trainables.methods.bbn import Bilateral
from trainables.methods.mixup import Mixup
from trainables.schedule import epochs
from trainables.steps import Steps, kind

aten = torch.ops.aten
# Their results have sizes that the host must wait for.
SIZES = {aten.nonzero.default, aten.masked_select.default, aten.repeat_interleave.Tensor, aten.bincount.default}
SIZES |= {aten._unique2.default, aten.unique_dim.default, aten.equal.default}


class Device(TorchDispatchMode):
    """A mode that notes copies between host and device, and refuses operands from both.

    Attributes:
        read: what the host waited for: operators, as often as they did.
        sent: copies to the device.
        steps: calls of the fused optimiser.
    """

    def __init__(self):
        super().__init__()
        self.read = Counter()
        self.sent = self.steps = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        with self:  # what is made of other operators; in inference mode it arrives here whole
            parts = func.decompose(*args, **kwargs)
        if parts is not NotImplemented:
            return parts
        tensors = [each for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)]
        here, there = ([each for each in tensors if (each.device.type == "meta") == away] for away in (False, True))
        if func in (aten._to_copy.default, aten.copy_.default):
            target = kwargs.get("device") or args[0].device
            if target.type == "meta" and here:
                self.sent += 1
            elif target.type != "meta" and there:
                self.read[str(func)] += 1
                return torch.ones(args[0].shape, dtype=kwargs.get("dtype") or args[0].dtype)
        elif there:
            masks = any(each.dtype == torch.bool for each in tree_leaves(args[1:]) if isinstance(each, Tensor))
            if func is aten._local_scalar_dense.default:
                self.read[str(func)] += 1
                return 1.0 if args[0].dtype.is_floating_point else 1
            assert func not in SIZES, f"{func}: the host waits for a size"
            assert not (func in (aten.index.Tensor, aten.index_put_.default) and masks), f"{func} by a mask"
            strange = [each for each in here if each.ndim or torch.Tag.pointwise not in func.tags]
            assert not strange, f"{func}: operands of shape {[tuple(each.shape) for each in strange]} are on the host"
            if func is aten._fused_sgd_.tensor_lr:
                self.steps += 1
                check_layouts(*args[:3])
                return None
            assert func is not aten._fused_sgd_.default, "the lr is a number of the host's"
        return func(*args, **kwargs)


def check_layouts(*lists):
    """Check the condition of the fused kernel: one dense layout for a weight, its gradient and its momentum."""
    for own in zip(*filter(None, lists), strict=True):
        layouts = {tuple(s for s, n in zip(each.stride(), each.shape, strict=True) if n > 1) for each in own}
        assert len(layouts) == 1 == len({(each.dtype, each.device) for each in own}), layouts


@pytest.fixture
def device(monkeypatch):
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # there is none for ``meta``
    return Device()


# Every kind of step: of each setting's instructions one of a kind.
STEPS = {
    (config.head, kind(epoch)): (name, index)
    for name, config in SETTINGS.items()
    for index, epoch in enumerate(epochs(config))
}


def fifty(crop=1):
    """Return fifty random images of ten classes in the shape of digits, and twenty test images."""
    counts = np.asarray([12, 9, 7, 6, 5, 4, 3, 2, 1, 1])
    images, test = (np.zeros((n, 1, 8, 8), dtype=np.uint8) for n in (50, 20))
    halves = np.arange(20) % 2 == 0
    arrays = Arrays(counts, images, test, np.repeat(np.arange(10), 2), halves)
    return LongTailed(facts("digits"), arrays, crop, torch.device("meta"))


def an_instruction(name, index):
    student, epoch = learner(device="meta", config=SETTINGS[name]), epochs(SETTINGS[name])[index]
    if epoch.trains == "scale":
        student._add_scale()
    return student, replace(epoch, batch_size=16, flip=True)


@pytest.mark.parametrize(("name", "index"), STEPS.values())
def test_the_host_waits_once_an_epoch(name, index, device):
    student, epoch = an_instruction(name, index)
    data, sent = fifty(), []
    for size in (16, 5):
        device.read.clear()
        device.sent = device.steps = 0
        with device:
            train_epoch(student, data, replace(epoch, batch_size=size), index)
        groups = 1 if epoch.decay_bias or epoch.trains == "scale" else 2
        assert device.steps == groups * (50 // size + (50 % size > 0 and not epoch.drop_last))
        assert device.read == {"aten._to_copy.default": 1}
        sent.append(device.sent)
    assert sent[0] == sent[1], "copies to the device do not grow with the steps"
    with device:
        evaluate(student, data, epoch)
    assert device.read.keys() == {"aten._to_copy.default"}
    assert device.read.total() < 10


@pytest.mark.parametrize(("name", "index"), STEPS.values())
def test_a_step_that_is_recorded_does_nothing_on_the_host_and_copies_nothing_to_the_device(name, index, device):
    student, epoch = an_instruction(name, index)
    made = Steps(student, fifty(), epoch, student.obey(epoch, index))
    with device:
        made._resident_step(16)
        device.sent = 0
        made._resident_step(16)
    assert (device.sent, device.read) == (0, {})


@pytest.mark.filterwarnings("ignore:.*copying from a non-meta parameter")  # which the mode counts as sent
def test_a_state_goes_to_the_device_and_back(device):
    student, data = learner(device="meta"), fifty()
    with device:
        train_epoch(student, data, replace(EPOCH, batch_size=16), 0)
        evaluate(student, data, replace(EPOCH, measures=("fit", "events")))
        state = student.state()
        again = learner(device="meta")
        again.load(state)
    assert {tensor.device.type for tensor in state.values()} == {"cpu"}
    assert {tensor.device.type for tensor in again.observed.values()} == {"meta"}


@pytest.mark.parametrize("backbone", ["resnext11", "resnet32"])
@pytest.mark.parametrize("head", [{}, {"loss": "ldam"}, {"mixture": Bilateral(), "first": "IB", "switch": "IB"}])
def test_every_network(backbone, head, device):
    config = replace(SHORT, backbone=backbone, **head)
    with device:
        student = learner(device="meta", config=config)
        train_epoch(student, fifty(), replace(epochs(config)[0], batch_size=32), 0)
        evaluate(student, fifty(), EPOCH)
    assert device.steps == 2


# Faults, planted


PLANTED = {
    "a number is read": lambda steps, _: steps._sums.sum().item(),
    "a tensor is read": lambda steps, _: steps._lr.cpu(),
    "a mask has a size": lambda steps, batch: batch[0][0][batch[0][1] > 3],
    "rows are picked by the host": lambda steps, batch: batch[0][0][torch.arange(2)],
    "an operand is the host's": lambda steps, batch: batch[0][0] + torch.ones(8),
    "a part of it is the host's": lambda steps, _: torch.stack((steps._lr, torch.zeros(()))),
    "something is sent": lambda steps, _: steps._lr.copy_(torch.tensor(0.1)),
}


@pytest.mark.parametrize("fault", PLANTED)
def test_a_fault_in_a_step_is_found(fault, device):
    student = learner(device="meta")
    made = Steps(student, fifty(), EPOCH, student.obey(EPOCH, 0))
    right = made._step

    def wrong(batches):
        PLANTED[fault](made, batches)
        right(batches)

    made._step = wrong
    try:
        with device:
            made._resident_step(16)
    except AssertionError:
        return
    assert device.sent or device.read


def test_an_lr_of_the_host_is_found(device, monkeypatch):
    student = learner(device="meta")
    made = Steps(student, fifty(), EPOCH, student.obey(EPOCH, 0))
    made._lr = 0.1
    with device, pytest.raises(AssertionError, match="lr"):
        made._resident_step(16)


def test_a_share_of_the_host_s_is_found_by_replaying():
    """Nothing is copied then, since a number is an argument of the operator, but replays have the recording's share."""
    epoch, losses = replace(EPOCH, mixture=Mixup(1.0), batch_size=50), []
    for record in (None, on_tape):
        student = learner()
        student.recorder = record
        made = Steps(student, digits(), epoch, student.obey(epoch, 0))
        right = made._mixed

        def wrong(batches, made=made, right=right):
            (mixed,), ((share, labels), (rest, others)) = right(batches)
            with torch.utils._python_dispatch._disable_current_modes():
                shares = [float(each) for each in (share, rest)]
            return (mixed,), [(shares[0], labels), (shares[1], others)]

        made._mixed = wrong
        losses.append(made.run(draws(made.data.counts, epoch, student.origin, 0), epoch)[0].item())
    assert losses[0] != losses[1]
