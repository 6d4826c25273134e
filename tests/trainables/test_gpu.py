"""Tests that need a GPU: recorded steps, agreement with a CPU, and the handling of GPU faults."""

import json
import logging
import math
import multiprocessing
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import safetensors.torch
import torch
from helpers import EPOCH, SHORT, digits, learner, train
from test_every_method import SETTINGS
from test_trainable import REQUESTED

from study.execution.job import Job
from study.machine import Machine
from study.planning import tree
from study.planning.stored import Resources
from study.store.states import Store
from trainables import ranks, recording, work
from trainables.data import loading as data_module
from trainables.learner import Learner
from trainables.loop import evaluate
from trainables.methods.bbn import bbn
from trainables.methods.mixup import Mixup
from trainables.origins import origin
from trainables.ranks import Ranks
from trainables.schedule import epochs
from trainables.steps import Steps
from trainables.trainable import StageTrainable

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]

CUDA = Machine("cuda", 1)


def on_gpu(config=SHORT, precision="bf16", seed=0, recorded=True):
    return Learner(origin(replace(config, seed=seed, precision=precision), CUDA), recorded=recorded)


def largest_difference(one, other):
    pairs = [(safetensors.torch.load(a), safetensors.torch.load(b)) for a, b in zip(one, other, strict=True)]
    return max((a[name].double() - b[name].double()).abs().max().item() for a, b in pairs for name in a)


def assert_same(one, other):
    """Check that states have equal bits, and that measures agree up to rounding, since a GPU adds in any order."""
    assert one[0] == other[0]
    assert_alike(one[1], other[1])


def assert_alike(measures, others):
    for own, theirs in zip(measures, others, strict=True):
        assert own.keys() == theirs.keys()
        for name, value in own.items():
            assert theirs[name] == (value if isinstance(value, list) else pytest.approx(value, rel=1e-12)), name


# Recorded steps


@pytest.mark.parametrize(
    ("name", "precision"),
    [*((name, "bf16") for name in SETTINGS), ("switching", "fp32"), ("switching", "tf32"), ("bbn", "fp32")],
)
def test_recorded_steps_agree_with_those_launched_one_by_one(name, precision):
    recipe = [each for each in epochs(SETTINGS[name]) for _ in range(3)]
    (eager, measures), (again, _), (replayed, others) = (
        train(on_gpu(SETTINGS[name], precision, recorded=recorded), recipe) for recorded in (False, False, True)
    )
    spread = largest_difference(eager, again)
    assert largest_difference(eager, replayed) <= 3 * spread  # so bit for bit where two eager ones are
    if not spread:
        assert_alike(others, measures)


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
def test_fifty_steps_of_resnet32_repeat_their_bits_recorded_or_not(precision):
    config = replace(SHORT, backbone="resnet32")
    states = [train(on_gpu(config, precision, recorded=recorded), [EPOCH] * 9)[0] for recorded in (False, False, True)]
    assert states[0] == states[1] == states[2]


def test_a_stage_is_taken_up_in_recorded_tensors():
    recipe, student, fresh = epochs(SHORT), on_gpu(seed=1), on_gpu(seed=2)
    (*_, stored), _ = train(on_gpu(seed=2), recipe[:2])
    train(student, [EPOCH] * 4)
    recordings = sum(steps.step.recorded for steps in student.steps.values())
    assert recordings == 2
    student.begin(fresh.origin)
    for each in (student, fresh):
        each.load(safetensors.torch.load(stored))
    assert_same(train(student, recipe, 2), train(fresh, recipe, 2))
    assert sum(steps.step.recorded for steps in student.steps.values()) == recordings


def test_data_after_data_are_recorded_anew():
    student, seeds = on_gpu(), [replace(SHORT, subset_seed=seed) for seed in range(4)]
    for config in seeds:
        fresh = on_gpu(config)
        data = data_module.load(fresh.origin, EPOCH, None)
        student.begin(fresh.origin)
        assert_same(train(student, [EPOCH] * 3, data=data), train(fresh, [EPOCH] * 3, data=data))


def test_a_step_that_waits_for_the_device_is_not_recorded_but_goes_on(caplog, monkeypatch):
    right = Steps._step

    def wrong(self, batches):
        right(self, batches)
        self._sums.sum().item()

    expected, student = train(on_gpu(recorded=False), [EPOCH] * 3), on_gpu()
    monkeypatch.setattr(Steps, "_step", wrong)
    with caplog.at_level(logging.WARNING, recording.__name__):
        assert_same(train(student, [EPOCH] * 3), expected)
    assert len(caplog.records) == 1
    assert "launched one by one" in caplog.text
    monkeypatch.undo()
    assert_same(train(on_gpu(), [EPOCH] * 3), expected)  # and others are recorded


# Agreement


@pytest.mark.parametrize("config", [SHORT, bbn(SHORT), replace(SHORT, mixture=Mixup(0.2), loss="ldam", beta=0.99)])
def test_the_first_epoch_agrees_with_a_cpu_s(config):
    recipe = epochs(config)[:2]
    _, on_cpu = train(learner(config=config), recipe)
    _, there = train(on_gpu(config, "fp32"), recipe)
    assert there[0]["train/loss"] == pytest.approx(on_cpu[0]["train/loss"], rel=1e-3)
    assert all(math.isfinite(value) for value in (there[1]["train/loss"], there[1]["test/loss"]))


