"""A night on a cluster in minutes: everything that may happen to a sweep happens, and it must be as if nothing had.

    python tests/cluster/drill.py --seed 1 --rounds 10 --out tests/benchmarks/results/drill.json

Table 9 on digits is trained on three machines, with S3, PostgreSQL and MLflow with authentication. At random moments a
machine crashes, one joins, MLflow is away for 60 s and PostgreSQL for 30 s, the store is read-only for 20 s, a worker
is stopped and woken later, and the driver is killed and its run resumed on another machine from another folder. At the
end the report, every MLflow metric and every Optuna trial are compared with those of an undisturbed run. Each round has
a seed of its own, the first of which is `--seed`. Prints what each round cost in epochs and seconds.

It needs root, since the machines are namespaces (`cluster.nodes`), and the extras `dev`.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS), str(TESTS / "benchmarks")]

import psutil  # noqa: E402
from benchmarks.kills import difference  # noqa: E402
from benchmarks.measuring import environment  # noqa: E402
from cluster.machines import Cluster  # noqa: E402
from cluster.nodes import SHARED, kill, network  # noqa: E402

SHOWN = """
import json, sys
from kills import shown

print(json.dumps(shown(*sys.argv[1:])))
"""
MLFLOW_SECONDS, POSTGRES_SECONDS, READ_ONLY_SECONDS = 60, 30, 20
STOPPED_SECONDS = (20, 60)  # of a worker
TRIES, AGAIN_SECONDS = 10, 10  # a driver that ended early is resumed so often, after so many seconds
LEFT_TO_LIVE = 0.7  # all that happens begins within this part of an undisturbed run


class Round:
    """One run on the cluster.

    Args:
        cluster: the cluster.
        name: the name of the run.
        seeds: replicates of each cell.
    """

    def __init__(self, cluster: Cluster, name: str, seeds: int) -> None:
        self.cluster, self.name = cluster, name
        self.store = ["--store", cluster.servers.store(name)]
        self.log = cluster.network.folder / f"{name}.log"
        services = ["--storage", cluster.servers.storage, "--tracking-uri", cluster.servers.tracking]
        command = ["study", "run", "table9", "--name", name, "--seeds", str(seeds), "--address", cluster.address]
        self.began = time.monotonic()
        self._driver = cluster.nodes[1].popen([*command, *self.store, *services], self.log)
        self._replaced = threading.Lock()  # held while the driver is killed and resumed

    def wait_for_training(self) -> float:
        """Wait until epochs are trained; return the time."""
        while " epochs, " not in self.log.read_text():  # in a line of progress
            if self.has_ended():
                raise SystemExit(f"{self.name} has ended before it trained:\n{self.log.read_text()}")
            time.sleep(0.2)
        return time.monotonic()

    def resume_elsewhere(self) -> None:
        """Kill the driver, and resume its run on another machine from another folder."""
        with self._replaced:
            kill(self._driver)
            self._driver.wait()
            command = ["study", "resume", self.name, *self.store]
            self._driver = self.cluster.nodes[0].popen(command, self.log, cwd=SHARED)

    def has_ended(self) -> bool:
        """Whether the driver has ended by itself."""
        with self._replaced:
            return self._driver.poll() is not None

    def wait(self, seconds: float) -> float:
        """Wait for the end of the run; return the seconds that it took."""
        while not self.has_ended():
            if time.monotonic() - self.began > seconds:
                kill(self._driver)
                raise SystemExit(f"{self.name} takes more than {seconds:g} s:\n{self.log.read_text()}")
            time.sleep(0.5)
        for _ in range(TRIES):  # as a job that is restarted: a service may have been away when the driver was resumed
            if not self._driver.returncode:
                break
            time.sleep(AGAIN_SECONDS)
            self.resume_elsewhere()
            self._driver.wait()
        took = time.monotonic() - self.began
        if self._driver.returncode:
            raise SystemExit(f"{self.name} has exit code {self._driver.returncode}:\n{self.log.read_text()}")
        return took

    def result(self) -> dict[str, Any]:
        """Return what a user sees: report, MLflow's metrics, and Optuna's trials."""
        user, servers = self.cluster.nodes[1], self.cluster.servers
        report = user.run("study", "report", self.name, "--format", "csv", *self.store).stdout
        paths = f"{TESTS / 'benchmarks'}:{TESTS}:{TESTS.parent}"
        arguments = [self.name, servers.tracking_file, servers.storage]  # its server takes minutes for all
        shown = servers.host.run("python", "-c", SHOWN, *arguments, PYTHONPATH=paths, **servers.variables).stdout
        seen = {"report": report, **json.loads(shown)}
        return json.loads(json.dumps(seen).replace(self.name, "NAME"))

    def epochs(self) -> tuple[int, int]:
        """Return the epochs that the run needed and those that it trained."""
        status = json.loads(self.cluster.nodes[1].run("study", "status", self.name, "--json", *self.store).stdout)
        return status["epochs_needed"], status["epochs_trained"]


def events(this: Round, draw: random.Random) -> dict[str, Callable[[], None]]:
    """Return what may happen, by name."""
    cluster = this.cluster
    stopped = draw.uniform(*STOPPED_SECONDS)
    victim = draw.choice([0, 1])

    def join() -> None:
        node = cluster.network.add(f"joined{len(cluster.network.nodes)}", **cluster.servers.variables)
        assert cluster.join(node).wait(300) == 0
        cluster.nodes.append(node)

    def during(context: Any, seconds: float) -> None:
        with context:
            time.sleep(seconds)

    def stop_a_worker() -> None:
        processes = [each for each in cluster.nodes[victim].training() if each.status() != psutil.STATUS_STOPPED]
        process = draw.choice(processes) if processes else None
        if process is not None:
            process.send_signal(signal.SIGSTOP)
            time.sleep(stopped)
            process.send_signal(signal.SIGCONT)

    return {
        "a machine crashes": cluster.nodes[2].crash,
        "a machine joins": join,
        "MLflow away": lambda: during(cluster.servers.without_mlflow(), MLFLOW_SECONDS),
        "PostgreSQL away": lambda: during(cluster.servers.without_postgres(), POSTGRES_SECONDS),
        "store read-only": lambda: during(cluster.servers.read_only_store(), READ_ONLY_SECONDS),
        f"a worker stopped for {stopped:.0f} s": stop_a_worker,
        "driver killed": this.resume_elsewhere,
    }


def disturbed(this: Round, draw: random.Random, seconds: float) -> list[dict[str, Any]]:
    """Let everything happen to a run, each at a random moment since it trains. Return what happened when.

    Args:
        this: the run.
        draw: draws the moments.
        seconds: for how long an undisturbed run trains.
    """
    since = this.wait_for_training()
    happened: list[dict[str, Any]] = []
    problems: list[str] = []

    def happen(name: str, event: Callable[[], None], after: float) -> None:
        time.sleep(max(0.0, since + after - time.monotonic()))
        happened.append({"event": name, "after_seconds": round(after, 1), "run_had_ended": this.has_ended()})
        try:
            event()
        except psutil.NoSuchProcess:  # its machine has crashed meanwhile
            pass
        except BaseException:  # noqa: BLE001  shown by the main thread
            problems.append(traceback.format_exc())

    threads = []
    for name, event in events(this, draw).items():
        after = draw.uniform(0, LEFT_TO_LIVE * seconds)
        threads.append(threading.Thread(target=happen, args=(name, event, after)))
        threads[-1].start()
    for thread in threads:
        thread.join()
    if problems:
        raise SystemExit("\n".join(problems))
    return sorted(happened, key=lambda each: each["after_seconds"])


def mend(cluster: Cluster) -> None:
    """Let the cluster be as at the beginning: the machine that crashed joins again, those that joined end."""
    while len(cluster.nodes) > 3:
        cluster.nodes.pop().crash()
    if not cluster.nodes[2].training() and not any("raylet" in each.name() for each in cluster.nodes[2].processes()):
        assert cluster.join(cluster.nodes[2]).wait(300) == 0


def main() -> None:
    """Do so many rounds; print and write what each cost."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seed", type=int, required=True, help="of the first round")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--replicates", type=int, default=3, help="of each cell of Table 9")
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    rounds: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder, network(Path(folder)) as made:
        cluster = Cluster(made)
        calm = Round(cluster, "undisturbed", asked.replicates)
        training = -calm.wait_for_training()
        seconds = calm.wait(3600)
        training += time.monotonic()
        expected = calm.result()
        epochs = calm.epochs()[1]
        print(f"undisturbed: {seconds:.0f} s, {epochs} epochs", flush=True)
        for seed in range(asked.seed, asked.seed + asked.rounds):
            draw = random.Random(seed)
            this = Round(cluster, f"drill-{seed}", asked.replicates)
            happened = disturbed(this, draw, training)
            took = this.wait(3600)
            seen = this.result()
            lost, doubled = difference(expected, seen)
            needed, trained = this.epochs()
            rounds.append(
                {
                    "seed": seed,
                    "equal": seen == expected,
                    "lost": lost,
                    "doubled": doubled,
                    "epochs_more": trained - needed,
                    "seconds_more": round(took - seconds),
                    "happened": happened,
                    "said": [line for line in this.log.read_text().splitlines() if "epochs, " not in line],
                }
            )
            print(json.dumps({name: value for name, value in rounds[-1].items() if name != "said"}), flush=True)
            if not rounds[-1]["equal"]:
                print(this.log.read_text(), flush=True)
            if asked.out:
                undisturbed = {"seconds": round(seconds), "training_seconds": round(training), "epochs": epochs}
                record = {"command": " ".join(["python", *sys.argv]), **environment(), "undisturbed": undisturbed}
                asked.out.write_text(json.dumps({**record, "rounds": rounds}, indent=1, ensure_ascii=False) + "\n")
            mend(cluster)
    sys.exit(not all(each["equal"] for each in rounds))


if __name__ == "__main__":
    main()
