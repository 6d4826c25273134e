"""The connection to Ray: a dead Ray is noticed, a slow one is not lost, and workers get the user's modules."""

import gc
import ipaddress
import os
import socket
import subprocess
import sys
import threading
import time
import weakref
from itertools import count
from pathlib import Path

import psutil
import pytest

from study import scratch
from study.errors import Away, Refusal
from study.execution import cluster
from study.planning.stored import Resources


@pytest.mark.parametrize("answer", ["dead", "silence"])
def test_a_ray_that_is_dead_or_silent_is_lost(monkeypatch, answer):
    monkeypatch.setattr(cluster, "WATCH_SECONDS", 0.01)
    asked, ended, lost = count(), threading.Event(), threading.Event()

    def nodes():
        if next(asked) > 2:
            if answer == "silence":
                ended.wait(30)
            return [{"NodeID": "here", "Alive": answer != "dead"}]
        return [{"NodeID": "here", "Alive": True}]

    monkeypatch.setattr(cluster.ray, "nodes", nodes)
    threading.Timer(5, ended.set).start()
    cluster._watch("here", [], ended, lost.set, patience=10)
    assert lost.is_set()
    assert not ended.is_set()
    ended.set()


def test_a_ray_that_answers_slowly_is_not_lost(monkeypatch):
    monkeypatch.setattr(cluster, "WATCH_SECONDS", 0.01)
    ended, lost = threading.Event(), threading.Event()

    def nodes():
        time.sleep(0.05)  # five ticks
        return [{"NodeID": "here", "Alive": True}]

    monkeypatch.setattr(cluster.ray, "nodes", nodes)
    threading.Timer(2, ended.set).start()
    cluster._watch("here", [], ended, lost.set, patience=100)
    assert not lost.is_set()


@pytest.mark.parametrize("is_gone", [True, False])
def test_a_head_that_takes_no_connections_is_lost_sooner_than_one_that_is_slow(monkeypatch, is_gone):
    monkeypatch.setattr(cluster, "WATCH_SECONDS", 0.01)
    monkeypatch.setattr(cluster, "GONE_SECONDS", 0.5)
    monkeypatch.setattr(cluster.ray, "nodes", lambda: ended.wait(30))
    ended, lost = threading.Event(), threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:
        head = f"127.0.0.1:{server.getsockname()[1]}"
        if is_gone:
            server.close()
        threading.Timer(2, ended.set).start()
        cluster._watch("here", [], ended, lost.set, head, patience=10_000)
    assert lost.is_set() == is_gone
    ended.set()


def test_a_ray_whose_process_has_ended_is_lost_at_once_though_nothing_asks_it(monkeypatch):
    monkeypatch.setattr(cluster, "WATCH_SECONDS", 0.01)
    monkeypatch.setattr(cluster.ray, "nodes", lambda: ended.wait(30))
    ended, lost = threading.Event(), threading.Event()
    part = subprocess.Popen(["sleep", "60"])
    threading.Timer(5, ended.set).start()
    threading.Timer(0.5, part.kill).start()
    cluster._watch("here", [psutil.Process(part.pid)], ended, lost.set)
    assert lost.is_set()
    assert not ended.is_set()
    ended.set()
    part.wait()


BROUGHT = """
import sys
from pathlib import Path

import ray

from study import scratch, modules
from study.execution import cluster
from study.planning.stored import Resources


@ray.remote
def worker(path):
    return modules.find(path, "loss", path).own, Path(path).exists()


path = sys.argv[1]
modules.find(path, "loss", path, ships=True)
with cluster.connected(Resources()):
    Path(path).unlink()  # as on a machine that has no such file
    print(*ray.get(worker.remote(path)))
"""


def test_workers_find_a_file_of_the_user_s_where_ray_has_brought_it(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("own = 'here'\n")
    command = [sys.executable, "-c", BROUGHT, str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (0, "here False\n"), done.stderr


KILLED = """
import os, signal
import ray
from study.execution import cluster
from study.planning.stored import Resources
with cluster.connected(Resources()):
    print(ray._private.worker._global_node.get_session_dir_path(), flush=True)
    if {killed}:
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
@pytest.mark.parametrize("killed", [True, False])
def test_no_driver_leaves_a_folder_of_ray(killed):
    command = [sys.executable, "-c", KILLED.format(killed=killed)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    session = Path(done.stdout.strip())
    assert session.name.startswith("session_"), done.stderr
    if killed:
        deadline = time.monotonic() + 30
        while session.exists() and time.monotonic() < deadline:  # its Ray ends a moment later
            scratch.remove_of_dead_processes(session.parent, "session_*")
            time.sleep(0.5)
    assert not session.exists()


def test_no_object_of_ray_is_collected_while_ray_shuts_down(monkeypatch):
    class Kept:
        """A part of a cycle, as Tune leaves them."""

    kept = Kept()
    kept.itself = kept
    left, seen = weakref.ref(kept), []
    del kept
    monkeypatch.setattr(cluster.ray, "shutdown", lambda: seen.append((left(), gc.isenabled())))
    cluster._shut_down()
    assert seen == [(None, False)]
    assert gc.isenabled()


LISTENING = """
import os
import psutil
import ray
from study.execution import cluster
from study.planning.stored import Resources

os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])  # as 'taskset' and batch systems do
with cluster.connected(Resources()):
    worker = ray.remote(num_cpus=1)(lambda: 1)
    ray.get(worker.remote())
    here = psutil.Process()
    for process in [here, *here.children(recursive=True)]:
        for each in process.net_connections():
            if each.status == psutil.CONN_LISTEN:
                print(each.laddr.ip)
    words = [word for process in here.children(recursive=True) for word in process.cmdline()]
    print(ray.cluster_resources()["CPU"])
    print(any("dashboard/agent.py" in word and " --minimal" in word for word in words))
