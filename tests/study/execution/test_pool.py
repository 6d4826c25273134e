"""The machines that train, as Ray tells of them. tests/cluster lets real ones join and leave."""

import pytest

from study.errors import Refusal
from study.execution import pool as pools
from study.execution.job import Job
from study.execution.pool import LOOK_SECONDS, Pool, placement, room, waiting
from study.planning.stored import Resources


def node(number, cpus=2.0, is_alive=True, **resources):
    return {
        "NodeID": f"id{number}",
        "NodeManagerHostname": f"node{number}",
        "NodeManagerAddress": f"198.51.100.{number}",
        "Resources": {"CPU": cpus, **resources},
        "Alive": is_alive,
    }


@pytest.fixture
def ray_has(monkeypatch):
    """A function that lets Ray have these nodes, and those that are about to leave."""
    state = {"nodes": [], "leaving": {}}
    monkeypatch.setattr(pools.ray, "nodes", lambda: state["nodes"])
    monkeypatch.setattr(pools._state, "get_draining_nodes", lambda: state["leaving"])
    monkeypatch.setattr(pools.ray, "available_resources", lambda: {"CPU": 0.0})

    def has(*nodes, leaving=()):
        state["nodes"], state["leaving"] = list(nodes), dict.fromkeys(leaving, 0)

    return has


@pytest.fixture
def pool_of(ray_has):
    """A function that returns the pool of a run, and the list of the lines that it says."""

    def make(workers=0, address="auto", ranks=1, left_out=(), **resources):
        said = []
        job = Job("run", "store", Resources(workers=workers, address=address, **resources), ranks)
        return Pool(job, left_out, said.append), said

    return make


def test_the_workers_follow_the_machines(pool_of, ray_has):
    pool, said = pool_of()
    ray_has(node(1), node(2))
    pool.look()
    assert (pool.workers, said) == (4, [])
    ray_has(node(1), node(2), node(3, cpus=4.0))
    pool.look(at_once=True)
    assert (pool.workers, said.pop()) == (8, "node3 (198.51.100.3) has joined: room for 8 at a time")
    ray_has(node(1), node(2, is_alive=False), node(3, cpus=4.0), leaving=["id3"])
    pool.look(at_once=True)
    assert (pool.workers, pool.usable) == (2, {"id1"})
    left = "node2 (198.51.100.2) has left; node3 (198.51.100.3) is about to leave"
    assert sorted(said.pop().replace(": room for 2 at a time", "").split("; ")) == left.split("; ")
    assert [pool.is_lost(f"id{number}") for number in (1, 2, 3, 4)] == [False, True, True, False]


def test_what_ray_says_is_not_asked_for_all_the_time(pool_of, ray_has):
    pool, _ = pool_of()
    ray_has(node(1))
    pool.look()
    ray_has(node(1), node(2))
    pool.look()
    assert pool.usable == {"id1"}


@pytest.mark.parametrize(("address", "workers"), [("auto", 5), ("", 2)])
def test_a_cluster_is_asked_for_more_workers_than_it_has_room_for_and_a_machine_is_not(
    pool_of, ray_has, address, workers
):
    pool, said = pool_of(workers=5, address=address)
    ray_has(node(1))
    pool.look()
    pool.check()
    assert pool.workers == workers
    assert said == {
        "auto": ["room for 2 at a time: the others of 5 (--workers) wait for machines"],
        "": ["training 2 at a time, not 5 (--workers): the machines have room for no more"],
    }.get(address)


def test_a_pool_without_machines_is_asked_for_workers_if_the_user_says_how_many(pool_of, ray_has):
    ray_has(node(1, cpus=0.0))
    pool, _ = pool_of()
    pool.look()
    words = r"--cpus-per-trial must be at most 0 \(got 1\.0\)\. The machines have no more\. If Ray adds machines to the"
    with pytest.raises(Refusal, match=words):
        pool.check()
    pool, _ = pool_of(workers=3)
    pool.look()
    pool.check()
    assert pool.workers == 3
    assert pool.waiting("12:00:00") == (
        "waiting for Ray since 12:00:00: a trial wants 1 CPU, and the machines that train have 0 CPUs: others must join"
    )


