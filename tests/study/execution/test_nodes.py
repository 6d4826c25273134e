"""What a node answers before training. tests/cluster asks real nodes."""

import os
import platform
import signal
from dataclasses import replace
from importlib import metadata

import pytest
import ray

from study.errors import Refusal
from study.execution import nodes
from study.execution.job import Job
from study.execution.nodes import Needs
from study.planning.stored import Resources
from study.store.states import Store


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path / "store"))


@pytest.fixture
def needs(store):
    """What this machine has."""
    return Needs(Job("run", store.url, Resources()), nodes.versions(("ray", "torch")))


def problems(needs, store):
    answered = nodes.here(needs, store)
    assert store.records("nodes") == []  # the token and the answer are removed
    return answered.problems


def test_a_sound_machine_has_no_problems(needs, store):
    answered = nodes.here(needs, store)
    assert answered.problems == {}
    assert (answered.host, answered.resources["CPU"]) == (platform.node(), len(os.sched_getaffinity(0)))
    assert abs(answered.seconds) < 1
    assert answered.memory > 0


def test_versions_that_differ_and_packages_that_are_absent_are_named(needs, store):
    wanted = {"python": "3.99", "torch": "0.1", "nothing": "1.0"}
    python = ".".join(platform.python_version_tuple()[:2])
    assert problems(replace(needs, versions=wanted), store) == {
        "packages": f"it has python {python}, and the driver has 3.99; "
        f"it has torch {metadata.version('torch')}, and the driver has 0.1; it has no nothing"
    }


def test_another_folder_is_not_the_store(needs, store, tmp_path):
    other = Store(str(tmp_path / "other"))
    reason = f"it does not see the store {other.shown}: another folder has this path there"
    assert problems(replace(needs, job=replace(needs.job, store=other.url)), store) == {"store": reason}
    absent = str(tmp_path / "absent")
    reason = f"it does not see the store {absent}: there is no such directory"
    assert problems(replace(needs, job=replace(needs.job, store=absent)), store) == {"store": reason}


def test_an_answer_that_the_driver_does_not_see_is_a_problem(needs, store):
    node = nodes.Node("id", "node1", "198.51.100.2", {})
    with nodes._mark(store) as token:
        assert nodes._seen(node, store, token).problems == {
            "store": f"it does not write into the same store: its answer is not in {store.shown}"
        }
        store.write_record(nodes._path(token, "id"), {"node": "id"})
        assert nodes._seen(node, store, token) is node


def test_missing_data_are_a_problem_and_a_long_check_is_none(needs, store, monkeypatch):
    def missing():
        raise Refusal("data", "/data", "must be a folder")

    assert problems(replace(needs, prepare=missing), store) == {"data": "data must be a folder (got '/data')"}
    monkeypatch.setattr(nodes, "SLOW_SECONDS", 1.0)
    assert problems(replace(needs, prepare=lambda: signal.pause()), store) == {}


def test_gpus_that_only_ray_knows_of_are_a_problem():
    from study.machine import gpus

    count = len(gpus())
    assert nodes._gpu_problem(count) == ""
    assert nodes._gpu_problem(count + 1) == (
        f"it declares {count + 1} GPU{'s' * (count > 0)} to Ray, and CUDA finds {count}"
    )


def test_a_node_that_has_just_joined_may_take_longer_to_answer(one_ray, needs, store, monkeypatch):
    here = ray.get_runtime_context().get_node_id()
    with nodes._mark(store) as token:
        checks = nodes.Checks(needs, token, frozenset(), frozenset())
        monkeypatch.setattr(nodes, "ANSWER_SECONDS", 0.0)
        assert checks.of_late([here]) == {}
        monkeypatch.setattr(nodes, "LATE_ANSWER_SECONDS", 0.0)
        assert checks.of_late([here]) == {here: "it does not answer within 0 s"}


def test_nodes_of_a_real_ray_are_asked_and_a_run_without_any_is_refused(one_ray, needs, store):
    said = []
    with nodes.checked(needs, store, said.append) as checks:
        (here,) = checks.asked
        assert (here, checks.left_out) == (ray.get_runtime_context().get_node_id(), set())
        assert checks.of_late([here]) == {}
        late = replace(checks, asked=frozenset())
        assert late.of_late([here]) == {}
        lacking = replace(late, needs=replace(needs, versions={"nothing": "1.0"}))
        assert lacking.of_late([here]) == {here: "it has no nothing"}
        elsewhere = replace(late, token="absent")
        assert elsewhere.of_late([here])[here].startswith("it does not see the store")
    assert said == []
    other = replace(needs, versions={**needs.versions, "torch": "0.1"})
    words = "--address must be a cluster with a node that can train the run"
    refused = pytest.raises(
        Refusal, match=rf"^{words} \(got ''\)\. node {platform.node()} \(.*\): it has torch .* has 0\.1$"
    )
    with refused, nodes.checked(other, store, said.append):
        pass
    assert store.records("nodes") == []
