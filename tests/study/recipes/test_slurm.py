"""The batch script for Slurm: checked, and run to its end on this machine with stand-ins for Slurm's commands."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from click.testing import Result
from helpers import call_study, parsed

ROOT = Path(__file__).parents[3]


def directives(folder: Path) -> dict[str, str]:
    """The options that the script gives to sbatch."""
    found = re.findall(r"^#SBATCH --([\w-]+)=?(.*)$", (folder / "sweep.sbatch").read_text(), re.MULTILINE)
    return dict(found)


@pytest.mark.parametrize(
    "choices", [(), ("--shared",), ("--nodes", "4", "--gpus", "8", "--cpus", "64", "--partition", "gpu", "--requeue")]
)
def test_bash_and_shellcheck_accept_every_script(
    recipe: Callable[..., Path], checked_by_shellcheck: Callable[[Path], None], choices: tuple[str, ...]
) -> None:
    folder = recipe("slurm", *choices, "table9", "--loss", "focal(gamma=2.0)")
    for name in {"sweep.sbatch", "node.sh", "driver.sh"} - ({"node.sh"} if "--shared" in choices else set()):
        checked_by_shellcheck(folder / name)


def test_the_choices_are_asked_of_slurm(recipe: Callable[..., Path]) -> None:
    nodes = ("--nodes", "4", "--gpus", "8", "--cpus", "64", "--memory", "500G", "--name", "mine")
    folder = recipe(
        "slurm", *nodes, "--time", "1-00:00:00", "--drain", "900", "--account", "lab", "--requeue", "table9"
    )
    assert directives(folder) == {
        "job-name": "mine",
        "nodes": "4",
        "ntasks-per-node": "1",
        "exclusive": "",
        "mincpus": "64",
        "gpus-per-node": "8",
        "mem": "500G",
        "account": "lab",
        "requeue": "",
        "time": "1-00:00:00",
        "signal": "B:USR1@900",
        "no-kill": "",
        "open-mode": "append",
    }


def test_what_was_not_chosen_is_left_to_slurm_but_for_memory(
    recipe: Callable[..., Path],
) -> None:
    folder = recipe("slurm", "table9")
    assert not {"gpus-per-node", "mincpus", "partition", "account", "requeue"} & set(directives(folder))
    assert directives(folder)["mem"] == "0"
    assert "scontrol requeue" not in (folder / "sweep.sbatch").read_text()


def test_a_part_of_a_node_needs_no_cluster(recipe: Callable[..., Path]) -> None:
    asked = ("--gpus", "1", "--cpus", "8", "--memory", "32G", "--requeue")
    folder = recipe("slurm", "--shared", *asked, "table9")
    expected = {"cpus-per-task": "8", "gpus-per-node": "1", "mem": "32G", "nodes": "1", "requeue": ""}
    assert expected.items() <= directives(folder).items()
    script = (folder / "sweep.sbatch").read_text()
    assert not [words for words in ("exclusive", "srun", "node.sh", "RAY_AUTH_MODE") if words in script]
    assert "--address local" in (folder / "driver.sh").read_text()
    assert {path.name for path in folder.iterdir()} == {"sweep.sbatch", "driver.sh", "secrets.env"}


def test_a_node_that_ends_ends_no_other_one(recipe: Callable[..., Path]) -> None:
    """On a cluster with WaitTime, srun kills all nodes soon after the first one ends."""
    folder = recipe("slurm", "--nodes", "2", "table9")
    (command,) = re.findall(r"^srun (?:.*\\\n)*.*$", (folder / "sweep.sbatch").read_text(), re.MULTILINE)
    assert {"--no-kill", "--kill-on-bad-exit=0", "--wait=0"} <= set(command.split())
    assert "cpus-per-task" not in command  # of the first node; others may have more, or less


def test_the_command_plans_the_run(
    recipe: Callable[..., Path],
    study_run: Callable[[str], list[str]],
    dry_run: Callable[..., Result],
    small_space: Callable[..., str],
    tmp_path: Path,
) -> None:
    services = (
        "--tracking-uri",
        "http://mlflow.example:5000",
        "--storage",
        "postgresql+psycopg://me@db.example/optuna",
    )
    folder = recipe("slurm", *services, "--data-dir", "data", small_space(), "--seeds", "2")
    words = study_run((folder / "driver.sh").read_text())
    assert words[1] == small_space()
    assert words[words.index("--home") + 1] == str(tmp_path / "home")
    assert words[words.index("--data-dir") + 1] == str(tmp_path / "data")
    assert words[-4:] == list(services)
    assert parsed(dry_run(words))["trials"]


# The whole script. 'ray symmetric-run' stops every Ray that it sees, so it sees only its own: a namespace of processes.

SRUN = '#!/bin/bash\nwhile [[ $1 == -* ]]; do shift; done\n"$@"\n'
SCONTROL = '#!/bin/bash\necho "$@" >>"$CALLS"\n'


def isolated() -> list[str]:
    """The command that gives another command processes and a network of its own."""
    for user in ([], ["--user", "--map-root-user"]):
        command = ["unshare", *user, "--net", "--pid", "--fork", "--mount-proc"]
        with_loopback = [*command, "bash", "-c", 'ip link set lo up && exec "$@"', "bash"]
        if shutil.which("unshare") and not subprocess.run([*with_loopback, "true"], capture_output=True).returncode:
            return with_loopback
    pytest.skip("this machine gives no namespaces of processes and networks ('unshare --net --pid')")


class Slurm:
    """Slurm, but for its scheduler: it runs the batch script on this machine as the only node of an allocation."""

    def __init__(self, folder: Path) -> None:
        self.calls, self.log, self.programs = folder / "calls", folder / "log", folder / "programs"
        self.programs.mkdir()
        self.calls.touch()
        self.program("srun", SRUN)
        self.program("scontrol", SCONTROL)
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "STUDY_", "MLFLOW_"))},
            "PATH": f"{self.programs}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "CALLS": str(self.calls),
            "SLURM_JOB_ID": "4711",
            "SLURM_JOB_NUM_NODES": "1",
            "SLURM_JOB_NODELIST": "node1",
            "SLURM_CPUS_ON_NODE": "2",
        }

    def program(self, name: str, text: str) -> None:
        """Put a stand-in in front of the environment's programs."""
        (self.programs / name).write_text(text)
        (self.programs / name).chmod(0o755)

    def submit(self, script: Path) -> subprocess.Popen[bytes]:
        """Start the script; its output is in `log`."""
        with self.log.open("wb") as log:
            command = [*isolated(), "bash", str(script)]
            return subprocess.Popen(command, env=self.environment, cwd="/", stdout=log, stderr=log)

    def signal(self, job: subprocess.Popen[bytes], number: int) -> None:
        """Send a signal to the batch script alone, as --signal=B: does."""
        scripts = [
            each for each in psutil.Process(job.pid).children(recursive=True) if "sweep.sbatch" in each.cmdline()[-1]
        ]
        scripts[0].send_signal(number)


