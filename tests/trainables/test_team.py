"""Other ranks are Ray's actors: what befalls one of them ends the stage with its reason, and a new team goes on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import ray
from learning import EPOCH, SHORT

from study.execute import Job
from study.refusal import Refusal
from study.space import Machine
from trainables import ranks
from trainables.loop import Diverged
from trainables.ranks import RankLost
from trainables.recipe import origin
from trainables.team import Team

JOB = Job("mine", "", "nowhere", cpus=1.0, ranks=2)  # half a CPU each: the other one is for whatever else is running
ORIGIN = origin(SHORT, Machine("cpu", 1, ranks=2))


@pytest.fixture
def team(one_ray: None) -> Iterator[Team]:
    made = Team(JOB, "cpu", 2)
    yield made
    made.close()


def test_a_team_trains_one_stage_after_the_other(team: Team) -> None:
    measures = []
    for _ in range(2):
        team.begin(ORIGIN, None)
        measures.append([team.train(EPOCH, index) for index in range(2)])
    assert measures[0] == measures[1]
    assert measures[0][0]["train/loss"] != measures[0][1]["train/loss"]


def test_a_rank_that_is_lost_ends_the_epoch_and_a_new_team_goes_on(team: Team) -> None:
    team.begin(ORIGIN, None)
    expected = team.train(EPOCH, 0)
    ray.kill(team._others[0])
    with pytest.raises(RankLost, match="lost"):
        team.train(EPOCH, 1)
    assert not ranks.distributed.is_initialized()
    again = Team(JOB, "cpu", 2)
    again.begin(ORIGIN, None)
    assert again.train(EPOCH, 0) == expected
    again.close()


def test_what_another_rank_raises_is_the_reason(team: Team) -> None:
    team.begin(ORIGIN, None)
    elsewhere = replace(ORIGIN, dataset="cifar10")  # whose files are not there
    ray.get(team._others[0].begin.remote(elsewhere, None))
    with pytest.raises(Refusal, match="cifar10"):
        team.train(EPOCH, 0)


def test_a_loss_that_is_no_number_is_the_training_s_in_every_rank(team: Team) -> None:
    team.begin(ORIGIN, None)
    with pytest.raises(Diverged):
        team.train(replace(EPOCH, lr=1e30), 0)
