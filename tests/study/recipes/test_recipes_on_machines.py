"""The files of `study cluster` at work: their commands, as they are written, on machines of the test's own."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from cluster.nodes import Network, Node, Unavailable, network

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(900)]

SRUN = """#!/bin/bash
# Starts the script on the first node, and lets the second one start it likewise.
while [[ $1 == -* ]]; do shift; done
env -0 >/mnt/shared/environment && echo "$1" >/mnt/shared/script
exec "$@"
"""
SECOND_NODE = """
until [ -s /mnt/shared/script ]; do sleep 0.2; done
exec xargs -0 -a /mnt/shared/environment sh -c 'exec env -i "$@" "$(cat /mnt/shared/script)"' sh
"""
DOCKER = '#!/bin/bash\n[ "$2" = up ] || { shift 3 && exec "$@"; }\n'  # on the machine of the container `head`


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[Network]:
    """A network without machines, but for the one that has the bridge."""
    try:
        with network(tmp_path) as made:
            yield made
    except Unavailable as reason:
        pytest.skip(str(reason))


def program(network: Network, name: str, text: str) -> None:
    """Put a stand-in of a program where all machines see it."""
    path = network.shared / "programs" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


def path(node: Node) -> str:
    return f"/mnt/shared/programs:{node.environment['PATH']}"


def status(node: Node, home: str) -> dict[str, Any]:
    (only,) = json.loads(node.run("study", "status", "--json", "--home", home).stdout)
    return dict(only)


def hosts(node: Node, home: str) -> set[str]:
    """The machines that trained the states of a home."""
    program = (
        "import json, sys; from study.store.states import Store; store = Store(sys.argv[1], create=False);"
        "print(json.dumps([each['host'] for key in store.keys() for each in store.header(key)['provenance']]))"
    )
    return set(json.loads(node.run("python", "-c", program, f"{home}/store").stdout))


def test_slurm_s_files_train_on_two_nodes(machines: Network) -> None:
    first, second = machines.add("node1"), machines.add("node2")
    first.know([second])
    choices = ["--out", "sweep", "--nodes", "2", "--home", "studies"]
    first.run("study", "cluster", "slurm", *choices, "figure2", "--seeds", "1", cwd="/mnt/shared")
    program(machines, "srun", SRUN)
    program(machines, "scontrol", '#!/bin/bash\n[ "$2" = hostnames ] && printf "node1\\nnode2\\n"\n')
    worker = second.popen(["bash", "-c", SECOND_NODE], second.folder / "log")
    job = {"SLURM_JOB_ID": "4711", "SLURM_JOB_NUM_NODES": "2", "SLURM_JOB_NODELIST": "node[1-2]"}
    job |= {"SLURM_CPUS_ON_NODE": "1", "PATH": path(first)}
    done = first.run("bash", "sweep/sweep.sbatch", code=None, seconds=400, cwd="/mnt/shared", **job)
    assert done.returncode == 0, done.stdout + done.stderr + (second.folder / "log").read_text()
    assert worker.wait(180) == 0, (second.folder / "log").read_text()
    assert status(first, "/mnt/shared/studies")["outcome"] == "complete"
    assert hosts(first, "/mnt/shared/studies") == {"node1", "node2"}


class Containers:
    """The services of a Compose file, each on a machine of its own, which has its name."""

    def __init__(self, network: Network, folder: Path) -> None:
        self.network = network
        self.services = yaml.safe_load((folder / "compose.yaml").read_text())["services"]
        lines = (folder / ".env").read_text().splitlines()
        self.passwords = dict(line.split("=", 1) for line in lines if not line.startswith("#"))
        self.nodes = {name: network.add(name) for name in self.services}
        for node in self.nodes.values():
            node.know(self.nodes.values())

    def variables(self, name: str) -> dict[str, str]:
        service = self.services[name]
        given = {key: self.filled(value) for key, value in service.get("environment", {}).items()}
        return given | (self.passwords if service.get("env_file") == ".env" else {})

    def filled(self, text: str) -> str:
        return re.sub(r"\$\{(\w+)\}", lambda match: self.passwords[match[1]], text)

    def start(self, name: str, command: Sequence[str] = ()) -> None:
        """Start a service's own command, or another one, and wait until it is healthy."""
        node, service = self.nodes[name], self.services[name]
        process = node.popen(inside(command or service["command"]), node.folder / "log", **self.variables(name))
        deadline = time.monotonic() + 300
        test = inside(service["healthcheck"]["test"][1:])
        while node.run(*test, code=None, **self.variables(name)).returncode:
            assert process.poll() is None, self.logs()
            assert time.monotonic() < deadline, self.logs()
            time.sleep(0.5)

    def logs(self) -> str:
        logs = [node.folder / "log" for node in self.nodes.values()]
        return "\n".join(f"{log}\n{log.read_text()[-2000:]}" for log in logs if log.exists())

    def start_postgres(self) -> None:
        """Do what the image of PostgreSQL does: make a user, a database, and what the file of SQL says."""
        programs = next(iter(Path("/usr/lib/postgresql").glob("*/bin/initdb")), None)
        if programs is None:
            pytest.skip("there is no PostgreSQL: install postgresql")
        node, made = self.nodes["postgres"], self.variables("postgres")
        data = "/mnt/postgres/data"
        (node.folder / "postgres").mkdir()
        subprocess.run(["chown", "postgres", str(node.folder / "postgres")], check=True)
        (node.folder / "password").write_text(made["POSTGRES_PASSWORD"])
        user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"]
        access = ["-A", "scram-sha-256", "--pwfile=/mnt/password"]
        node.run(*user, str(programs), "-D", data, "-U", made["POSTGRES_USER"], *access)
        with (node.folder / "postgres" / "data" / "pg_hba.conf").open("a") as file:
            file.write("host all all 0.0.0.0/0 scram-sha-256\n")
        server = [*user, str(programs.with_name("postgres")), "-D", data]
        server += ["-c", "listen_addresses=*", "-c", "unix_socket_directories=/tmp"]
        node.environment |= {"PGHOST": "/tmp", "PGPASSWORD": made["POSTGRES_PASSWORD"]}
        self.start("postgres", server)
        sql = [f"CREATE DATABASE {made['POSTGRES_DB']}", self.sql()]
        for each in sql:
            node.run("psql", "-U", made["POSTGRES_USER"], "-d", "postgres", "-c", each)

    def sql(self) -> str:
        compose = yaml.safe_load((self.network.shared / "sweep" / "compose.yaml").read_text())
        return str(compose["configs"]["databases"]["content"])