"""


def test_a_ray_of_our_own_listens_on_loopback_uses_the_cpus_that_may_be_used_and_has_no_dashboard():
    done = subprocess.run([sys.executable, "-c", LISTENING], capture_output=True, text=True, timeout=120, check=True)
    *addresses, count, is_minimal = done.stdout.splitlines()
    assert (count, is_minimal) == ("1.0", "True")
    assert len(addresses) >= 5
    assert {ipaddress.ip_address(each.removeprefix("::ffff:")).is_loopback for each in addresses} == {True}, addresses


def test_a_variable_that_tune_refuses_is_taken_away():
    program = "import os, study.execution.cluster; print('TUNE_RESULT_DIR' in os.environ)"
    environment = os.environ | {"TUNE_RESULT_DIR": "/results"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_a_temporary_folder_too_deep_for_ray_is_refused_by_its_variable(tmp_path):
    program = (
        "from study.execution.cluster import connected\nfrom study.planning.stored import Resources\n"
        "from study.errors import Refusal\n"
        "try:\n    with connected(Resources()): pass\nexcept Refusal as error: print(error)"
    )
    deep = tmp_path / ("d" * 90)
    deep.mkdir()
    environment = {name: value for name, value in os.environ.items() if name != "RAY_TMPDIR"} | {"TMPDIR": str(deep)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("TMPDIR must be a folder with a short path")


@pytest.mark.parametrize(("failures", "words"), [(2, ""), (3, "must be the address of a running Ray cluster")])
def test_a_client_whose_process_died_on_the_head_connects_again(monkeypatch, failures, words):
    told = iter([ConnectionAbortedError("Initialization failure from server:")] * failures)

    def init(**_):
        for error in told:
            raise error

    monkeypatch.setattr(cluster.ray, "is_initialized", lambda: False)  # other tests may have connected
    monkeypatch.setattr(cluster.ray, "init", init)
    if words:
        with pytest.raises(Refusal, match=words), cluster.connected(Resources(address="ray://host:1")):
            pass
    else:
        cluster._init("ray://host:1", {})


@pytest.mark.parametrize(
    "error", [Exception("The node timed out during startup. GCS is slow."), RuntimeError("No node")]
)
def test_a_ray_that_does_not_start_is_one_line(monkeypatch, error):
    def init(**_):
        raise error

    monkeypatch.setattr(cluster.ray, "init", init)
    monkeypatch.setattr(cluster.ray, "is_initialized", lambda: False)
    words = f"^Ray did not start: {str(error).rstrip('.')}. Give the command again$"
    with pytest.raises(Away, match=words), cluster.connected(Resources()):
        pass


LOSING = """
import os, signal, time
from study.execution import cluster
from study.planning.stored import Resources

class Killed:
    def end(self):
        os.kill(os.getpid(), signal.SIGKILL)

with cluster.connected(Resources()):
    actor = cluster.ray.remote(num_cpus=0)(Killed).remote()
    try:
        cluster.ray.get(actor.end.remote())
    except cluster.ray.exceptions.ActorDiedError:
        print("lost", flush=True)
    time.sleep(3)  # Ray tells of it in the background
"""


@pytest.mark.slow
def test_ray_writes_nothing_about_a_lost_process_between_the_lines_of_a_report():
    done = subprocess.run([sys.executable, "-c", LOSING], capture_output=True, text=True, timeout=120, check=True)
    assert (done.stdout, done.stderr) == ("lost\n", "")


HOMELESS = """
import os

import ray

from study.execution import cluster
from study.planning.stored import Resources

for _ in range(2):
    with cluster.connected(Resources()):
        print(ray.get(ray.remote(lambda: "trained").remote()))
    print(os.environ.get("RAY_AUTH_TOKEN"))
"""


def test_ray_starts_without_a_home_directory():
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH_")}
    environment["HOME"] = "/proc/nowhere"  # not even root can make it
    command = [sys.executable, "-c", HOMELESS]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "trained\nNone\n" * 2, "")