def wait(job: subprocess.Popen[bytes], slurm: Slurm) -> str:
    job.wait(timeout=400)
    return slurm.log.read_text(errors="replace")


def wait_for_epochs(job: subprocess.Popen[bytes], slurm: Slurm) -> None:
    deadline = time.monotonic() + 200
    while " epochs" not in (text := slurm.log.read_text(errors="replace")):
        assert job.poll() is None, text
        assert time.monotonic() < deadline, text
        time.sleep(0.2)


def status(home: Path) -> dict[str, object]:
    (only,) = parsed(call_study("status", "--json", home=home))
    return dict(only)


@pytest.mark.slow
def test_at_the_time_limit_it_drains_and_continues_when_it_is_submitted_again(
    recipe: Callable[..., Path], tmp_path: Path
) -> None:
    slurm, home = Slurm(tmp_path), tmp_path / "home"
    folder = recipe("slurm", "--requeue", "figure2", "--seeds", "1")
    script = folder / "sweep.sbatch"
    job = slurm.submit(script)
    wait_for_epochs(job, slurm)
    slurm.signal(job, signal.SIGUSR1)
    log = wait(job, slurm)
    assert job.returncode == 130, log
    assert "stopping: workers finish their epoch and save" in log
    assert slurm.calls.read_text() == "requeue 4711\n"
    before = status(home)
    assert before["outcome"] == "interrupted"
    job = slurm.submit(script)
    log = wait(job, slurm)
    assert job.returncode == 0, log
    after = status(home)
    assert (after["outcome"], after["waiting"]) == ("complete", 0)
    assert "VINFO" not in log
    assert {path.name for path in folder.iterdir()} == {"sweep.sbatch", "node.sh", "driver.sh", "secrets.env"}
    assert slurm.calls.read_text() == "requeue 4711\n"


