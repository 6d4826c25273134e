"""The benchmarks' page shows what was measured; each benchmark runs; each peer does the same work as ours."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from argparse import Namespace
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from helpers import write_space

BENCHMARKS = Path(__file__).parent / "benchmarks"
TINY = {
    "sampler": ["--epochs", "1"],
    "loader": ["--images", "200"],
    "epoch": ["--images", "130"],
    "step": ["--steps", "2", "networks", "floors"],  # the other parts have a test of their own
    "kernels": ["--steps", "1", "--device", "cpu"],
    "tracking": ["--trials", "1", "--epochs", "4"],
    "scale": ["--counts", "2"],
    "table": ["--epochs", "2", "--space", "SPACE", "--plain=--reuse-actors"],
    "cost_table9": ["--space", "SPACE", "--workers", "1"],
    "crowd": ["--workers", "2", "--rounds", "2", "--sleep", "0.1"],
    "thousand": ["--trials", "2"],
    "trainable_forms": ["--stages", "2"],
}


def test_the_page_shows_the_results() -> None:
    subprocess.run([sys.executable, BENCHMARKS / "readme.py", "--check"], check=True)


def test_the_page_on_gpus_quotes_what_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    import readme

    networks = json.loads((BENCHMARKS / "results" / "step_gpu.json").read_text())["networks"]
    measured = {readme.between(times) for network in networks.values() for times in network["ms"].values()}
    _, _, page = (BENCHMARKS.parents[1] / "trainables" / "README.md").read_text(encoding="utf-8").partition("## GPUs")
    quoted = set(re.findall(r"[\d.]+ \([\d.]+ to [\d.]+\)", page))
    assert len(quoted) >= 8
    assert quoted <= measured


@pytest.mark.slow
@pytest.mark.parametrize("name", TINY)
def test_a_benchmark_runs_and_its_result_has_rows(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "result.json"
    space = write_space(tmp_path, cells=(("IB", "IB"),))
    tiny = [space if word == "SPACE" else word for word in TINY[name]]
    command = [sys.executable, BENCHMARKS / f"{name}.py", "--repeats", "1", "--out", out, *tiny]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
    monkeypatch.syspath_prepend(BENCHMARKS)
    import readme

    rows = list(getattr(readme, name)(json.loads(out.read_text())))
    assert rows
    assert all(result for _, _, result in rows)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["--repeats", "0"], "argument --repeats: must be at least 1 (got 0)"),
        (
            ["--out", "/nowhere/result.json"],
            "argument --out: must be a file in an existing folder (got /nowhere/result.json)",
        ),
    ],
)
def test_a_mistake_is_refused_before_anything_is_measured(wrong: list[str], message: str) -> None:
    done = subprocess.run([sys.executable, BENCHMARKS / "loader.py", *wrong], capture_output=True, text=True)
    assert done.returncode == 2
    assert message in done.stderr


# A GPU's parts, here without one


@pytest.fixture
def step(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The benchmark of a step, its network a small one."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    import step

    monkeypatch.setattr(step, "CIFAR", replace(step.CIFAR, backbone="resnet8"))
    monkeypatch.setattr(sys, "argv", ["step.py"])
    return step


@pytest.mark.slow
def test_everything_that_a_gpu_is_asked_about_a_step_gives_rows(
    step: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import readme
    from measuring import Record

    monkeypatch.setattr(step, "modes", lambda device: ("recorded", "eager"))  # none is recorded: this is a CPU
    monkeypatch.setattr(step, "EPOCH_STEPS", 2)
    monkeypatch.setattr(step, "together", partial(step.together, most=2))
    monkeypatch.setattr(step, "agreement", partial(step.agreement, count=2))
    monkeypatch.setattr(step, "compiled", partial(step.compiled, backend="aot_eager"))
    record = Record(tmp_path / "result.json", {"n": 1, "device": "cpu"})
    parts = [part for part in step.PARTS if part != "processes"]
    step.measure(Namespace(device="cpu", repeats=1, steps=2, parts=parts, compile=True), record)
    assert record.finish() == 0
    found = json.loads((tmp_path / "result.json").read_text())
    assert {f"ours{mode} {kind}" for mode in ("", " recorded") for kind in ("fp32", "bf16")} <= set(
        found["networks"]["ResNet-32, CIFAR"]["ms"]
    )
    agreed = found["agreement"]["fp32"]
    for which in ("deterministic", "not deterministic"):
        assert all(each == {"same_bits": True, "largest_difference": 0.0} for each in agreed[which]["runs"].values())
    assert sum("on one GPU" in what for what, _, _ in readme.step_gpu(found)) == 6


@pytest.mark.slow
def test_processes_train_at_the_same_time(step: ModuleType) -> None:
    found = step.processes({}, "fp32", 1, "cpu", sizes=(1, 2), window=0.5)
    assert [len(found["eager"][k]["steps"]) for k in ("1", "2")] == [1, 2]
    assert found["eager"]["2"]["ms"] > 0


def test_processes_that_do_not_begin_fail_and_none_stays(step: ModuleType) -> None:
    with pytest.raises(AssertionError, match="took too long"):
        step.processes({}, "fp32", 1, "cpu", sizes=(1,), limit=0.1)


def test_a_measurement_that_fails_or_has_no_time_left_loses_no_other(step: ModuleType, tmp_path: Path) -> None:
    from measuring import Record, alternate

    record = Record(tmp_path / "result.json", {"n": 2})
    assert alternate({"one": lambda: 1.0, "broken": lambda: 1 / 0, "two": lambda: 2.0}, 2, record) == {
        "one": [1.0, 1.0],
        "two": [2.0, 2.0],
    }
    record.result["three"] = record.take("three", lambda: 3)
    record._end = 0
    assert record.take("four", lambda: 4) is None
    assert record.finish() == 1
    found = json.loads((tmp_path / "result.json").read_text())
    assert found["three"] == 3
    assert found["skipped"] == {"four": "no time left"}
    assert found["failed"] == {"broken": "ZeroDivisionError: division by zero"}


@pytest.mark.slow
def test_the_call_for_a_gpu_runs_without_one_and_says_what_it_left_out(tmp_path: Path) -> None:
    parts = ["card", "step", "step_mps", "cifar"]
    command = [sys.executable, BENCHMARKS / "gpu.py", "--budget", "300", "--out", tmp_path, "--device", "cpu", "--mps"]
    done = subprocess.run([*command, *parts], capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert [(name, part["exit"]) for name, part in found["parts"].items()] == [("card", 0), ("step", 0)]
    assert found["skipped"] == {
        "recorded steps": "no CUDA device",
        "mps": "no CUDA device",
        "step_mps": "MPS does not run",
        "cifar": "no --data-dir",
    }
    assert found["parts"]["step"]["skipped"]["recorded steps"] == "no CUDA device"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gpu.json", "logs.tgz", "step.json"]


def test_a_part_that_fails_or_finds_no_time_stops_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    import gpu

    def kind(program: str, limit: float) -> gpu.Kind:
        return gpu.Kind(lambda part: part.run(sys.executable, "-c", program), limit)

    acts = {
        "broken": kind("exit(3)", 30),
        "slow": kind("import time; time.sleep(60)", 2),
        "late": kind("", 1),
        "good": kind("print(1)", 30),
    }
    monkeypatch.setattr(gpu, "PARTS", acts)
    monkeypatch.setattr(gpu, "LEAST", 1.5)
    (tmp_path / "logs").mkdir()
    asked = Namespace(parts=list(acts), budget=60, limits={}, out=tmp_path, mps=False)
    call = gpu.Call(asked, "cpu", time.monotonic() + 60, tmp_path)
    gpu.everything(call)
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert {name: part["exit"] for name, part in found["parts"].items()} == {"broken": 1, "slow": 1, "good": 0}
    assert "exit code 3" in found["parts"]["broken"]["error"]
    assert "not done within the part's 2 s" in found["parts"]["slow"]["error"]
    assert set(found["skipped"]) == {"late"}


DEAF = """
import signal, sys, time
left = {hears}
def hear(*_):
    global left
    left -= 1
    if not left:
        sys.exit(130)
