"""The README shows what was measured; each benchmark runs; what they compare ours with does the same work."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from benchmarks.kills import write_space

BENCHMARKS = Path(__file__).parent / "benchmarks"
TINY = {
    "sampler": ["--epochs", "1"],
    "loader": ["--images", "200"],
    "epoch": ["--images", "130"],
    "step": ["--steps", "2"],
    "tracking": ["--trials", "1", "--epochs", "4"],
    "scale": ["--counts", "2"],
    "table": ["--epochs", "2", "--space", "SPACE"],
    "cost_table9": ["--space", "SPACE"],
    "trainable_forms": ["--stages", "2"],
}


def test_the_readme_shows_the_results() -> None:
    subprocess.run([sys.executable, BENCHMARKS / "readme.py", "--check"], check=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", TINY)
def test_a_benchmark_runs_and_its_result_has_rows(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "result.json"
    space = write_space(tmp_path, epochs=4)
    tiny = [space if word == "SPACE" else word for word in TINY[name]]
    command = [sys.executable, BENCHMARKS / f"{name}.py", "--repeats", "1", "--out", out, *tiny]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
    monkeypatch.syspath_prepend(BENCHMARKS)
    import readme

    rows = list(getattr(readme, name)(json.loads(out.read_text())))
    assert rows
    assert all(result for _, _, result in rows)


@pytest.mark.parametrize("wrong", [["--repeats", "0"], ["--out", "/nowhere/result.json"]])
def test_a_mistake_is_refused_before_anything_is_measured(wrong: list[str]) -> None:
    done = subprocess.run([sys.executable, BENCHMARKS / "loader.py", *wrong], capture_output=True, text=True)
    assert done.returncode == 2
    assert "would do" in done.stderr


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
