"""SIGKILLs at random moments over the driver, a worker and the raylet of a small real run; then it must be as if none.

    python tests/benchmarks/kills.py --kills 100 --out tests/benchmarks/results/kills.json

Prints a table of the kills with what each start lost and the time until training went on, and whether the report, every
MLflow metric and every Optuna trial equal those of the same run undisturbed. The suite does twenty
(tests/study/execution/test_kills.py).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

SPACE = """
from dataclasses import replace
from search_spaces import table9
from search_spaces.shared.protocol import bases, trial

def space(request):
    table, trials = table9.space(request), []
    for config in bases(request, ()):
        for first, switch in (("IB", "IB"), ("IB", "CR"), ("CB", "CB"), ("CB", "CR")):
            cell = replace(config, first=first, switch=switch, epochs={epochs}, milestones=({epochs} // 2,), S=1)
            trials.append(trial(cell, cell.combination, {{"first": first, "switch": switch, "S": 1}}, {{}}))
    return replace(table, name="small", trials=tuple(trials))
"""
RUN, SEEDS = "killed", 2
VICTIMS = ("driver", "worker", "worker", "worker", "raylet")


@dataclass
class Kill:
    """One SIGKILL.

    Attributes:
        start: the number of the driver's start that it hit.
        victim: driver, worker or raylet.
        after_seconds: since that start.
        epochs_unsaved: trained but in no state at that moment: what the kill of a driver or raylet costs, and that of a
            worker at most; the record is two seconds behind at most.
        seconds_to_go_on: until more epochs were recorded than before; the record is two seconds behind at most.
    """

    start: int
    victim: str
    after_seconds: float
    epochs_unsaved: int
    seconds_to_go_on: float | None = None


def write_space(folder: Path, epochs: int) -> str:
    """A space of four cells; two trunks of half the epochs, four branches."""
    path = folder / "small.py"
    path.write_text(SPACE.format(epochs=epochs))
    return str(path)


def study(*arguments: str, home: Path) -> subprocess.Popen[str]:
    """The command in a process group of its own."""
    theirs = ("MLFLOW_TRACKING_URI", "STUDY_HOME")
    environment = {name: value for name, value in os.environ.items() if name not in theirs}
    return subprocess.Popen(
        [sys.executable, "-m", "study", *arguments, "--home", str(home)],
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def disturb(space: str, home: Path, kills: int, draw: random.Random, patient: bool = False) -> list[Kill]:
    """Start and resume a run while its processes are killed, until it is complete or so many kills are done.

    The last start is left alone and completes the run. Only if `patient` is there training between two kills, and the
    time until it goes on is measured.
    """
    done: list[Kill] = []
    begun = 0
    while True:
        begun += 1
        planned = (home / "store" / "runs" / RUN / "plan.json").exists()
        arguments = ["resume", RUN] if planned else ["run", space, "--seeds", str(SEEDS), "--name", RUN]
        process, started = study(*arguments, home=home), time.monotonic()
        if patient and done and done[-1].seconds_to_go_on is None:
            _see_going_on(home, process, done[-1], time.monotonic())
        while len(done) < kills and process.poll() is None:
            victim = draw.choice(VICTIMS)
            pid = _find(process, victim)
            if pid is None:
                continue
            _wait(process, draw.uniform(0, 12 if victim == "driver" else 3))
            if process.poll() is not None:
                break
            unsaved, after = epochs_unsaved(home), round(time.monotonic() - started, 1)
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                done.append(Kill(begun, victim, after, unsaved))
            if victim != "worker":
                process.wait(90)
            elif patient:
                _see_going_on(home, process, done[-1], time.monotonic())
        output, _ = process.communicate(timeout=300)
        if process.returncode == 0:
            return done
        assert process.returncode in (-signal.SIGKILL, 130, 1), output  # 1: Ray ended the process before we did


def _see_going_on(home: Path, process: subprocess.Popen[str], kill: Kill, since: float) -> None:
    """Wait until more is trained than at the kill, and note how long that took."""
    before = epochs_trained(home)
    while process.poll() is None and time.monotonic() - since < 60:
        if epochs_trained(home) > before:
            kill.seconds_to_go_on = round(time.monotonic() - since, 1)
            return
        time.sleep(0.1)


def _wait(process: subprocess.Popen[str], seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        time.sleep(0.02)


def _find(process: subprocess.Popen[str], victim: str) -> int | None:
    """The process to kill, once there is one; None if the run ends first."""
    if victim == "driver":
        return process.pid
    name = "raylet/raylet" if victim == "raylet" else "ray::StageTrainable"
    while process.poll() is None:
        found = [pid for pid, words in descendants(process.pid) if name in words]
        if found:
            return found[-1]
        time.sleep(0.05)
    return None


def descendants(root: int) -> Iterator[tuple[int, str]]:
    """The processes below a process, with their command lines."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(entry.name))
    front = [root]
    while front:
        for pid in children.get(front.pop(), ()):
            front.append(pid)
            with suppress(OSError):
                yield pid, Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")


def starts(home: Path) -> list[dict[str, Any]]:
    """The records of the run's starts."""
    found = sorted(home.glob(f"store/runs/{RUN}/starts/*.json"))
    return [json.loads(path.read_text()) for path in found]


def epochs_trained(home: Path) -> int:
    """In all starts, as recorded."""
    try:
        return sum(start["epochs_trained"] for start in starts(home))
    except ValueError:  # read in the middle of a move
        return 0


def epochs_unsaved(home: Path) -> int:
    """Epochs that the latest start has trained, as recorded, and that no state of the store holds."""
    from study.planning import tree
    from study.planning.growth import redraft
    from study.store import records
    from study.store.states import Store

    if not (home / "store").is_dir():
        return 0
    store = Store(str(home / "store"), create=False)
    plan, begun = records.load_plan(store, RUN), starts(home)
    if plan is None or not begun:
        return 0
    recipes = list(redraft(plan).recipes.values())
    done = len(tree.nodes(recipes)) - len(tree.missing(recipes, store.keys()))
    return max(0, begun[-1]["epochs_trained"] - (done - begun[-1]["epochs_done"]))


def everything(home: Path) -> dict[str, object]:
    """What a user sees of a run: report, Optuna's trials, and every metric of every MLflow run, by replicate."""
    report = study("report", RUN, "--format", "csv", home=home).communicate(timeout=60)[0]
    return {"report": report, **shown(RUN, f"sqlite:///{home / 'mlflow.db'}", f"sqlite:///{home / 'optuna.db'}")}


def shown(name: str, tracking_uri: str, storage: str) -> dict[str, object]:
    """What MLflow and Optuna show of a run."""
    import mlflow
    import optuna

    client = mlflow.MlflowClient(tracking_uri)
    (experiment,) = [each for each in client.search_experiments() if each.name == name]
    metrics: dict[str, object] = {}
    for run in client.search_runs([experiment.experiment_id], max_results=1000):
        replicate = f"{run.data.tags.get('study.trial', 'parent')} {run.data.tags.get('study.replicate', '')}"
        while replicate in metrics:
            replicate += ", doubled"
        assert run.info.status == "FINISHED", f"{replicate} is {run.info.status}"
        metrics[replicate] = {
            key: [(metric.step, metric.value) for metric in client.get_metric_history(run.info.run_id, key)]
            for key in run.data.metrics
        }
        metrics[replicate + " model"] = len(run.outputs.model_outputs) if run.outputs else 0
    (study_name,) = [each for each in optuna.get_all_study_names(storage) if each.startswith(f"{name}/")]
    trials = optuna.load_study(study_name=study_name, storage=storage).trials
    told = [(trial.number, trial.state.name, trial.params, trial.values, trial.user_attrs) for trial in trials]
    return {"mlflow": metrics, "optuna": told}


def difference(expected: Any, found: Any) -> tuple[int, int]:
    """How many leaves of what was expected are lost, and how many more there are: doubled."""
    wanted, seen = Counter(_leaves(expected)), Counter(_leaves(found))
    return sum((wanted - seen).values()), sum((seen - wanted).values())


def _leaves(value: Any, path: str = "") -> Iterator[str]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _leaves(inner, f"{path}/{name}")
    elif isinstance(value, list):
        for inner in value:
            yield from _leaves(inner, path)
    elif isinstance(value, str):
        yield from (f"{path}: {line}" for line in value.splitlines())
    else:
        yield f"{path}: {value}"


def undisturbed(space: str, home: Path) -> dict[str, object]:
    """Everything of the same run that nothing happens to."""
    process = study("run", space, "--seeds", str(SEEDS), "--name", RUN, home=home)
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output
    return everything(home)


def main() -> None:
    """Do so many kills, over as many runs as it takes; print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    draw = random.Random(asked.seed)
    kills: list[dict[str, Any]] = []
    rounds: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        space = write_space(Path(folder), asked.epochs)
        expected = undisturbed(space, Path(folder, "undisturbed"))
        while len(kills) < asked.kills:
            home = Path(folder, f"round{len(rounds)}")
            own = disturb(space, home, asked.kills - len(kills), draw, patient=True)
            found = everything(home)
            records = starts(home)
            status = json.loads(study("status", RUN, "--json", home=home).communicate(timeout=60)[0])
            needed, trained = status["epochs_needed"], status["epochs_trained"]
            after = [each["epochs_done"] for each in records[1:]] + [needed]
            lost = [r["epochs_trained"] - (end - r["epochs_done"]) for r, end in zip(records, after, strict=True)]
            kills += [{"run": len(rounds), **asdict(kill)} for kill in own]
            rounds.append(
                {
                    "kills": len(own),
                    "starts": len(records),
                    "epochs_needed": needed,
                    "epochs_trained": trained,
                    "epochs_lost_by_start": lost,
                    "equal": found == expected,
                    **dict(zip(("lost", "doubled"), difference(expected, found), strict=True)),
                }
            )
            print(json.dumps(rounds[-1]), flush=True)
    print(f"{'run':>4} {'start':>5} {'killed':8} {'after s':>8} {'epochs unsaved':>15} {'went on after s':>16}")
    for kill in kills:
        on = "-" if kill["seconds_to_go_on"] is None else f"{kill['seconds_to_go_on']:.1f}"
        print(
            f"{kill['run']:4} {kill['start']:5} {kill['victim']:8} {kill['after_seconds']:8.1f} "
            f"{kill['epochs_unsaved']:15} {on:>16}"
        )
    same = all(each["equal"] for each in rounds)
    trained, needed = (sum(each[f"epochs_{kind}"] for each in rounds) for kind in ("trained", "needed"))
    lost, doubled = (sum(each[kind] for each in rounds) for kind in ("lost", "doubled"))
    print(
        f"seed {asked.seed}: {len(kills)} kills in {len(rounds)} runs, {trained} epochs trained of {needed} needed; "
        f"of the report, MLflow and Optuna: doubled {doubled}, lost {lost}"
    )
    if asked.out:
        from measuring import environment

        record = {"command": " ".join(["python", *sys.argv]), "seed": asked.seed, **environment()}
        asked.out.write_text(json.dumps({**record, "runs": rounds, "kills": kills}, indent=1) + "\n")
    sys.exit(not same)


if __name__ == "__main__":
    main()
