"""`study doctor`: each planted fault is found, with the place and a remedy. Those of nodes are in tests/cluster."""

import json
import shutil
import time
from dataclasses import replace

import pytest
from helpers import parsed

import study as platform
from study import mounts
from study.api import doctor
from study.errors import Refusal
from study.execution import nodes
from study.execution.job import Job
from study.planning.stored import Resources

# A fault: the arguments that plant it, and then the topic, where it is, and a part of what is said.
FAULTS = {
    "a home that cannot be made": (["--home", "/proc/study"], "home", "/proc/study", "must be a writable folder"),
    "a bucket that does not exist": (
        ["--store", "s3://none/a?endpoint_override={s3}&scheme=http&region=us-east-1"],
        "store",
        "s3://none/a",
        "the bucket none does not exist",
    ),
    "an S3 server that is away": (
        ["--store", "s3://bucket/a?endpoint_override={refusing}&scheme=http&region=us-east-1"],
        "store",
        "s3://bucket/a",
        "endpoint does not answer",
    ),
    "a store of an unknown kind": (["--store", "ftp://host/a"], "store", "ftp://host/a", "must be a directory or URL"),
    "an MLflow server that is away": (
        ["--tracking-uri", "http://{refusing}"],
        "MLflow",
        "http://{refusing}",
        "does not answer within 2 s",
    ),
    "an MLflow server that wants a password": (
        ["--tracking-uri", "http://you:hunter2@{denying}"],
        "MLflow",
        "http://you:***@{denying}",
        "denies access",
    ),
    "an MLflow in plain files": (["--tracking-uri", "./mlruns"], "MLflow", "./mlruns", "must be http://HOST:PORT"),
    "an Optuna server that is away": (
        ["--storage", "postgresql://me@{refusing}/optuna"],
        "Optuna",
        "postgresql://me@{refusing}/optuna",
        "does not answer within 2 s",
    ),
    "a wrong password of PostgreSQL": (
        ["--storage", "{postgres_wrong}"],
        "Optuna",
        "postgresql://me:***@",
        "password authentication failed",
    ),
    "a database that does not exist": (
        ["--storage", "{postgres}none"],
        "Optuna",
        "postgresql://me:***@",
        "does not exist",
    ),
    "a driver of a database that is not installed": (
        ["--storage", "mysql://me@{refusing}/optuna"],
        "Optuna",
        "mysql://me@{refusing}/optuna",
        "'pip install mysqlclient' installs it",
    ),
    "a journal for Optuna": (["--storage", "journal.log"], "Optuna", "journal.log", "must be a database"),
    "a Ray that is away": (["--address", "{refusing}"], "Ray", "{refusing}", "must belong to a Ray cluster"),
    "an address that is none": (
        ["--address", "host"],
        "Ray",
        "host",
        "must be auto, local, HOST:PORT or ray://HOST:PORT",
    ),
    "data that are missing": (["table9", "--data", "cifar10"], "data", "{home}/data", "cifar10 is missing or damaged"),
}