def test_a_ray_that_does_not_start_is_a_failure(
    recipe: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`ray symmetric-run` then exits with 0, as this stand-in does."""
    slurm = Slurm(tmp_path)
    monkeypatch.setattr(sys, "executable", str(slurm.programs / "python"))
    slurm.program("ray", "#!/bin/bash\necho 'Failed to start Ray: no room' >&2\n")
    folder = recipe("slurm", "table9")
    job = slurm.submit(folder / "sweep.sbatch")
    log = wait(job, slurm)
    assert (job.returncode, log) == (
        1,
        "Failed to start Ray: no room\nerror: Ray did not start on all nodes; the lines above say why\n",
    )


SYMMETRIC_RUN = """#!/bin/bash
echo "$RAY_ADDRESS $RAY_AUTH_TOKEN"
# Runs the command after '--' on the first node. The second node is lost, so that srun's exit code is 137.
while [ "$1" != -- ]; do shift; done
shift
"$@"
exit 137
"""
STUDY = """#!/bin/bash
echo "$RAY_ADDRESS $RAY_AUTH_TOKEN"
trap 'exit 130' TERM
echo '2 epochs'
%s
"""


@pytest.mark.parametrize("kind", [(), ("--shared",)])
@pytest.mark.parametrize(
    ("ends", "code"),
    [("exit 0", 0), ("exit 1", 1), ("while sleep 0.1; do :; done", 130), ("kill -KILL $PPID", 137)],
    ids=["complete", "failed", "at its limit", "killed before it has a code"],
)
def test_the_run_s_exit_code_is_the_job_s_when_a_node_is_lost(
    recipe: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: tuple[str, ...],
    ends: str,
    code: int,
) -> None:
    slurm = Slurm(tmp_path)
    monkeypatch.setattr(sys, "executable", str(slurm.programs / "python"))
    slurm.program("ray", SYMMETRIC_RUN)
    slurm.program("study", STUDY % ends)
    slurm.environment |= {"RAY_ADDRESS": "10.0.0.1:6379", "RAY_AUTH_TOKEN": "of another Ray"}
    folder = recipe("slurm", *kind, "--requeue", "table9")
    job = slurm.submit(folder / "sweep.sbatch")
    if code == 130:
        wait_for_epochs(job, slurm)
        slurm.signal(job, signal.SIGUSR1)
    log = wait(job, slurm)
    assert job.returncode == code, log
    assert slurm.calls.read_text() == ("requeue 4711\n" if code == 130 else "")
    assert "of another Ray" not in log
    assert not list(folder.glob("driver-*"))


@pytest.mark.parametrize(("code", "stays"), [(0, False), (1, True), (2, False), (3, False), (130, False), (137, True)])
def test_ray_s_files_stay_only_if_they_may_say_what_failed(
    recipe: Callable[..., Path], tmp_path: Path, code: int, stays: bool
) -> None:
    slurm, files = Slurm(tmp_path), tmp_path / "ray"
    slurm.program("ray", f"#!/bin/bash\nexit {code}\n")
    node = recipe("slurm", "table9") / "node.sh"
    environment = slurm.environment | {"STUDY_RAY": "127.0.0.1:20000", "RAY_TMPDIR": str(files)}
    done = subprocess.run([node], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, files.exists()) == (code, stays)
    assert (str(files) in done.stderr) == stays


def driven(recipe: Callable[..., Path], tmp_path: Path, secrets: str) -> subprocess.CompletedProcess[str]:
    """What driver.sh does with a file of passwords."""
    slurm = Slurm(tmp_path)
    slurm.program("study", '#!/bin/bash\necho "$PGPASSWORD|$AWS_REGION|$*"\n')
    folder = recipe("slurm", "table9")
    (folder / "secrets.env").write_bytes(secrets.encode())
    environment = slurm.environment | {"STUDY_DRIVER": str(tmp_path / "driver")}
    return subprocess.run([folder / "driver.sh"], env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("end", ["\n", "", "\r\n"])
def test_passwords_reach_the_driver_as_they_are_written(recipe: Callable[..., Path], tmp_path: Path, end: str) -> None:
    done = driven(recipe, tmp_path, f"#AWS_REGION=none\r\n \n\nPGPASSWORD=a=b $HOME 'x'{end}")
    home = tmp_path / "home"
    assert (done.stdout, done.stderr) == (f"a=b $HOME 'x'||run table9 --address auto --home {home}\n", "")
    assert (tmp_path / "driver.pid").read_text().strip().isdigit()
    assert (tmp_path / "driver.code").read_text() == "0\n"


@pytest.mark.parametrize(
    "line",
    ["PGPASSWORD =hunter2", "export PGPASSWORD=hunter2", "PGPASSWORD='hunter2'", 'PGPASSWORD="hunter2"', "hunter2"],
)
def test_a_line_that_is_no_variable_ends_the_job_without_being_shown(
    recipe: Callable[..., Path], tmp_path: Path, line: str
) -> None:
    done = driven(recipe, tmp_path, f"# mine\n{line}\n")
    words = "error: secrets.env, line 2 must be NAME=VALUE without 'export' and quotes\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", words)
    assert (tmp_path / "driver.code").read_text() == "2\n"


def test_programs_are_those_of_this_environment(recipe: Callable[..., Path]) -> None:
    assert (
        f"export PATH={Path(sys.executable).parent}:$PATH\n" in (recipe("slurm", "table9") / "sweep.sbatch").read_text()
    )
