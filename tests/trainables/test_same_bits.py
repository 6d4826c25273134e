"""A replicate has the same bits, whether trained whole, resumed at any epoch, or started from another's prefix."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from study.execution.job import Job
from study.machine import Machine
from study.planning import tree
from study.planning.stored import Resources
from study.space import Resolved
from study.store.states import Store
from trainables import work
from trainables.config import Config
from trainables.method import Method
from trainables.methods.cross_entropy import cross_entropy
from trainables.methods.crt import crt
from trainables.methods.lws import lws
from trainables.trainable import StageTrainable

EPOCHS = 7
PAPER = Config(
    dataset="digits",
    backbone="resnet8",
    epochs=EPOCHS,
    milestones=(3,),
    warmup=2,
    S=1,
    retrain_epochs=2,
    measures=("events",),
)


def resolved(config: Config) -> Resolved:
    return work.resolve(config.to_json(), 0, Machine("cpu", 1))


def recipe(first: str, switch: str) -> Resolved:
    return resolved(replace(PAPER, first=first, switch=switch))


def train(stages: list[tree.Stage], folder: Path) -> Store:
    """Train each stage by another actor, in this process."""
    store = Store(str(folder))
    job = Job("mine", store.url, Resources())
    for stage in stages:
        actor = StageTrainable.__new__(StageTrainable)
        actor.setup({"stage": stage, "saved": ""}, job=job)
        while not (result := actor.step())["done"]:
            pass
        assert "failure" not in result, result
    return store


def bits(store: Store, recipe: Resolved) -> tuple[bytes, list[dict[str, object]]]:
    header, payload = store.load(recipe.keys[-1])
    return payload, header["measures"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, list[dict[str, object]]]:
    own = recipe("IB", "CR")
    (stage,) = tree.stages([own], set())
    assert len(stage.keys) == EPOCHS
    return bits(train([stage], tmp_path_factory.mktemp("whole")), own)


def test_resumed_at_every_epoch_in_turn(whole: object, tmp_path: Path) -> None:
    own = recipe("IB", "CR")
    for epoch in range(1, EPOCHS):
        stages = tree.stages([own], set(), keep={own.keys[epoch]})
        assert [len(stage.keys) for stage in stages] == [epoch, EPOCHS - epoch]
        assert bits(train(stages, tmp_path / str(epoch)), own) == whole, f"resumed after epoch {epoch}"


def test_stopped_after_every_epoch(whole: object, tmp_path: Path) -> None:
    own = recipe("IB", "CR")
    assert bits(train(tree.stages([own], set(), keep=set(own.keys)), tmp_path), own) == whole


def test_started_from_another_s_prefix(whole: object, tmp_path: Path) -> None:
    own, other = recipe("IB", "CR"), recipe("IB", "CB")
    stages = sorted(tree.stages([own, other], set()), key=lambda stage: (stage.start, stage.key == own.keys[-1]))
    assert [len(stage.keys) for stage in stages] == [4, 3, 3]  # a shared trunk of m + S epochs; own is trained last
    assert bits(train(stages, tmp_path), own) == whole


@pytest.mark.parametrize("method", [crt, lws])
def test_a_second_stage_started_from_cross_entropy_s_last_state(method: Method, tmp_path: Path) -> None:
    own, trunk = resolved(method(PAPER)), resolved(cross_entropy(PAPER))
    (alone,) = tree.stages([own], set())
    stages = sorted(tree.stages([own, trunk], set()), key=lambda stage: stage.start)
    assert [len(stage.keys) for stage in stages] == [EPOCHS, 2]
    assert bits(train(stages, tmp_path / "shared"), own) == bits(train([alone], tmp_path / "alone"), own)