def inside(command: Sequence[str]) -> list[str]:
    """A command with the folders of its volumes where the machines have them."""
    volumes = {"/study": "/mnt/shared/study", "/artifacts": "/mnt/work/artifacts"}
    return [re.sub(r"(?<![\w/])(/study|/artifacts)\b", lambda match: volumes[match[1]], word) for word in command]


def test_the_containers_train_and_keep_their_records(machines: Network) -> None:
    services = machines.services
    choices = ["--out", "sweep", "--nodes", "2", "--cpus", "1"]
    services.run("study", "cluster", "docker", *choices, "figure2", "--seeds", "1", cwd="/mnt/shared")
    folder = machines.shared / "sweep"
    containers = Containers(machines, folder)
    containers.start_postgres()
    for name in ("mlflow", "head", "worker1", "worker2"):
        containers.start(name)
    head = containers.nodes["head"]
    program(machines, "docker", DOCKER)
    (folder / "run.sh").write_text(inside([(folder / "run.sh").read_text()])[0])
    variables = containers.variables("head") | {"PATH": path(head)}
    done = head.run("./run.sh", code=None, seconds=400, cwd="/mnt/shared/sweep", **variables)
    assert done.returncode == 0, done.stdout + done.stderr
    assert status(head, "/mnt/shared/study")["outcome"] == "complete"
    assert hosts(head, "/mnt/shared/study") == {"worker1", "worker2"}
    for password in containers.passwords.values():
        assert password not in done.stdout + done.stderr
        assert not [each for each in folder.glob("*.*") if password in each.read_text() and each.name != ".env"]
