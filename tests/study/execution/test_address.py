"""The check of a Ray cluster's address."""

import os
import re
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from helpers import quick

import study
from study import services
from study.errors import Refusal
from study.execution import address as addresses
from study.execution.address import Cluster, check_address, token_if_wanted


@pytest.fixture
def no_ray(tmp_path, monkeypatch):
    """A machine on which no Ray runs: the Ray of other tests is hidden, and none was started."""
    monkeypatch.setattr("study.execution.address._command_lines", lambda: [b"python\0raylet.py"])
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    (tmp_path / "ray").mkdir()
    return tmp_path / "ray" / "ray_current_cluster"


@pytest.mark.parametrize("address", ["", "{}", "ray://{}"])
def test_the_address_of_a_cluster_that_listens_is_taken(address, listening):
    check_address(address.format(listening))


@pytest.mark.parametrize(
    "address",
    [
        "nonsense",
        "local",
        "host:",
        "host:notaport",
        "host:0",
        "host:99999",
        "host:-1",
        ":6379",
        "ray://host",
        "ray://",
        "http://127.0.0.1:6379",
        "127.0.0.1:6379/x",
        "a b:6379",
        "AUTO",
        "::1:6379",
        "127.0.0.1:6379\n",
        "host:٣",
    ],
)
def test_an_address_that_is_none_is_refused(address):
    with quick(0.5), pytest.raises(Refusal) as refused:
        check_address(address)
    assert refused.value.field == "--address"
    assert str(refused.value) == f"--address must be auto, local, HOST:PORT or ray://HOST:PORT (got {address!r})"


@pytest.mark.parametrize("address", ["{}", "ray://{}"])
def test_a_cluster_that_does_not_listen_is_refused(address, refusing):
    with quick(), pytest.raises(Refusal, match="refused"):
        check_address(address.format(refusing))


def test_auto_is_refused_where_no_cluster_is(no_ray):
    with quick(1), pytest.raises(Refusal) as refused:
        check_address("auto")
    assert str(refused.value) == (
        "--address auto finds no Ray cluster on this machine. Start one with 'ray start --head', or give HOST:PORT"
    )


def test_auto_takes_the_environment_s_address(no_ray, monkeypatch, listening, refusing):
    monkeypatch.setenv("RAY_ADDRESS", listening)
    check_address("auto")
    monkeypatch.setenv("RAY_ADDRESS", refusing)
    with pytest.raises(Refusal, match=r"^RAY_ADDRESS must belong to a Ray cluster that answers within 2 s \(got '"):
        check_address("auto")


def test_auto_takes_the_cluster_that_was_last_begun(no_ray, listening, refusing):
    no_ray.write_text(listening + "\n")
    check_address("auto")
    no_ray.write_text(refusing)
    words = r"the last cluster's address \(--address auto\) must belong to a Ray cluster that answers within 2 s"
    with pytest.raises(Refusal, match=rf"^{words} \(got '{refusing}'\)\. Reason: .*refused"):
        check_address("auto")
    no_ray.write_bytes(b"\xff")
    with pytest.raises(Refusal, match="ray start"):
        check_address("auto")


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="no /proc")
def test_auto_finds_a_node_by_its_process(no_ray, tmp_path, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    process = subprocess.Popen(["/folder/raylet/raylet", "30"], executable="/bin/sleep")
    try:
        time.sleep(0.2)
        check_address("auto")
    finally:
        process.kill()
        process.wait()


def test_a_name_that_is_not_looked_up_in_time_is_away(monkeypatch):
    end = threading.Event()
    monkeypatch.setattr(services, "TOTAL", services.TOTAL / 10)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: end.wait(30) and [])
    with quick(0.6), pytest.raises(Refusal, match="no answer"):
        check_address("ray.invalid:6379")
    end.set()


def test_what_listens_but_is_no_ray_is_refused_within_seconds_and_without_ray_s_lines(listening, monkeypatch, capfd):
    monkeypatch.setattr(addresses, "RAY_SECONDS", 4.0)
    monkeypatch.setattr(addresses, "has_node", lambda: True)
    with quick(7), pytest.raises(Refusal) as refused:
        Cluster(listening).check()
    assert str(refused.value) == (
        f"--address must be a Ray cluster that answers within 4 s (got {listening!r}). "
        "Something accepts connections there, but it does not answer as Ray does"
    )
    assert capfd.readouterr() == ("", "")


