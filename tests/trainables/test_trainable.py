"""A stage in an actor: saved on the way, on a stop and at its end; taken up from any of these with the same bits."""

from __future__ import annotations

from pathlib import Path

import pytest

from study import tree
from study.execute import Job
from study.plan import Machine
from study.store import Store
from trainables import trainable, work
from trainables.config import Config
from trainables.trainable import StageTrainable

CONFIG = Config(dataset="digits", backbone="resnet8", epochs=5, milestones=(2,), warmup=1, S=1).to_json()


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """One stage of five epochs."""
    (stage,) = tree.stages([work.resolve(CONFIG, 0, Machine("cpu", 1))], set())
    return Job("mine", str(tmp_path / "store"), "", {stage.key: stage})


def actor(job: Job, saved: str = "") -> StageTrainable:
    """A Trainable as Tune would make one, in this process."""
    (key,) = job.stages
    made = StageTrainable.__new__(StageTrainable)
    made.setup({"stage": key, "saved": saved}, job=job)
    return made


def finish(made: StageTrainable) -> dict:
    while not (result := made.step())["done"]:
        pass
    return result


def payload_and_measures(job: Job) -> tuple[bytes, list]:
    (key,) = job.stages
    header, payload = Store(job.store).load(key)
    return payload, header["measures"]


def test_a_stage_ends_in_its_state(job: Job) -> None:
    (key,) = job.stages
    result = finish(actor(job))
    assert (result["position"], result["saved"]) == (5, key)
    header = Store(job.store).header(key)
    assert (header["epochs"], len(header["measures"]), len(header["wall_seconds"])) == (5, 5, 5)
    assert [(part["from_epoch"], part["run"]) for part in header["provenance"]] == [(0, "mine")]


def test_a_lost_attempt_is_taken_up_where_it_saved(job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainable, "SLICE_SECONDS", 0.0)  # a report an epoch
    monkeypatch.setattr(trainable, "SAVE_SECONDS", 0.0)  # and a state an epoch
    lost = actor(job)
    for _ in range(3):
        saved = lost.step()["saved"]
    (stage,) = job.stages.values()
    assert saved == stage.keys[2]

    again = actor(job, saved)
    assert again.step()["position"] == 4
    finish(again)
    elsewhere = Job("other", str(tmp_path / "elsewhere"), "", job.stages)
    finish(actor(elsewhere))
    assert payload_and_measures(job) == payload_and_measures(elsewhere)


def test_a_stopped_stage_saves_what_it_has_trained(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainable, "SLICE_SECONDS", 0.0)
    stopped = actor(job)
    assert stopped.step() | {"saved": ""} == {"position": 1, "saved": "", "done": False}
    stopped.step()
    (stage,) = job.stages.values()
    assert Store(job.store).keys() == set()
    stopped.cleanup()
    assert Store(job.store).keys() == {stage.keys[1]}


def test_what_training_raises_is_reported_in_one_line_with_its_traceback(job: Job) -> None:
    (stage,) = job.stages.values()
    wild = {**stage.epochs[0], "lr": 1e30}
    broken = tree.Stage(stage.parent, 0, stage.keys, (wild, *stage.epochs[1:]), stage.origin, 5)
    result = finish(actor(Job("mine", job.store, "", {stage.key: broken})))
    assert result["error"].startswith("Diverged: the ")
    assert "Traceback" in result["traceback"]
    assert Store(job.store).keys() == set()


@pytest.mark.parametrize("field", ["source", "torch", "numpy"])
def test_a_worker_refuses_a_plan_made_with_other_code(job: Job, field: str) -> None:
    (stage,) = job.stages.values()
    origin = {**stage.origin, field: "another"}
    other = tree.Stage(stage.parent, 0, stage.keys, stage.epochs, origin, 5)
    result = finish(actor(Job("mine", job.store, "", {stage.key: other})))
    assert "the plan was made with another" in result["error"]
