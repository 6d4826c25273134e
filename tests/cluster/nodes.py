"""Machines of a test's own: namespaces with an address, a host name, processes and files that no other machine sees.

The machines reach each other by a bridge, and nothing else: its network namespace has no route to anywhere. All that
runs on a machine ends with its first process, which ends with this one, so that nothing is left after a SIGKILL either.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[2]
NETWORK = "198.51.100"  # of TEST-NET-2, which belongs to nobody
SHARED = "/mnt/shared"  # is one folder on all machines
PRIVATE = "/mnt/work"  # is another folder on each, in which commands are executed

# What a machine executes first. Its children that nobody waits for are let go, as init does.
_BOOT = """
set -eu
mount --bind "$FOLDER" /mnt
mount --bind "$SHARED_FOLDER" /mnt/shared
for kept in $KEPT; do  # the program itself may be in a temporary folder
  mkdir -p "/mnt$kept"
  mount --bind "$kept" "/mnt$kept"
done
mount --rbind /mnt/tmp /tmp
mount -t tmpfs -o size=1g shm /dev/shm
mount --bind /mnt/hosts /etc/hosts
hostname "$NAME"
ip link set lo up
trap '' CHLD
echo ready
exec cat
"""
_OTHERS = ("AWS_", "MLFLOW_", "OPTUNA_", "PG", "PYTEST_", "RAY_", "STUDY_", "TUNE_")  # of this machine's variables


class Unavailable(Exception):
    """This machine cannot make namespaces, or lacks a program; the message says why."""


class Node:
    """A machine.

    Args:
        name: the host name. On the machine itself it leads to 127.0.1.1, as on Debian.
        number: the last part of its address.
        folder: what the machine sees as /mnt.
        shared: what it sees as /mnt/shared; another folder than the others' makes it a machine that sees another store.
        lan: the machine that has the bridge; None for that machine itself.
        variables: environment variables of all that is executed on it.

    Raises:
        Unavailable: if namespaces are not allowed.
    """

    def __init__(
        self, name: str, number: int, folder: Path, shared: Path, lan: Node | None, variables: dict[str, str]
    ) -> None:
        self.name, self.address, self.folder = name, f"{NETWORK}.{number}", folder
        for each in ("home", "shared", "tmp", "work"):
            (folder / each).mkdir(parents=True, exist_ok=True)
        folder.chmod(0o755)  # servers that do not run as root have their files in it
        (folder / "tmp").chmod(0o1777)
        (folder / "hosts").write_text(f"127.0.0.1 localhost\n127.0.1.1 {name}\n")
        own = {"HOME": "/mnt/home", "TMPDIR": "/tmp", "PYTHONPATH": str(ROOT), "MLFLOW_DISABLE_TELEMETRY": "true"}
        ours = {each: value for each, value in os.environ.items() if not each.startswith(_OTHERS)}
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        self.environment = ours | {"RAY_USAGE_STATS_ENABLED": "0"} | own | {"PATH": path} | variables
        kept = {str(path) for path in (ROOT, Path(sys.prefix), Path(sys.base_prefix)) if path.is_relative_to("/tmp")}
        boot = {"NAME": name, "FOLDER": str(folder), "SHARED_FOLDER": str(shared), "KEPT": " ".join(sorted(kept))}
        namespaces = ["--mount", "--uts", "--ipc", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
        self._started: list[subprocess.Popen[str]] = []
        self._first = subprocess.Popen(
            ["unshare", *namespaces, "sh", "-c", _BOOT],
            env=os.environ | boot,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._first.stdout is not None
        assert self._first.stderr is not None
        if self._first.stdout.readline() != "ready\n":
            reason = self._first.stderr.read().strip()
            self.end()
            raise Unavailable(f"namespaces are not allowed: {reason}")
        (child,) = psutil.Process(self._first.pid).children()
        self._pid = child.pid
        try:
            self._plug_in(lan)
        except subprocess.CalledProcessError as error:
            self.end()
            raise Unavailable(f"a network of our own is not allowed: {error.stderr.strip()}") from error

    def _plug_in(self, lan: Node | None) -> None:
        if lan is None:
            # With an address of its own: otherwise it would change when a machine is added, and be away for seconds.
            self._ip("link add lan address 02:00:00:00:00:01 type bridge")
            self._ip(f"addr add {self.address}/24 dev lan")
            self._ip("link set lan up")
        else:
            lan._ip(f"link add {self.name} type veth peer name eth0 netns {self._pid}")
            lan._ip(f"link set {self.name} master lan up")
            self._ip(f"addr add {self.address}/24 dev eth0")
            self._ip("link set eth0 up")

    def _ip(self, arguments: str) -> None:
        command = ["nsenter", "--net", "--target", str(self._pid), "ip", *arguments.split()]
        subprocess.run(command, capture_output=True, text=True, check=True)

    def popen(
        self, command: Sequence[str], log: Path | None = None, cwd: str = PRIVATE, **variables: str
    ) -> subprocess.Popen[str]:
        """Start a command on this machine; its output goes to pipes, or both kinds to the end of a file."""
        enter = ["nsenter", "--mount", "--uts", "--ipc", "--net", "--pid", "--target", str(self._pid)]
        with (log or Path(os.devnull)).open("a") as file:
            process = subprocess.Popen(
                [*enter, "env", "-C", cwd, *command],
                env=self.environment | variables,
                stdin=subprocess.DEVNULL,
                stdout=file if log else subprocess.PIPE,
                stderr=file if log else subprocess.PIPE,
                text=True,
            )
        self._started.append(process)
        return process

    def run(
        self, *command: str, code: int | None = 0, seconds: float = 600.0, cwd: str = PRIVATE, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """Execute a command on this machine, with the exit code that is expected; None for any."""
        process = self.popen(command, cwd=cwd, **variables)
        try:
            output, errors = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            kill(process)
            output, errors = process.communicate()
            raise AssertionError(f"{self.name}: {command} took more than {seconds:g} s\n{output}{errors}") from None
        except BaseException:
            kill(process)
            raise
        assert code is None or process.returncode == code, f"{self.name}: {command}\n{output}{errors}"
        return subprocess.CompletedProcess(command, process.returncode, output, errors)

    def freeze(self) -> None:
        """Stop all processes of this machine, until they are thawed."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let all processes of this machine go on."""
        self._signal(signal.SIGCONT)

    def know(self, nodes: Iterable[Node]) -> None:
        """Let this machine find the addresses of others by their names, as in most networks, but not in all."""
        with (self.folder / "hosts").open("a") as file:
            file.writelines(f"{each.address} {each.name}\n" for each in nodes if each is not self)

    def crash(self) -> None:
        """Kill all processes of this machine, as a crash does; the machine can be used again."""
        self._signal(signal.SIGKILL)

    def processes(self) -> list[psutil.Process]:
        """Return what runs on this machine, except its first process."""
        space, mine = Path(f"/proc/{self._pid}/ns/pid").readlink(), []
        for process in psutil.process_iter():
            with suppress(OSError, psutil.Error):
                if process.pid != self._pid and Path(f"/proc/{process.pid}/ns/pid").readlink() == space:
                    mine.append(process)
        return mine

    def training(self) -> list[psutil.Process]:
        """Return the processes on this machine that train, but for ranks after the first."""
        return self.running("ray::StageTrain")

    def running(self, name: str) -> list[psutil.Process]:
        """Return the processes on this machine whose name begins like this."""
        mine = []
        for process in self.processes():
            with suppress(psutil.Error):
                if process.name().startswith(name):
                    mine.append(process)
        return mine

    def _signal(self, number: int) -> None:
        for process in self.processes():
            with suppress(psutil.Error):
                process.send_signal(number)

    def end(self) -> None:
        """Kill all that runs on this machine, as when its power fails. It cannot be used any more."""
        for process in [self._first, *self._started]:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout, process.stderr):
                if pipe is not None:
                    pipe.close()


