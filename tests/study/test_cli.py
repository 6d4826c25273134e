"""The verbs, on a real Ray, a real MLflow database and a real Optuna storage."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import optuna
import pytest
from click.testing import Result

from study import catalog
from study.machine import has_bf16
from study.plan.stored import Plan
from study.plan.tree import Stage
from study.store import records
from study.store.states import Store

Study = Callable[..., Result]


def parsed(result: Result) -> dict:
    return json.loads(result.stdout)


@pytest.mark.parametrize(
    ("spaces", "needed", "naive"),
    [
        (["table6", "--data", "cifar10"], 584, 1000),
        (["table7"], 393, 600),
        (["table9", "--data", "cifar10", "--imbalance", "50"], 1194, 1800),
        (["table9"], 7164, 10800),
    ],
)
def test_shared_prefixes_cost_what_the_paper_protocol_says(
    study: Study, spaces: list[str], needed: int, naive: int
) -> None:
    plan = parsed(study("run", *spaces, "--paper", "--seeds", "1", "--dry-run", "--json"))
    assert (plan["epochs_needed"], plan["epochs_naive"], plan["epochs_to_train"]) == (needed, naive, needed)


def test_a_dry_run_lists_every_trial_and_writes_nothing(study: Study, tmp_path: Path) -> None:
    plan = parsed(study("run", "table9", "--data", "cifar10", "--paper", "--seeds", "2", "--dry-run", "--json"))
    assert plan["study"] == "table9"
    assert len(plan["trials"]) == 27
    assert (plan["trials_total"], plan["trials_distinct"]) == (54, 54)
    assert plan["trials"][0]["config"]["dataset"] == "cifar10"
    assert plan["trials"][0]["replicates"] == [0, 1]
    assert plan["trials"][0]["epochs"] == 200
    assert list(tmp_path.iterdir()) == []


def test_a_plan_settles_the_arithmetic(study: Study) -> None:
    told = parsed(study("run", "table9", "--precision", "bf16", "--cpus-per-trial", "2", "--dry-run", "--json"))
    assert (told["device"], told["threads"], told["precision"], told["ranks"]) == ("cpu", 2, ["bf16"], 1)
    own = ["fp32", "bf16"][has_bf16()]
    for data, expected in ((["digits"], ["fp32"]), (["cifar10"], [own]), (["digits", "cifar10"], {own, "fp32"})):
        told = parsed(study("run", "table9", *(f"--data={each}" for each in data), "--dry-run", "--json"))
        assert (told["threads"], told["precision"]) == (1, sorted(expected))


@pytest.mark.parametrize(
    ("arguments", "capability", "device", "precision"),
    [
        (["--data", "cifar10"], (9, 0), "cuda", ["bf16"]),
        (["--data", "cifar10"], (7, 5), "cuda", ["fp32"]),
        (["--data", "cifar10", "--precision", "tf32"], (9, 0), "cuda", ["tf32"]),
        (["--data", "cifar10", "--data", "digits"], (8, 0), "cuda", ["bf16", "fp32"]),
        (["--gpus-per-trial", "0.25"], (9, 0), "cuda", ["fp32"]),
        ([], (9, 0), "cpu", ["fp32"]),
        (["--data", "cifar10", "--gpus-per-trial", "0", "--precision", "fp32"], (9, 0), "cpu", ["fp32"]),
        (["--data", "cifar10", "--address", "10.0.0.1:6379"], (9, 0), "cpu", ["fp32"]),
        (["--data", "cifar10", "--address", "10.0.0.1:6379", "--gpus-per-trial", "1"], (9, 0), "cuda", ["fp32"]),
        (["--data", "cifar10", "--precision", "fp32"], None, "cpu", ["fp32"]),
    ],
)
def test_a_plan_uses_the_gpu_of_this_machine_for_what_needs_one(
    study: Study,
    gpus: Callable[..., None],
    arguments: list[str],
    capability: tuple[int, int] | None,
    device: str,
    precision: list[str],
) -> None:
    gpus(capability)
    told = parsed(study("run", "table9", *arguments, "--dry-run", "--json"))
    assert (told["device"], told["precision"]) == (device, precision)
    assert told["gpus"] == (0.25 if "0.25" in arguments else float(device == "cuda"))


def test_the_way_of_stepping_is_stored_and_is_no_part_of_the_work(
    study: Study, small_space: Callable[..., str], one_ray: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from study.execution import tune
    from study.execution.job import Job

    told, train = [], tune.execute

    def listen(stages: Sequence[Stage], job: Job, *others: Any) -> None:
        told.append(job.resources.gpu_steps)
        train(stages, job, *others)

    monkeypatch.setattr(tune, "execute", listen)

    def stored() -> Plan:
        return records.find(Store(str(tmp_path / "home" / "store")), "mine")[0]

    space = small_space()
    study("run", space, "--seeds", "1", "--name", "mine", "--gpu-steps", "eager")
    before = stored()
    assert [before.resources.gpu_steps] == told == ["eager"]
    study("resume", "mine", "--gpu-steps", "auto")
    message = str(study("resume", "mine", "--gpu-steps", "recorded", code=2).exception)
    assert message.startswith("--gpu-steps = 'recorded': must be auto or eager: the run is trained on CPUs")
    assert stored().resources.gpu_steps == "eager"
    study("run", space, "--seeds", "1", "--name", "mine")
    assert stored().resources.gpu_steps == "auto"
    assert (stored().digest, stored().trials) == (before.digest, before.trials)


def test_two_processes_train_each_replicate_together(
    study: Study, small_space: Callable[..., str], one_ray: None
) -> None:
    study("run", small_space(), "--seeds", "1", "--ranks-per-trial", "2", "--cpus-per-trial", "2")
    (status,) = parsed(study("status", "--json"))
    assert (status["complete"], status["failed"], status["epochs_trained"]) == (2, 0, status["epochs_needed"])


def test_tables_planned_together_share_their_trunks(study: Study) -> None:
    alone = [parsed(study("run", name, "--dry-run", "--json")) for name in ("table6", "table7", "table9")]
    union = parsed(study("run", "table6", "table7", "table9", "--dry-run", "--json"))
    assert union["trials_total"] == sum(plan["trials_total"] for plan in alone)
    assert union["trials_distinct"] == union["trials_total"] - 2 * 3  # IB⇒CR at S = 1 stands in all three
    assert union["epochs_needed"] < sum(plan["epochs_needed"] for plan in alone)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "table99"], ["space", "table99", "table9"]),
        (["run", "table9", "--data", "mnist"], ["dataset", "mnist", "cifar10"]),
        (["run", "table9", "--data", "digits", "--paper"], ["--data", "digits", "--paper"]),
        (["run", "table9", "--imbalance", "0.5"], ["imbalance", "0.5", "≥ 1"]),
        (["run", "table9", "--imbalance", "1000"], ["imbalance", "1000", "124"]),
        (["run", "table9", "--cpus-per-trial", "0"], ["--cpus-per-trial", "0.0", "above 0"]),
        (["run", "table9", "--gpus-per-trial", "1.5"], ["--gpus-per-trial", "1.5", "whole number"]),
        (["run", "table9", "--name", "../up"], ["--name", "../up", "letters"]),
        (["run", "table9", "--home", "/proc/home"], ["--home", "/proc/home", "written"]),
        (["run", "table9", "--home", "FILE/home"], ["--home", "FILE", "written"]),
        (["run", "table9", "--store", "nowhere://x/y"], ["--store", "nowhere://x/y", "URL"]),
        (["run", "table9", "--tracking-uri", "http://127.0.0.1:9"], ["--tracking-uri", "127.0.0.1:9", "answers"]),
        (["run", "table9", "--storage", "sqlite//x"], ["--storage", "sqlite//x", "sqlite:///"]),
        (["run", "table9", "--storage", "postgresql://u:secret@127.0.0.1:9/x"], ["--storage", "***"]),
        (["run", "table9", "table9"], ["space", "once"]),
        (["run", "SPACE:nothing"], ["space", "nothing"]),
        (["run", "SPACE:late"], ["S", "60", "at most 49"]),
        (["run", "SPACE:unknown_sampler"], ["first", "XX", "IB, CB, CR"]),
        (["resume", "nothing"], ["nothing", "study run"]),
        (["status", "nothing"], ["nothing", "study run"]),
        (["report", "nothing"], ["nothing", "study run"]),
        (["ui"], ["home", "study run"]),
        (["show", "table99"], ["space", "table99"]),
        (["run", "table9", "--cpus-per-trial", "inf"], ["--cpus-per-trial", "inf", "finite"]),
        (["run", "table9", "--cpus-per-trial", "nan"], ["--cpus-per-trial", "nan", "finite"]),
        (["run", "table9", "--ranks-per-trial", "65"], ["--ranks-per-trial", "65", "at most 64"]),
        (["run", "table9", "--gpus-per-trial", "65"], ["--gpus-per-trial", "65", "at most 64"]),
        (
            ["run", "table9", "--ranks-per-trial", "3", "--gpus-per-trial", "8"],
            ["--ranks-per-trial", "3", "must be 8, one a GPU"],
        ),
        (
            ["run", "table9", "--ranks-per-trial", "2", "--gpus-per-trial", "0.5"],
            ["--ranks-per-trial", "2", "must be 1, one a"],
        ),
        (["run", "table9", "--precision", "tf32"], ["--precision", "tf32", "fp32 or bf16", "for GPUs"]),
        (["run", "SPACE:tf32"], ["precision", "tf32", "fp32 or bf16"]),
        (["run", "table9", "--gpu-steps", "recorded"], ["--gpu-steps", "recorded", "auto or eager", "on CPUs"]),
        (["run", "table9", "--cpus-per-trial", "1000"], ["--cpus-per-trial", "1000", "at most"]),
        (["run", "table9", "--gpus-per-trial", "inf"], ["--gpus-per-trial", "inf", "whole number"]),
        (["run", "table9", "--gpus-per-trial", "-1"], ["--gpus-per-trial", "-1", "must be 0 to 1, or a whole number"]),
        (["run", "table9", "--trials", "5"], ["--trials", "5", "open search", "table9"]),
        (["run", "table9", "--objectives", "few"], ["--objectives", "few", "open search", "table9"]),
        (["run", "table9", "--early-stop", "5"], ["--early-stop", "5", "open search", "table9"]),
        (["run", "table9", "--trials", "5", "--dry-run"], ["--trials", "5", "open search", "table9"]),
        (["run", "sampler_search", "--objectives", "top5"], ["--objectives", "top5", "top1, many"]),
        (["run", "sampler_search", "--objectives", "top1,few", "--early-stop", "5"], ["--early-stop", "5", "median"]),
        (["run", "sampler_search", "--objectives", "top1,top1"], ["--objectives", "top1,top1", "each once"]),
        (["run", "sampler_search", "--objectives", ""], ["--objectives", "each once"]),
        (["run", "sampler_search", "--early-stop", "50"], ["--early-stop", "50", "at most 49"]),
        (["run", "SPACE:steps"], ["dimension", "step=0", "above 0"]),
        (["clean", "--grace", "nan"], ["--grace", "nan", "finite"]),
        (["run", "sampler_search", "--data", "digits", "--data", "cifar10"], ["--data", "one data set"]),
        (["run", "SPACE:raises"], ["space", "SPACE.py:raises", "ZeroDivisionError", "line"]),
        (["run", "SPACE:no_space"], ["space", "SPACE.py:no_space", "returns a Space", "int"]),
        (["stop", "nothing"], ["nothing", "study run"]),
        (["clean", "nothing"], ["nothing", "study run"]),
        (["clean", "--forget"], ["--forget", "RUN"]),
        (["clean"], ["home", "study run"]),
    ],
)
def test_a_mistake_is_one_line_with_exit_code_2_and_writes_nothing(
    study: Study, tmp_path: Path, arguments: list[str], words: list[str]
) -> None:
    (tmp_path / "FILE").touch()
    (tmp_path / "SPACE.py").write_text(
        "from dataclasses import replace\n"
        "from search_spaces import table9\nfrom trainables.protocol import base\n"
        "def late(request): return replace(base('digits'), S=60)\n"
        "def unknown_sampler(request): return replace(base('digits'), first='XX')\n"
        "def tf32(request):\n"
        "    table = table9.space(request)\n"
        "    cells = tuple(replace(t, config={**t.config, 'precision': 'tf32'}) for t in table.trials)\n"
        "    return replace(table, name='tf32', trials=cells)\n"
        "def raises(request): return 1 / 0\n"
        "def no_space(request): return 1\n"
        "from study.plan import Real\n"
        "def steps(request): return Real(0, 1, step=0)\n"
    )
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    result = study(*(word.replace("SPACE", "SPACE.py") for word in arguments), code=2)
    message = str(result.exception)
    assert "\n" not in message
    assert all(word in message for word in words), message
    assert "secret" not in message
    after = {path: path.read_bytes() for path in tmp_path.iterdir() if path.name != "__pycache__"}
    assert after == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "table9", "--seeds", "0"], ["--seeds", "0", "1<=x<=999"]),
        (["run", "table9", "--seeds", "1000"], ["--seeds", "1000", "1<=x<=999"]),
        (["run", "sampler_search", "--trials", "0"], ["--trials", "0", "x>=1"]),
        (["run", "sampler_search", "--early-stop", "0"], ["--early-stop", "0", "x>=1"]),
        (["run", "table9", "--workers", "0"], ["--workers", "0", "x>=1"]),
        (["run"], ["SPACE"]),
        (["clean", "--grace", "-1"], ["--grace", "-1", "x>=0"]),
    ],
)
def test_a_number_out_of_its_range_is_an_error_with_the_usage(
    study: Study, tmp_path: Path, arguments: list[str], words: list[str]
) -> None:
    lines = study(*arguments, code=2).stderr.strip().splitlines()
    assert lines[0].startswith("Usage: ")
    assert all(word in lines[-1] for word in words), lines
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "table99"], "study: space = 'table99'"),
        (["run", "table9", "--seeds", "x"], "study: Invalid value for '--seeds': 'x'"),
        (["report"], "study: Missing argument 'RUN'. `study report --help` says what would do."),
        (["frob"], "study: No such command 'frob'. `study --help` says what would do."),
        (["run", "gone.py"], "study: space = 'gone.py': there is no such file as "),
    ],
)
def test_the_command_prints_a_mistake_as_one_line(tmp_path: Path, arguments: list[str], words: str) -> None:
    command = [sys.executable, "-m", "study", *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith(words)
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_help_imports_nothing_heavy() -> None:
    program = (
        "import sys; from click.testing import CliRunner; from study.cli import cli\n"
        "result = CliRunner().invoke(cli, ['--help']); assert result.exit_code == 0\n"
        "print(sorted({'torch', 'ray', 'mlflow', 'optuna', 'pyarrow', 'rich', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_list_names_every_space_with_its_cost(study: Study) -> None:
    listed = {each["space"]: each for each in json.loads(study("list", "--json").stdout)}
    assert list(listed) == catalog.names()
    assert {name for name, each in listed.items() if each["search"]} == {"sampler_search"}
    assert listed["table9"]["paper"] == {"epochs_needed": 7164, "epochs_naive": 10800, "runs": 1}
    assert listed["table9"]["short"] == {"epochs_needed": 144, "epochs_naive": 270, "runs": 1}
    assert listed["table8"]["digits"] == {"epochs_needed": 1000, "epochs_naive": 1000, "runs": 10}
    assert {name for name, each in listed.items() if each["digits"]["runs"] > 1} == {
        "table8",
        "table13",
        "figure3",
        "figure4",
    }
    lines = study("list").stdout.splitlines()
    assert lines[0].endswith("on digits, with --short, with --paper:")
    costs = {line.split()[0]: cost.strip() for line, cost in zip(lines[1::2], lines[2::2], strict=False)}
    assert costs["table9"] == "digits 900 → 594; short 270 → 144; paper 10800 → 7164"
    assert costs["table8"] == "digits 1000 → 1000 (10 runs); short 300 → 300 (10 runs); paper 2000 → 2000 (10 runs)"


def test_all_is_every_table_and_figure_with_what_each_costs_and_what_they_cost_together(study: Study) -> None:
    plan = parsed(study("run", "all", "--seeds", "1", "--dry-run", "--json"))
    assert list(plan["spaces"]) == [name for name in catalog.names() if name != "sampler_search"]
    assert plan["spaces"]["table9"] == {"trainings": 9, "epochs_naive": 900, "epochs_needed": 594}
    assert sum(cost["epochs_naive"] for cost in plan["spaces"].values()) == plan["epochs_naive"]
    assert sum(cost["epochs_needed"] for cost in plan["spaces"].values()) > plan["epochs_needed"]
    assert plan["run"].startswith("all-")
    assert plan["left_out"] == {}


@pytest.mark.parametrize(
    ("arguments", "left_out"),
    [
        (["--data", "cifar100"], {"table10": "-o irregularity"}),
        (["--imbalance", "1"], {"figure4": "--imbalance = 1.0", "table10": "-o irregularity"}),
        (["--data", "cifar100", "-o", f"irregularity={','.join('1' * 100)}"], {}),
        (["--data", "cifar10", "--data", "cifar100"], {"table10": "-o irregularity"}),
    ],
)
def test_all_leaves_out_what_refuses_the_data_and_says_why(
    study: Study, arguments: list[str], left_out: dict[str, str]
) -> None:
    done = study("run", "all", *arguments, "--seeds", "1", "--dry-run", "--json")
    plan = parsed(done)
    whole = [name for name in catalog.names() if name != "sampler_search"]
    assert list(plan["spaces"]) == [name for name in whole if name not in left_out]
    assert plan["left_out"].keys() == left_out.keys()
    assert all(plan["left_out"][name].startswith(reason) for name, reason in left_out.items())
    said = [line for line in done.stderr.splitlines() if line.startswith("left out: ")]
    assert said == [f"left out: {name}: {reason}" for name, reason in plan["left_out"].items()]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["all", "--data", "mnist"], "dataset = 'mnist'"),  # none is left
        (["all", "-o", "recipe=mine"], "-o recipe = 'mine'"),
        (["all", "-o", "irregularity=1"], "-o irregularity = '1.0'"),
        (["all", "table10", "--data", "cifar100"], "-o irregularity = ''"),  # it was named
        (["figure4", "--imbalance", "1"], "--imbalance = 1.0: one above 1 would do"),
    ],
)
def test_what_is_named_or_refused_by_every_space_is_a_mistake(study: Study, arguments: list[str], words: str) -> None:
    message = str(study("run", *arguments, "--dry-run", code=2).exception)
    assert message.startswith(words)
    assert "\n" not in message


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("recipe", "NAME=VALUE would do, each name once"),
        ("lr=3", "recipe (common"),
        ("recipe=mine", "-o recipe = 'mine': common (the paper's protocol"),
        ("recipe=@nowhere", "a text file that can be read would do"),
    ],
)
def test_an_option_that_no_space_knows_is_refused(study: Study, option: str, words: str) -> None:
    message = str(study("run", "table1", "-o", option, "--dry-run", code=2).exception)
    assert words in message
    assert "\n" not in message


def test_an_option_s_file_is_stored_with_the_plan(study: Study, tmp_path: Path) -> None:
    (tmp_path / "weights").write_text("1,2,3,4,5,6,7,8,9,10\n")
    (cell,) = [
        trial
        for trial in parsed(study("run", "table10", "-o", "irregularity=@weights", "--dry-run", "--json"))["trials"]
        if isinstance(trial["config"]["switch"], list)
    ]
    assert cell["config"]["switch"][9] == pytest.approx(10 * cell["config"]["switch"][0])


def test_show_says_what_the_file_says(study: Study) -> None:
    shown = study("show", "table7").stdout
    assert "Paper: Table 7" in shown
    assert "CR for 5 epochs, then CB (digits-LT IF 50)   paper 79.2 (cifar10-LT IF 50)" in shown


Finished = tuple[Study, Path, str]


def test_a_run_is_reported_recorded_and_not_trained_twice(finished: Finished, monkeypatch: pytest.MonkeyPatch) -> None:
    study, folder, space = finished
    status = parsed(study("status", "mine", "--json"))
    assert {"complete": 4, "running": 0, "failed": 0, "waiting": 0}.items() <= status.items()
    assert status["epochs_needed"] == status["epochs_trained"] == status["epochs_trained_now"] == 2 * (2 + 1 + 1)

    report = parsed(study("report", "mine", "--format", "json"))
    assert (report["study"], report["run"]) == ("small", "mine")
    assert [(row["first"], row["switch"], row["S"], row["n"]) for row in report["rows"]] == [
        ("IB", "IB", 1, 2),
        ("IB", "CR", 1, 2),
    ]
    assert all(0 <= value <= 100 for row in report["rows"] for value in row["values"])
    lines = csv.DictReader(io.StringIO(study("report", "mine", "--format", "csv").stdout))
    lines = [line for line in lines if line["column"] == "digits-LT IF 50" and line["value"]]
    assert [float(line["value"]) for line in lines] == [value for row in report["rows"] for value in row["values"]]
    assert "| IB⇒CR |" in study("report", "mine", "--format", "markdown").stdout

    _check_mlflow(folder / "home", report)
    _check_optuna(folder / "home", report)

    from study.execution import cluster

    def refuse(*_arguments: object) -> None:
        raise AssertionError("Ray was started with nothing to train")

    monkeypatch.setattr(cluster, "connected", refuse)
    again = study("run", space, "--seeds", "2", "--name", "mine", "--json")
    assert parsed(again)["rows"] == report["rows"]
    assert parsed(study("status", "mine", "--json"))["epochs_trained_now"] == 0
    _check_mlflow(folder / "home", report)


def _check_mlflow(home: Path, report: dict) -> None:
    """One parent, one FINISHED run a replicate, each metric once a step, a model that predicts."""
    import mlflow
    import numpy as np

    mlflow.set_tracking_uri(f"sqlite:///{home / 'mlflow.db'}")
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name(report["run"])
    runs = client.search_runs([experiment.experiment_id])
    assert {run.info.status for run in runs} == {"FINISHED"}
    parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    assert len(parents) == 1
    assert {file.path for file in client.list_artifacts(parents[0].info.run_id)} >= {
        "plan.json",
        "report.md",
        "report.csv",
    }
    assert len(runs) == 1 + sum(row["n"] for row in report["rows"])
    for row in report["rows"]:
        found = client.search_runs([experiment.experiment_id], f"params.combination = '{row['combination']}'")
        assert sorted(run.data.metrics["test/top1"] for run in found) == sorted(row["values"])
        assert {run.data.params["seed"] for run in found} == {"0", "1"}
        assert {run.data.params["switch_q"] for run in found} == {{"IB": "1.0", "CR": "-1.0"}[row["switch"]]}
        for run in found:
            for name in ("train/loss", "test/top1", "val/top1", "lr"):
                steps = [metric.step for metric in client.get_metric_history(run.info.run_id, name)]
                assert steps == [0, 1, 2], name
        (logged,) = found[0].outputs.model_outputs
        model = mlflow.pyfunc.load_model(f"models:/{logged.model_id}")
        assert model.predict(np.random.default_rng().random((3, 1, 8, 8), dtype=np.float32)).shape == (3, 10)


def _check_optuna(home: Path, report: dict) -> None:
    """Every cell one COMPLETE trial with the mean of its replicates."""
    storage = f"sqlite:///{home / 'optuna.db'}"
    (summary,) = optuna.get_all_study_summaries(storage)
    trials = optuna.load_study(study_name=summary.study_name, storage=storage).trials
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * len(report["rows"])
    assert [trial.value for trial in trials] == pytest.approx([row["mean"] for row in report["rows"]])
    assert trials[1].params == {"dataset": "digits", "imbalance": 50.0, "first": "IB", "switch": "CR", "S": 1}


def test_what_another_run_trained_is_not_trained_again(finished: Finished, small_space: Callable[..., str]) -> None:
    study, _, _ = finished
    grown = small_space("grown", (("IB", "IB"), ("IB", "CR"), ("IB", "CB")))
    plan = parsed(study("run", grown, "--seeds", "2", "--dry-run", "--json"))
    assert (plan["epochs_needed"], plan["epochs_to_train"]) == (10, 2)
    study("run", grown, "--seeds", "2")
    status = parsed(study("status", "grown", "--json"))
    assert (status["complete"], status["epochs_trained"]) == (6, 2)


def test_a_run_grows_under_its_name_by_what_is_new(
    study: Study, small_space: Callable[..., str], one_ray: None, tmp_path: Path
) -> None:
    space = small_space(cells=(("IB", "IB"),))
    study("run", space, "--seeds", "1", "--name", "mine")
    record = tmp_path / "home/store/runs/mine/plan.json"
    created = json.loads(record.read_text())["created"]
    small_space(cells=(("IB", "IB"), ("IB", "CR")))
    plan = parsed(study("run", space, "--seeds", "2", "--name", "mine", "--dry-run", "--json"))
    assert (plan["epochs_needed"], plan["epochs_to_train"]) == (8, 7)  # of the trunk, only the end is kept
    report = parsed(study("run", space, "--seeds", "2", "--name", "mine", "--json"))
    status = parsed(study("status", "mine", "--json"))
    assert (status["complete"], status["waiting"], status["epochs_needed"]) == (4, 0, 8)
    assert (status["epochs_trained"], status["epochs_trained_now"], status["outcome"]) == (8 + 2, 7, "complete")
    assert json.loads(record.read_text())["created"] == created
    _check_mlflow(tmp_path / "home", report)
    # Optuna's trial of the first cell was told one replicate, and keeps what it was told.
    first, second = report["rows"]
    told = {**report, "rows": [{**first, "mean": first["values"][0]}, second]}
    _check_optuna(tmp_path / "home", told)


def test_a_run_is_not_narrowed_under_its_name(finished: Finished) -> None:
    study, folder, space = finished
    record = folder / "home/store/runs/mine/plan.json"
    before = record.read_bytes()
    for arguments in ([space, "--seeds", "1"], ["table9", "--seeds", "2"], [space, "--seeds", "2", "--retrain"]):
        for dry in ([], ["--dry-run"]):
            if "--retrain" in arguments and dry:
                continue
            message = str(study("run", *arguments, "--name", "mine", *dry, code=2).exception)
            assert "mine" in message
            assert "\n" not in message
    assert "1 replicates instead of 2" in str(study("run", space, "--seeds", "1", "--name", "mine", code=2).exception)
    assert "nothing has changed" in str(study("resume", "mine", "--retrain", code=2).exception)
    assert record.read_bytes() == before


def test_a_run_is_called_by_name_space_or_prefix(finished: Finished) -> None:
    study, _, space = finished
    study("run", space, "--seeds", "1", "--name", "minor")
    assert parsed(study("status", "small", "--json"))["run"] == "minor"  # the space's latest
    assert parsed(study("status", "mino", "--json"))["run"] == "minor"
    assert "more than one run" in str(study("status", "min", code=2).exception)


def test_a_failed_replicate_is_reported_and_the_rest_goes_on(
    study: Study, small_space: Callable[..., str], one_ray: None, tmp_path: Path
) -> None:
    space = Path(small_space())
    text = space.read_text().replace("small(config, first, switch)", "small(config, first, switch, lr=LR[switch])")
    space.write_text(text + '\n\nLR = {"IB": 0.1, "CR": 1e30}\n')
    study("run", str(space), "--seeds", "1", "--name", "mine", code=1)
    status = parsed(study("status", "mine", "--json"))
    assert (status["complete"], status["failed"]) == (1, 1)
    assert "Diverged" in study("status", "mine").stdout
    storage = f"sqlite:///{tmp_path / 'home' / 'optuna.db'}"
    (summary,) = optuna.get_all_study_summaries(storage)
    failed = optuna.load_study(study_name=summary.study_name, storage=storage).trials[1]
    assert failed.state.name == "FAIL"
    assert "Diverged" in failed.user_attrs["failed_because"]

    study("resume", "mine", code=1)  # what raised is not tried again by itself
    assert parsed(study("status", "mine", "--json"))["epochs_trained_now"] == 0
    study("resume", "mine", "--retry-failed", code=1)
    trials = optuna.load_study(study_name=summary.study_name, storage=storage).trials
    assert [trial.state.name for trial in trials] == ["COMPLETE", "FAIL", "FAIL"]
    assert trials[2].user_attrs["retry_of"] == 1


def test_changed_sources_refuse_a_resume_and_name_the_files(finished: Finished) -> None:
    study, folder, _ = finished
    plan = json.loads((folder / "home/store/runs/mine/plan.json").read_text())
    del plan["sha256"]
    plan["sources"]["loop.py"] = "0" * 40  # as if it had been planned with another loop
    Store(str(folder / "home/store")).write_record("runs/other/plan.json", {**plan, "run": "other"})
    message = str(study("resume", "other", code=2).exception)
    assert "loop.py" in message
    assert "--retrain" in message


def test_a_run_is_begun_anew_when_its_sources_have_changed_and_its_old_records_stay(
    study: Study, small_space: Callable[..., str], one_ray: None, tmp_path: Path
) -> None:
    import mlflow

    study("run", small_space(cells=(("IB", "CR"),)), "--seeds", "1", "--name", "mine")
    assert "nothing has changed" in str(study("resume", "mine", "--retrain", code=2).exception)
    store = Store(str(tmp_path / "home/store"))
    plan = store.read_record("runs/mine/plan.json")
    assert plan is not None
    store.write_record("runs/mine/plan.json", {**plan, "sources": {**plan["sources"], "loop.py": "0" * 40}})

    study("resume", "mine", code=2)
    study("resume", "mine", "--retrain")
    assert parsed(study("status", "mine", "--json"))["outcome"] == "complete"
    assert study("resume", "mine").exit_code == 0

    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'home/mlflow.db'}")
    runs = client.search_runs([client.get_experiment_by_name("mine").experiment_id])
    assert sorted(run.data.tags["study.generation"] for run in runs) == ["0", "0", "1", "1"]
    assert {run.info.status for run in runs} == {"FINISHED"}
    names = sorted(optuna.get_all_study_names(f"sqlite:///{tmp_path / 'home/optuna.db'}"))
    assert len(names) == 2
    assert names[1] == f"{names[0]}-1"


def test_a_status_says_how_large_the_states_are(finished: Finished) -> None:
    study, folder, _ = finished
    status = parsed(study("status", "mine", "--json"))
    states = {path: path.stat().st_size for path in (folder / "home/store").rglob("*") if path.is_file()}
    assert 0 < status["bytes"] < sum(states.values())
    shown = study("status", "mine").stdout
    assert f"  final states: {status['bytes'] / 1e6:.1f} MB" in shown
    assert "\nstore: " in shown


def test_nobody_is_asked_to_stop_a_run_that_nobody_trains(finished: Finished) -> None:
    study, _, _ = finished
    message = str(study("stop", "mine", code=2).exception)
    assert message == "run = 'mine': nobody trains it; `study status` says how far it is"


def test_a_run_that_a_driver_trains_is_not_trained_by_a_second_one(finished: Finished) -> None:
    study, folder, space = finished
    from study.store import starts

    study("run", space, "--seeds", "1", "--name", "busy")
    start = starts.Start(Store(str(folder / "home/store")), "busy", 0, 0, 0, lambda _: None)
    try:
        for arguments in (
            ["run", space, "--seeds", "1", "--name", "busy"],
            ["resume", "busy"],
            ["clean", "busy", "--forget"],
        ):
            message = str(study(*arguments, code=2).exception)
            assert "`study stop busy`" in message
            assert "\n" not in message
    finally:
        start.end("complete", 0)
    study("resume", "busy")


def test_a_search_is_listed_shown_and_planned_without_training(study: Study, tmp_path: Path) -> None:
    assert "sampler_search Open search: first exponent" in study("list").stdout
    shown = study("show", "sampler_search").stdout
    assert "Dimensions:\n" in shown
    assert "  S: Integer(low=0, high=49)" in shown
    plan = parsed(study("run", "sampler_search", "--trials", "20", "--dry-run", "--json"))
    assert (plan["searches"], plan["trials"], plan["epochs_needed"]) == ({"sampler_search": 20}, [], 0)
    words = study("run", "sampler_search", "--dry-run").stdout
    assert "sampler_search: 50 points, 0 of them planned, of first_q: " in words
    assert list(tmp_path.iterdir()) == []