LOST_CLIENT = "ConnectionAbortedError: Initialization failure from server:"


@pytest.mark.parametrize(("failures", "answers"), [(0, True), (2, True), (3, False)])
def test_a_client_whose_process_died_on_the_head_tries_again(listening, monkeypatch, failures, answers):
    told = iter([[LOST_CLIENT]] * failures + [{"CPU": 4.0}])
    monkeypatch.setattr(addresses, "_ask_once", lambda *_: next(told))
    if answers:
        assert Cluster(f"ray://{listening}").resources == {"CPU": 4.0}
    else:
        with pytest.raises(Refusal, match="Initialization failure"):
            Cluster(f"ray://{listening}").check()


def test_a_token_is_used_for_the_cluster_that_asked_for_one_and_only_within(listening, monkeypatch):
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    wants = ["Unauthenticated: no token"]
    monkeypatch.setattr(addresses, "_ask_once", lambda *_, **given: {"CPU": 1.0} if given else wants)
    Cluster(f"ray://{listening}").check()
    assert "RAY_AUTH_MODE" not in os.environ
    with token_if_wanted(f"ray://{listening}"):
        assert os.environ["RAY_AUTH_MODE"] == "token"
    with token_if_wanted("ray://other:1"):
        assert "RAY_AUTH_MODE" not in os.environ
    monkeypatch.setattr(addresses, "_ask_once", lambda *_: {"CPU": 1.0})  # it was started again without
    Cluster(f"ray://{listening}").check()
    with token_if_wanted(f"ray://{listening}"):
        assert "RAY_AUTH_MODE" not in os.environ


def test_a_cluster_without_a_node_on_this_machine_is_refused_with_what_to_do(listening, no_ray):
    words = f"--address: '{listening}' is a cluster without a node on this machine, and only a driver on a node can use"
    with quick(1), pytest.raises(Refusal, match=f"^{re.escape(words)} it so. .*ray://HOST:10001"):
        Cluster(listening).check()


@pytest.mark.slow
def test_a_ray_that_refuses_the_token_is_refused_and_taken_once_the_token_is_right(tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "a" * 40)
    environment = os.environ | {"RAY_AUTH_TOKEN": "b" * 40}
    code = "import ray, time; ray.init('local', num_cpus=1, include_dashboard=False, object_store_memory=100 << 20); "
    code += "print('address', ray.get_runtime_context().gcs_address, flush=True); time.sleep(120)"
    with subprocess.Popen(
        [sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as head:
        try:
            address = head.stdout.readline().split()[1]
            with pytest.raises(
                Refusal, match=re.escape(f"must be a Ray cluster that accepts your token (got '{address}')")
            ):
                Cluster(address).check()
            monkeypatch.setenv("RAY_AUTH_TOKEN", "b" * 40)
            Cluster(address).check()
        finally:
            head.terminate()


@pytest.mark.parametrize(("resources", "gpus"), [({"CPU": 64.0, "GPU": 8.0}, 1.0), ({"CPU": 64.0}, 0.0)])
def test_what_trains_on_gpus_takes_those_of_the_cluster_and_digits_take_none(
    resources, gpus, listening, monkeypatch, tmp_path
):
    monkeypatch.setattr(addresses, "_resources", lambda _: resources)
    chosen = {"home": tmp_path / "home", "address": listening, "seeds": 1, "download": True}
    assert study.plan("figure2", data="cifar10", **chosen).to_json()["gpus"] == gpus
    assert study.plan("figure2", **chosen).to_json()["gpus"] == 0.0
    assert study.plan("figure2", data="cifar10", gpus_per_trial=0.5, **chosen).to_json()["gpus"] == 0.5


def test_ray_s_variable_names_the_cluster_unless_an_address_is_given(refusing, monkeypatch, tmp_path):
    monkeypatch.setenv("RAY_ADDRESS", refusing)
    chosen = {"home": tmp_path / "home", "seeds": 1}
    (obstacle,) = study.plan("figure2", **chosen).obstacles
    assert obstacle.endswith(". Unset it, or name another cluster by --address")
    assert obstacle.startswith(f"RAY_ADDRESS must belong to a Ray cluster that answers within 2 s (got '{refusing}')")
    assert study.plan("figure2", address="local", **chosen).obstacles == ()