@pytest.mark.parametrize("precision", ["tf32", "bf16"])
def test_other_precisions_train_to_about_the_same_loss(precision):
    (_, [exact]), (_, [rounded]) = (train(on_gpu(precision=each), [EPOCH]) for each in ("fp32", precision))
    assert rounded["train/loss"] == pytest.approx(exact["train/loss"], rel=0.1)


def test_a_state_of_a_gpu_is_a_state_of_a_cpu():
    student = on_gpu(precision="fp32")
    train(student, [EPOCH])
    there = evaluate(student, digits("cuda"), EPOCH)
    here = learner()
    here.load(safetensors.torch.load(safetensors.torch.save(student.state())))
    assert evaluate(here, digits(), EPOCH)["test/loss"] == pytest.approx(there["test/loss"], rel=1e-4)


# Processes and faults


def a_stage():
    config = replace(SHORT, epochs=4, precision="bf16")
    (stage,) = tree.stages([work.resolve(config.to_json(), 0, CUDA)], set())
    return stage


def stage_in_a_process(folder, answers):
    Store(folder)
    made = StageTrainable.__new__(StageTrainable)
    made.setup({"stage": a_stage(), "saved": ""}, job=Job("mine", folder, Resources(gpus=0.5, gpu_steps="recorded")))
    while not (result := made.step())["done"]:
        pass
    answers.put(result)


def test_two_workers_on_one_gpu_train_the_same_state(tmp_path):
    context = multiprocessing.get_context("spawn")
    answers, stores = context.Queue(), [str(tmp_path / name) for name in "ab"]
    workers = [context.Process(target=stage_in_a_process, args=(folder, answers)) for folder in stores]
    for worker in workers:
        worker.start()
    results = [answers.get(timeout=120) for _ in workers]
    for worker in workers:
        worker.join(30)
    key = a_stage().key
    assert [result["saved"] for result in results] == [key, key]
    one, other = (Store(folder).load(key) for folder in stores)
    assert one[1] == other[1]
    assert_alike(one[0]["measures"], other[0]["measures"])


LOST = """
import json, sys, torch
sys.path[:0] = {path!r}
from study.execution.job import Job
from study.planning.stored import Resources
from study.store.states import Store
from trainables.trainable import StageTrainable
from test_gpu import a_stage
Store({folder!r})
made = StageTrainable.__new__(StageTrainable)
made.setup({{"stage": a_stage(), "saved": ""}}, job=Job("mine", {folder!r}, Resources(gpus=1.0, gpu_steps="recorded")))
from trainables import loop
def wrong(learner, data, epoch, index):
    {fault}
loop.train_epoch = wrong
print(json.dumps(made.step()))
"""


def stage_with(fault, folder):
    """Return the report of a worker whose training runs a fault, in another process, since its context may be lost."""
    here = Path(__file__).resolve()
    path = [str(here.parent), str(here.parents[1]), str(here.parents[2])]
    code = LOST.format(path=path, folder=str(folder), fault=fault)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


def test_a_lost_context_is_a_lost_process(tmp_path):
    result = stage_with("torch.zeros(3, device='cuda')[torch.tensor([7], device='cuda')].sum().item()", tmp_path)
    assert not result["done"]
    assert "failure" not in result
    assert "CUDA error" in result["lost"]


def test_too_little_memory_is_said_in_a_line_and_not_for_good(tmp_path):
    result = stage_with("torch.empty(1 << 50, dtype=torch.uint8, device='cuda')", tmp_path)
    assert result["done"]
    failure = result["failure"]
    assert not failure["for_good"]
    assert failure["reason"].startswith(REQUESTED.format("1048576.00 GiB"))
    assert "--gpus-per-trial" in failure["reason"]


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="fewer than two GPUs")
def test_two_ranks_train_over_nccl():
    context = multiprocessing.get_context("spawn")
    answers, port = context.Queue(), context.Queue()
    processes = [context.Process(target=rank_on_its_gpu, args=(rank, port, answers)) for rank in range(2)]
    for process in processes:
        process.start()
    (one, other) = (answers.get(timeout=120) for _ in processes)
    assert one == other
    assert math.isfinite(one[-1]["train/loss"])


def rank_on_its_gpu(rank, port, answers):
    torch.cuda.set_device(rank)
    own = Ranks(rank, 2)
    place = partial(ranks.meet, "127.0.0.1", 2)
    if rank == 0:
        store = place()
        port.put(store.port)
        ranks.join(own, "cuda", "127.0.0.1", lambda: store)
    else:
        ranks.join(own, "cuda", "127.0.0.1", partial(place, port.get(timeout=60)))
    start = origin(replace(SHORT, precision="fp32"), Machine("cuda", 1, ranks=2))
    _, measures = train(Learner(start, own), [EPOCH] * 2, data=data_module.load(start, EPOCH, None, 1, own))
    answers.put(measures)
    ranks.leave()
