"""Whatever happens to a run, after `study resume` it is as if nothing had."""

from __future__ import annotations

import json
import os
import platform
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import takewhile
from pathlib import Path

import pytest
from benchmarks import kills
from helpers import Study, s3_url

from study.errors import Away
from study.execution import outage
from study.planning.growth import redraft
from study.store import records
from study.store.states import Store

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Four cells of 24 epochs, two replicates: two trunks of 13 each, four branches of 11."""
    return kills.write_space(tmp_path_factory.mktemp("space"), epochs=24)


@pytest.fixture(scope="module")
def whole(command: Study, space: str, one_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home of the run that nothing happens to."""
    home = tmp_path_factory.mktemp("whole")
    command("run", space, "--seeds", str(kills.SEEDS), "--name", kills.RUN, "--workers", "2", home=home)
    return home


@pytest.fixture(scope="module")
def expected(whole: Path) -> dict[str, object]:
    return kills.everything(whole)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def begin(space: str, home: Path, *more: str) -> subprocess.Popen[str]:
    """Start the run in a process of its own, without Ray's sharing."""
    return kills.study("run", space, "--seeds", str(kills.SEEDS), "--name", kills.RUN, *more, home=home)


def wait_for(home: Path, epochs: int) -> None:
    deadline = time.monotonic() + 120
    while kills.epochs_trained(home) < epochs:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def status(command: Study, home: Path) -> dict[str, object]:
    return json.loads(command("status", kills.RUN, "--json", home=home).stdout)


@pytest.mark.parametrize("how", ["SIGTERM", "SIGTERM to all of its processes", "stop --now"])
def test_a_run_that_is_stopped_resumes_to_the_same_end(
    how: str, space: str, expected: object, home: Path, command: Study, tmp_path: Path
) -> None:
    draw = random.Random(seed := time.time_ns())
    moment = draw.randint(1, 50)
    print(f"seed {seed}: {how} after {moment} epochs")
    process = begin(space, home)
    wait_for(home, moment)
    elsewhere, resume_home = (), home
    if how == "stop --now":  # from another home that names the same store, and so is the resume
        elsewhere, resume_home = ("--store", str(home / "store")), tmp_path / "elsewhere"
        command(*how.split(), kills.RUN, *elsewhere, home=resume_home)
    elif how == "SIGTERM":
        process.send_signal(signal.SIGTERM)
    else:  # as a machine that goes down does; Ray's own processes end at once
        os.killpg(process.pid, signal.SIGTERM)
    output, _ = process.communicate(timeout=90)
    assert process.returncode == 130, output
    stopped = status(command, home)
    assert stopped["outcome"] == "interrupted"
    same = ("run", space, "--seeds", str(kills.SEEDS), "--name", kills.RUN)
    kept = json.loads(command(*same, "--dry-run", "--json", home=home).stdout)
    assert stopped["epochs_saved"] <= kept["epochs_needed"] - kept["epochs_to_train"]
    if how == "SIGTERM":
        assert stopped["epochs_saved"] == stopped["epochs_trained"] == kept["epochs_needed"] - kept["epochs_to_train"]

    command("resume", kills.RUN, *elsewhere, home=resume_home)
    after = status(command, home)
    assert (after["complete"], after["outcome"]) == (8, "complete")
    if how == "SIGTERM":
        assert "workers finish their epoch and save" in output
        assert after["epochs_trained"] == after["epochs_needed"], "a drain loses nothing"
    assert kills.everything(home) == expected