@pytest.fixture
def plant(tmp_path, monkeypatch, refusing, denying, request):
    """Returns text with the addresses and paths of this test in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    known = {"file": tmp_path / "file", "home": tmp_path / "home", "refusing": refusing, "denying": denying.address}

    def fill(text):
        if "{s3}" in text:
            known["s3"] = request.getfixturevalue("s3")
        if "{postgres" in text:
            known["postgres"] = request.getfixturevalue("postgres")
            known["postgres_wrong"] = known["postgres"].replace("hunter2", "guess")
        return text.format(**known)

    return fill


def test_what_does_not_answer_comes_with_what_to_do_and_what_is_malformed_with_what_is_allowed(study, refusing):
    servers = ["--address", refusing, "--tracking-uri", f"http://{refusing}"]
    advice = {each["topic"]: each["do"] for each in parsed(study("doctor", *servers, "--json", code=2))}
    assert advice["MLflow"] == "Start the server, or name another one"
    assert advice["Ray"].startswith("Start the cluster, ")
    advice = {each["topic"]: each["do"] for each in parsed(study("doctor", "--address", "host", "--json", code=2))}
    assert advice["Ray"] == ""


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found_with_its_place_and_leaves_nothing(fault, plant, study, tmp_path):
    arguments, topic, where, words = FAULTS[fault]
    before = time.monotonic()
    findings = parsed(study("doctor", *map(plant, arguments), "--json", code=2))
    errors = [finding for finding in findings if finding["level"] == "error"]
    assert [(error["topic"], plant(where) in error["where"], words in error["what"]) for error in errors] == [
        (topic, True, True)
    ], errors
    assert "hunter2" not in json.dumps(findings)
    assert time.monotonic() - before < 60
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_sound_set_up_has_no_errors_and_a_line_for_each_topic(study, tmp_path):
    lines = study("doctor", "table9", "--seeds", "1").stdout.splitlines()
    assert [line.split()[:2] for line in lines] == [
        ["ok", topic] for topic in ("home", "store", "MLflow", "Optuna", "data", "node", "disk")
    ]
    assert list(tmp_path.iterdir()) == []  # not even the folder of the store stays


def test_a_node_that_a_run_cannot_use_is_no_error(study, monkeypatch):
    head = nodes.Node("id", "head", "198.51.100.2", {"CPU": 0.0}, {"data": "cifar10 is missing"})
    monkeypatch.setattr(nodes, "here", lambda *_: head)
    findings = parsed(study("doctor", "table9", "--seeds", "1", "--json"))
    (told,) = [finding for finding in findings if "head" in finding["where"]]
    assert (told["level"], told["what"]) == ("ok", "trains nothing: 0 CPUs, 0 GPUs")


def test_folders_of_a_store_that_does_not_exist_are_removed_and_an_unknown_option_is_refused(study, tmp_path):
    study("doctor", "--store", str(tmp_path / "a" / "b" / "store"))
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(Refusal, match="unknown option 'sedes'"):
        platform.doctor(home=tmp_path / "home", sedes=3)


def test_findings_are_also_to_be_had_from_python(tmp_path):
    findings = platform.doctor(home=tmp_path / "home", address="host")
    assert findings[-1].level == "error"
    assert str(findings[-1]).startswith("error    Ray       host: --address must be auto, local")


def test_sqlite_on_a_network_file_system_is_a_warning_that_names_postgresql(study, tmp_path, monkeypatch):
    monkeypatch.setattr(mounts, "_MOUNTS", tmp_path / "mountinfo")
    (tmp_path / "mountinfo").write_text("1 0 0:1 / / rw - nfs4 server:/export rw\n")
    warnings = [finding for finding in parsed(study("doctor", "--json")) if finding["level"] == "warning"]
    assert [(finding["topic"], "(nfs4)" in finding["what"]) for finding in warnings] == [
        ("MLflow", True),
        ("Optuna", True),
    ]
    assert "PostgreSQL" in warnings[1]["do"]


def test_a_disk_that_is_too_small_for_the_run_s_states_is_an_error(study, monkeypatch):
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: usage._replace(free=1 << 20))
    error = parsed(study("doctor", "table9", "--seeds", "1", "--json", code=2))[-1]
    assert (error["level"], error["topic"]) == ("error", "disk")
    assert "states" in error["what"]
    assert "1 MiB are free" in error["what"]


def test_the_size_of_a_state_is_about_that_of_the_stored_one(small_space, study, tmp_path):
    study("run", small_space(), "--seeds", "1")
    sizes = {path.stat().st_size for path in (tmp_path / "home" / "store" / "states").glob("*/*")}
    from search_spaces import table9
    from study.space import Request
    from trainables.work import state_bytes

    expected = state_bytes(table9.space(Request({})).configs[0])
    assert all(0.9 * expected < size < 1.3 * expected for size in sizes), (expected, sizes)


@pytest.fixture
def node():
    """A node that can train, with eight CPUs and 32 GiB of free memory."""
    return nodes.Node("id", "node1", "198.51.100.2", {"CPU": 8.0}, memory=32 << 30)


def findings_of(node, resources=Resources(), for_run=True):  # noqa: B008
    return list(doctor._of_node(node, Job("run", "/store", resources), for_run))


def test_a_node_that_can_train_is_told_with_what_it_has(node):
    (finding,) = findings_of(node)
    assert str(finding) == "ok       node      node1 (198.51.100.2): can train: 8 CPUs, 0 GPUs, 32.0 GiB of memory free"


@pytest.mark.parametrize(("seconds", "level"), [(1.0, "ok"), (-3.0, "warning"), (20.0, "warning")])
def test_clocks_that_differ_are_found(node, seconds, level):
    finding = findings_of(replace(node, seconds=seconds))[0]
    assert finding.level == level
    assert level == "ok" or finding.what == f"its clock differs by {abs(seconds):.0f} s from the driver's"


def test_too_little_memory_for_the_stages_of_a_node_is_a_warning(node):
    small = replace(node, memory=4 << 30)
    (warning, _) = findings_of(small)
    assert (warning.level, warning.topic) == ("warning", "memory")
    assert warning.what == "4.0 GiB of memory are free for 8 stages at a time"
    assert [finding.level for finding in findings_of(small, Resources(workers=2))] == ["ok"]
    assert [finding.level for finding in findings_of(small, Resources(cpus=4.0))] == ["ok"]
    assert [finding.level for finding in findings_of(small, for_run=False)] == ["ok"]


@pytest.mark.parametrize("topic", ["answer", "packages", "store", "data", "GPUs"])
def test_every_problem_of_a_node_has_a_remedy(node, topic):
    (finding,) = findings_of(replace(node, problems={topic: "it is broken"}))
    assert (finding.level, finding.topic, finding.where) == ("error", topic, "node1 (198.51.100.2)")
    assert finding.do
