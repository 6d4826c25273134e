"""Other ranks are Ray's actors: a failure of one ends the stage with its reason, and a new team goes on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from helpers import EPOCH, SHORT
from safetensors.torch import save

from search_spaces.shared.protocol import base
from study.errors import Refusal
from study.execution.job import Job
from study.machine import Machine
from study.planning.stored import Resources
from trainables import ranks
from trainables import team as teams
from trainables.loop import Diverged
from trainables.origins import origin
from trainables.ranks import RankLost, Ranks
from trainables.recipe import Recipe
from trainables.references import LOSS, construct
from trainables.team import AUTO_STEPS, Member, Team

# Half a CPU each: the other one is for whatever else is running.
JOB = Job("mine", "", Resources(data_dir="nowhere", cpus=1.0), ranks=2)
ORIGIN = origin(SHORT, Machine("cpu", 1, ranks=2))


def job(**resources: Any) -> Job:
    return replace(JOB, resources=replace(JOB.resources, **resources))


@pytest.fixture
def team(one_ray: None) -> Iterator[Team]:
    made = Team(JOB, "cpu", 2)
    yield made
    made.close()


def test_a_team_trains_one_stage_after_the_other(team: Team) -> None:
    measures = []
    for _ in range(2):
        team.begin(ORIGIN, None, "", 0)
        measures.append([team.train(EPOCH) for _ in range(2)])
        assert (team.learner.key, team.learner.epochs) == (Recipe(ORIGIN, (EPOCH,) * 2).keys()[2], 2)
    assert measures[0] == measures[1]
    assert measures[0][0]["train/loss"] != measures[0][1]["train/loss"]


def test_every_rank_finds_a_loss_in_a_file_of_the_user_s(team: Team, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from dataclasses import dataclass\nfrom trainables.losses.cross_entropy import CrossEntropy\n"
        "@dataclass(frozen=True)\nclass Mine(CrossEntropy): pass\n"
    )
    team.begin(ORIGIN, None, "", 0)
    expected = team.train(EPOCH)
    team.begin(ORIGIN, None, "", 0)
    assert team.train(replace(EPOCH, loss=construct(LOSS, f"{tmp_path}/mine.py:Mine"))) == expected


def test_a_rank_with_other_code_is_refused(team: Team) -> None:
    with pytest.raises(Refusal, match="core of the worker"):
        team.begin(replace(ORIGIN, core="another"), None, "", 0)


def test_a_rank_that_is_lost_ends_the_epoch_and_a_new_team_goes_on(team: Team) -> None:
    team.begin(ORIGIN, None, "", 0)
    expected = team.train(EPOCH)
    ray.kill(team._others[0])
    with pytest.raises(RankLost, match="lost"):
        team.train(EPOCH)
    assert not ranks.distributed.is_initialized()
    again = Team(JOB, "cpu", 2)
    again.begin(ORIGIN, None, "", 0)
    assert again.train(EPOCH) == expected
    again.close()


def test_what_another_rank_raises_is_the_reason(team: Team) -> None:
    team.begin(ORIGIN, None, "", 0)
    other = origin(base("cifar10"), Machine("cpu", 1))  # whose files are not there
    elsewhere = replace(ORIGIN, dataset=other.dataset, data=other.data, fingerprint=other.fingerprint)
    ray.get(team._others[0].begin.remote(elsewhere.to_json(), None, "", 0))
    with pytest.raises(Refusal, match="cifar10"):
        team.train(EPOCH)


def test_a_loss_that_is_no_number_is_the_training_s_in_every_rank(team: Team) -> None:
    team.begin(ORIGIN, None, "", 0)
    with pytest.raises(Diverged):
        team.train(replace(EPOCH, lr=1e30))


@pytest.mark.parametrize(
    ("asked", "recorded"), [("auto", AUTO_STEPS == "recorded"), ("eager", False), ("recorded", True)]
)
def test_a_learner_is_told_how_its_gpu_is_given_its_steps(
    monkeypatch: pytest.MonkeyPatch, asked: str, recorded: bool
) -> None:
    told = []
    monkeypatch.setattr(teams, "Learner", lambda *_, recorded: told.append(recorded))
    Member(job(gpu_steps=asked), Ranks()).begin(ORIGIN.to_json(), None, "", 0)
    assert told == [recorded]


def test_a_learner_serves_one_stage_after_the_other_as_long_as_they_fit() -> None:
    member, alone = Member(JOB, Ranks()), replace(ORIGIN, ranks=1)
    member.begin(alone.to_json(), None, "", 0)
    first = member.learner
    member.train(EPOCH.to_json())
    member.begin(replace(alone, seed=7).to_json(), None, "", 0)
    assert member.learner is first
    member.begin(replace(alone, precision="bf16").to_json(), None, "", 0)
    assert member.learner is not first
    assert not first.steps  # which held it


def test_a_state_is_begun_with_its_name_and_number_and_state_0_with_its_own() -> None:
    one, other, alone = Member(JOB, Ranks()), Member(JOB, Ranks()), replace(ORIGIN, ranks=1)
    keys = Recipe(alone, (EPOCH,) * 2).keys()
    one.begin(alone.to_json(), None, "", 0)
    assert (one.learner.key, one.learner.epochs) == (keys[0], 0)
    one.train(EPOCH.to_json())
    assert (one.learner.key, one.learner.epochs) == (keys[1], 1)
    other.begin(replace(alone, seed=7).to_json(), None, "", 0)
    other.train(EPOCH.to_json())
    other.begin(alone.to_json(), save(one.learner.state()), one.learner.key, one.learner.epochs)
    assert (other.learner.key, other.learner.epochs) == (keys[1], 1)
    assert other.train(EPOCH.to_json()) == one.train(EPOCH.to_json())
    assert (other.learner.key, other.learner.epochs) == (keys[2], 2)


NODES = [
    {"NodeID": "this", "Resources": {"CPU": 26.0, "GPU": 2.0, "memory": 1e9}},
    {"NodeID": "other", "Resources": {"CPU": 128.0}},
]


@pytest.mark.parametrize(
    ("cpus", "gpus", "ranks", "expected"),
    [
        (1.0, 1.0, 1, 13),
        (1.0, 0.25, 1, 3),
        (1.0, 2.0, 2, 13),
        (20.0, 1.0, 1, 20),
        (2.0, 0.01, 1, 2),
        (0.5, 0.01, 1, 1),
        (1.0, 0.0, 1, 1),
        (6.0, 0.0, 2, 3),
        (1.0, 0.0, 2, 1),
    ],
)
def test_images_are_decoded_by_a_gpu_s_share_of_its_machine_s_cpus(
    monkeypatch: pytest.MonkeyPatch, cpus: float, gpus: float, ranks: int, expected: int
) -> None:
    asked: list[str] = []

    def nodes() -> list[dict[str, Any]]:
        asked.append("nodes")
        return NODES

    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ray, "get_runtime_context", lambda: SimpleNamespace(get_node_id=lambda: "this"))
    monkeypatch.setattr(ray, "nodes", nodes)
    decoders: list[int] = []
    learner = SimpleNamespace(origin=ORIGIN, ranks=Ranks(), key="", epochs=0)
    monkeypatch.setattr(teams, "Learner", lambda *_, **__: learner)
    monkeypatch.setattr(teams.loop, "load", lambda _origin, _epoch, _root, workers, _ranks: decoders.append(workers))
    for measure in ("train_epoch", "evaluate"):
        monkeypatch.setattr(teams.loop, measure, lambda *_: {})
    member = Member(replace(job(cpus=cpus, gpus=gpus), ranks=ranks), Ranks(0, ranks))
    member.begin(ORIGIN.to_json(), None, "", 0)
    for _ in range(3):
        member.train(EPOCH.to_json())
    assert decoders == [expected] * 3
    assert asked == ["nodes"] * bool(gpus)  # once