def test_what_the_driver_cannot_look_up_counts_as_trained_by_nobody(
    space: str, home: Path, command: Study, one_ray: None, expected: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> bool:
        raise Away("no route to host")

    monkeypatch.setattr(Store, "has", away)  # in this process, and not in the workers
    command("run", space, "--seeds", str(kills.SEEDS), "--name", kills.RUN, "--workers", "2", home=home)
    after = status(command, home)
    assert after["epochs_trained"] == after["epochs_needed"]
    assert kills.everything(home) == expected


def test_a_second_driver_is_refused_while_the_first_is_alive(space: str, home: Path, command: Study) -> None:
    process = begin(space, home)
    wait_for(home, 1)
    before = sorted(path.name for path in home.rglob("*.json"))
    for arguments in (["resume", kills.RUN], ["run", space, "--seeds", "5", "--name", kills.RUN]):
        refused = command(*arguments, home=home, code=2)
        assert f"process {process.pid}" in str(refused.exception)
        assert "study stop" in str(refused.exception)
    assert [name for name in sorted(path.name for path in home.rglob("*.json")) if name not in before] == []
    process.kill()
    process.wait()
    assert command("resume", kills.RUN, home=home).exit_code == 0  # at once: its process is gone


@pytest.mark.parametrize("workers", [1, 4])  # and `whole` has two
def test_any_number_of_workers_trains_the_minimum_to_the_same_report(
    workers: int, space: str, whole: Path, home: Path, command: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    from study.planning import tree

    ordered = tree.stages

    def shuffled(*arguments: object, **named: object) -> list[tree.Stage]:
        stages = ordered(*arguments, **named)  # type: ignore[arg-type]
        random.shuffle(stages)
        return stages

    monkeypatch.setattr(tree, "stages", shuffled)
    each = ["--workers", str(workers), "--cpus-per-trial", "0.5"]
    command("run", space, "--seeds", str(kills.SEEDS), "--name", kills.RUN, *each, home=home)
    after = status(command, home)
    assert after["epochs_trained"] == after["epochs_needed"] == 2 * (2 * 13 + 4 * 11)
    reports = [command("report", kills.RUN, "--format", "csv", home=each).stdout for each in (home, whole)]
    assert reports[0] == reports[1]


def test_damage_is_noticed_set_aside_and_trained_again(
    whole: Path, expected: object, home: Path, command: Study, one_ray: None
) -> None:
    shutil.copytree(whole, home)
    store = Store(str(home / "store"))
    draft = redraft(records.find(store, kills.RUN)[0])
    draw = random.Random(seed := time.time_ns())
    print(f"seed {seed}")
    first, second, third = draw.sample(sorted({recipe.keys[-1] for recipe in draft.recipes.values()}), 3)
    flipped, cut, foreign = (home / "store" / "states" / key[:2] / key for key in (first, second, third))
    content = bytearray(flipped.read_bytes())
    content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    flipped.write_bytes(content)
    cut.write_bytes(cut.read_bytes()[: draw.randrange(cut.stat().st_size)])
    foreign.write_bytes(b"something else")

    again = command("resume", kills.RUN, home=home)
    assert again.stderr.count("damaged: ") == 3
    assert len(list((home / "store" / "damaged").iterdir())) == 3
    assert store.verify(store.keys()) == {}
    after = status(command, home)
    assert after["epochs_trained"] == after["epochs_needed"] + 3 * 11, "only the branches are trained again"
    assert kills.everything(home) == expected
    assert "damaged" not in command("resume", kills.RUN, home=home).stderr, "reported once"


def test_what_cannot_be_saved_fails_alone_and_resume_finishes_it(
    space: str,
    whole: Path,
    expected: object,
    home: Path,
    command: Study,
    one_ray: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(outage, "ONLY_SECONDS", 0.5)
    # The folder of one state cannot be made: the save raises the OSError that a full disk raises.
    store = Store(str(whole / "store"))
    recipe = redraft(records.find(store, kills.RUN)[0]).recipes["small/CB⇒CR (digits-LT IF 50)", 1]
    others = {key[:2] for key in store.sizes() if key != recipe.keys[-1]}
    blocked = home / "store" / "states" / recipe.keys[-1][:2]
    assert blocked.name not in others, "another state lies in the same folder: change the space"
    blocked.parent.mkdir(parents=True)
    blocked.write_text("in the way")

    failed = command("run", space, "--seeds", str(kills.SEEDS), "--name", kills.RUN, home=home, code=1)
    (line,) = [line for line in failed.stderr.splitlines() if line.startswith("failed: ")]
    assert "CB⇒CR (digits-LT IF 50) r1: " in line
    assert "Traceback" not in failed.stderr
    assert status(command, home)["complete"] == 7
    assert "its state cannot be saved or read, and the driver can write" in line
    assert status(command, home)["failed"] == 0, "the training did not fail"
    shown = command("logs", kills.RUN, "CB⇒CR r1", home=home).stdout  # although it was not given up for good
    assert f" r1 on {platform.node()}: " in shown
    assert "its state cannot be saved or read, and the driver can write" in shown

    blocked.unlink()
    command("resume", kills.RUN, home=home)
    assert kills.everything(home) == expected


def test_a_store_on_s3_does_all_the_same(
    space: str, whole: Path, home: Path, command: Study, one_ray: None, s3: str, tmp_path: Path
) -> None:
    url = s3_url(s3, "study", user="key:hunter2@")
    done = command("run", space, "--seeds", str(kills.SEEDS), "--name", kills.RUN, "--store", url, home=home)
    assert "hunter2" not in done.output
    assert not (home / "store").exists()
    reports = [
        command("report", kills.RUN, "--format", "csv", *more, home=each).stdout
        for each, more in ((tmp_path / "elsewhere", ["--store", url]), (whole, []))
    ]
    assert reports[0] == reports[1]
    again = command("resume", kills.RUN, "--store", url, home=home)
    assert "failed" not in again.stderr
    state = json.loads(command("status", kills.RUN, "--json", "--store", url, home=home).stdout)
    assert (state["outcome"], state["epochs_trained"]) == ("complete", state["epochs_needed"])
    for path in (path for path in home.rglob("*") if path.is_file()):
        assert b"hunter2" not in path.read_bytes(), path


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 60 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=60m", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a file system")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_while_the_disk_is_full_training_waits_and_then_nothing_is_lost_or_trained_twice(
    space: str, expected: object, small_disk: Path, command: Study
) -> None:
    home, ballast = small_disk / "home", small_disk / "ballast"
    process = begin(space, home)
    wait_for(home, 1)
    with suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(1 << 12))
    assert process.stdout is not None
    lines = list(takewhile(lambda line: not line.startswith("training waits"), process.stdout))
    ballast.unlink()
    output, _ = process.communicate(timeout=120)
    output = "".join(lines) + output
    assert process.returncode == 0, output
    assert not re.search("^failed: ", output, re.MULTILINE)
    assert re.search(r"^the store can be used again, after \d+ s$", output, re.MULTILINE)
    assert status(command, home)["epochs_trained"] == status(command, home)["epochs_needed"]
    assert kills.everything(home) == expected


def test_the_death_of_ray_closes_mlflow_s_runs(space: str, home: Path) -> None:
    process = begin(space, home)
    wait_for(home, 10)
    with sqlite3.connect(home / "mlflow.db") as database:
        assert database.execute("SELECT 1 FROM runs WHERE status = 'RUNNING'").fetchall()
    raylet = kills._find(process, "raylet")
    assert raylet is not None
    os.kill(raylet, signal.SIGKILL)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert "Ray has ended. Saved states stay, and 'study resume" in output
    with sqlite3.connect(home / "mlflow.db") as database:
        assert {status for (status,) in database.execute("SELECT status FROM runs")} <= {"KILLED", "FINISHED"}
    assert kills.starts(home)[-1]["outcome"] == "interrupted"