signal.signal(signal.SIGINT, hear)
print("ready", flush=True)
while True:
    time.sleep(60)
"""


@pytest.mark.parametrize(
    ("hears", "code", "signals"),
    [(1, 130, ["SIGINT"]), (2, 130, ["SIGINT", "SIGINT"]), (9, -9, ["SIGINT", "SIGINT", "SIGKILL"])],
)
def test_a_run_is_stopped_before_its_part_ends(
    hears: int, code: int, signals: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    import gpu

    monkeypatch.setattr(gpu, "STOPS", ((2.0, signal.SIGINT), (1.0, signal.SIGINT), (0.0, signal.SIGKILL)))
    (tmp_path / "logs").mkdir()
    part = gpu.Part(gpu.Call(Namespace(out=tmp_path), "cpu", 0, tmp_path), "cifar", 2.5, served=False)
    command = [sys.executable, "-c", DEAF.format(hears=hears)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        part.end = time.monotonic() + 2.5
        assert gpu.stopped(process, part) == code
    assert [each.partition(" ")[0] for each in part.figures["signals"]] == signals


def test_the_samplers_draw_each_class_as_often_as_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    import sampler

    from trainables.samplers import Purpose, class_probabilities, epoch_order, generator

    counts = np.array([400, 200, 80, 20])
    ends = np.cumsum(counts)
    for q in sampler.SAMPLERS.values():
        ours = [epoch_order(counts, q, False, generator(0, epoch, Purpose.ORDER)) for epoch in range(20)]
        peers = [
            sampler.weighted(counts, q),
            *(sampler.ClassAware(counts, q, find, counts.sum()) for find in (sampler.bisect.bisect, sampler.linear)),
        ]
        drawn = [np.concatenate(ours), *(np.array([i for _ in range(20) for i in peer]) for peer in peers)]
        for order in drawn:
            share = np.bincount(np.searchsorted(ends, order, side="right"), minlength=4) / len(order)
            # 14,000 draws: five standard errors are below 0.022
            np.testing.assert_allclose(share, class_probabilities(counts, q), atol=0.022)


def test_the_made_class_sizes_are_those_of_the_data_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    import sampler

    known = {"CIFAR-10-LT": (13_996, 10), "ImageNet-LT": (115_846, 1000), "iNaturalist 2018": (437_513, 8142)}
    found = {name: (int(counts.sum()), len(counts)) for name, counts in sampler.sizes().items()}
    assert found == known
    assert all((np.diff(counts) <= 0).all() for counts in sampler.sizes().values())