def kill(process: subprocess.Popen[str]) -> None:
    """Send SIGKILL to what `Node.popen` has started, and not only to its helper here."""
    with suppress(psutil.NoSuchProcess):
        for each in psutil.Process(process.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                each.kill()
    process.kill()


class Network:
    """Machines beside each other; the first one is called `services`, has the bridge, and is no node of a cluster."""

    def __init__(self, folder: Path, variables: dict[str, str]) -> None:
        self.folder, self.shared, self._variables = folder, folder / "shared", variables
        self.shared.mkdir()
        self.nodes: list[Node] = []
        self.services = self.add("services")

    def add(self, name: str, shared: Path | None = None, **variables: str) -> Node:
        """Add a machine; see `Node`."""
        lan = self.nodes[0] if self.nodes else None
        folder, number = self.folder / name, len(self.nodes) + 1
        node = Node(name, number, folder, shared or self.shared, lan, self._variables | variables)
        self.nodes.append(node)
        return node


@contextmanager
def network(folder: Path, **variables: str) -> Iterator[Network]:
    """Make a network whose machines all have these environment variables; it ends with the context.

    Raises:
        Unavailable: if this machine cannot make one.
    """
    for program in ("unshare", "nsenter", "ip"):
        if shutil.which(program) is None:
            raise Unavailable(f"there is no program {program!r}: install util-linux and iproute2")
    made = Network(folder, variables)
    try:
        yield made
    finally:
        for node in made.nodes:
            node.end()