def test_if_all_machines_leave_one_stage_waits_for_others(pool_of, ray_has):
    pool, _ = pool_of()
    ray_has(node(1))
    pool.look()
    ray_has(node(1, is_alive=False))
    pool.look(at_once=True)
    assert (pool.workers, pool.room()) == (1, 0)


def test_a_stage_avoids_nodes_that_cannot_train_and_those_where_it_lost_a_process_if_there_are_others(pool_of, ray_has):
    pool, said = pool_of(left_out=["id3"])
    ray_has(node(1), node(2), node(3))
    pool.look()
    assert pool.workers == 4
    assert pool.avoided(()) == ("id3",)
    assert pool.avoided({"id1"}) == ("id1", "id3")
    assert pool.avoided({"id1", "id2"}) == ("id3",)
    pool.leave_out("id2", "it has no torch")
    pool.leave_out("id2", "it has no torch")
    assert said == ["left out: node node2 (198.51.100.2): it has no torch"]
    assert pool.avoided({"id1"}) == ("id2", "id3")
    assert pool.workers == 2


def test_who_waits_reads_when_the_machines_that_were_left_out_are_asked_again(pool_of, ray_has, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(pools.time, "monotonic", lambda: now[0])
    pool, _ = pool_of(left_out=["id1", "gone"])
    ray_has(node(1))
    pool.look()
    now[0] += 70
    line = "waiting for Ray since 12:00:00: a trial wants 1 CPU, and the machines that train have 0 CPUs: others must"
    assert pool.waiting("12:00:00") == f"{line} join; those left out are asked again in 4 min"


def test_a_node_that_was_left_out_is_asked_again_after_pauses_that_grow(pool_of, ray_has, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(pools.time, "monotonic", lambda: now[0])
    pool, said = pool_of(left_out=["id2"])
    ray_has(node(1), node(2))
    pool.look()
    pauses = []
    for _ in range(6):
        began = now[0]
        while "id2" not in pool.usable:
            now[0] += LOOK_SECONDS + 1
            pool.look()
        pauses.append(round((now[0] - began) / 60))
        assert pool.workers == 4
        pool.leave_out("id2", "it has no data")
        assert pool.workers == 2
    assert pauses == [5, 10, 20, 40, 60, 60]
    assert said == []  # the start has told of it


def test_a_request_without_nodes_to_avoid_is_one_that_an_autoscaler_understands():
    job = Job("run", "store", Resources(cpus=2.0), ranks=2)
    plain = placement(job, ())
    assert plain.bundles == [{"CPU": 1.0}] * 2
    assert "bundle_label_selector" not in plain._kwargs
    assert placement(job, ("id1", "id2"))._kwargs["bundle_label_selector"] == [{"ray.io/node-id": "!in(id1,id2)"}] * 2


@pytest.mark.parametrize(
    ("gpus", "need", "fit"),
    [
        (8, 0.15, 48),
        (2, 0.4, 4),
        (3, 0.7, 3),
        (1, 1 / 3, 3),
        (2, 0.166667, 12),
        (1, 0.142857, 7),
        (2, 0.1, 20),
        (3, 1, 3),
    ],
)
def test_a_fraction_of_a_gpu_lies_on_one_gpu(gpus, need, fit):
    """The numbers are those of placement groups that a Ray with so many GPUs made."""
    assert room({"CPU": 100.0, "GPU": gpus}, {"CPU": 1.0, "GPU": need}) == fit
    assert room({"CPU": 2.0, "GPU": gpus}, {"CPU": 1.0, "GPU": need}) == min(2, fit)
    assert room({"CPU": 100.0}, {"CPU": 1.0, "GPU": need}) == 0


def test_what_a_trial_waits_for_names_all_its_ranks():
    line = waiting({"CPU": 1.0, "GPU": 1.0}, 2, {"CPU": 8.0, "GPU": 4.0}, {"CPU": 3.0}, True, "12:00:00")
    state = "3 of 8 CPUs and 0 of 4 GPUs are free"
    assert line == f"waiting for Ray since 12:00:00: a trial wants 2 CPUs and 2 GPUs, and {state}"


def test_what_is_free_is_not_told_if_ray_counts_machines_that_were_left_out():
    line = waiting({"CPU": 1.0}, 1, {"CPU": 8.0}, {}, True, "12:00:00")
    assert line == "waiting for Ray since 12:00:00: a trial wants 1 CPU, and others use some of the 8 CPUs"
