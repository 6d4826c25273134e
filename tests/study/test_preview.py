"""Dry runs: the trials of a run and their cost, without training."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from helpers import Study, parsed

from study import catalog
from study.cli import cli
from study.machine import has_bf16


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


def test_tables_planned_together_share_their_trunks(study: Study) -> None:
    alone = [parsed(study("run", name, "--dry-run", "--json")) for name in ("table6", "table7", "table9")]
    union = parsed(study("run", "table6", "table7", "table9", "--dry-run", "--json"))
    assert union["trials_total"] == sum(plan["trials_total"] for plan in alone)
    assert union["trials_distinct"] == union["trials_total"] - 2 * 3  # IB⇒CR at S = 1 stands in all three
    assert union["epochs_needed"] < sum(plan["epochs_needed"] for plan in alone)


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
        (["--data", "cifar100"], {"table10": "no irregularities are known"}),
        (
            ["--imbalance", "1"],
            {"figure4": "--imbalance must be above 1 (got 1.0)", "table10": "no irregularities are known"},
        ),
        (["--data", "cifar100", "-o", f"irregularity={','.join('1' * 100)}"], {}),
        (["--data", "cifar10", "--data", "cifar100"], {"table10": "no irregularities are known for "}),
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


def test_an_option_s_file_is_stored_with_the_plan(study: Study, tmp_path: Path) -> None:
    (tmp_path / "weights").write_text("1,2,3,4,5,6,7,8,9,10\n")
    (cell,) = [
        trial
        for trial in parsed(study("run", "table10", "-o", "irregularity=@weights", "--dry-run", "--json"))["trials"]
        if isinstance(trial["config"]["switch"], list)
    ]
    assert cell["config"]["switch"][9] == pytest.approx(10 * cell["config"]["switch"][0])


def test_a_search_is_planned_without_training(study: Study, tmp_path: Path) -> None:
    plan = parsed(study("run", "sampler_search", "--trials", "20", "--dry-run", "--json"))
    assert (plan["searches"], plan["trials"], plan["epochs_needed"]) == ({"sampler_search": 20}, [], 0)
    words = study("run", "sampler_search", "--dry-run").stdout
    assert (
        "sampler_search: 50 points (0 planned) over first_q: -2 to 2 in steps of 0.5; switch_q: -2 to 2; S: 0 to 49\n"
        in words
    )
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_says_what_would_stop_the_run_and_writes_nothing(
    tmp_path: Path, refusing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STUDY_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    arguments = ["--data", "cifar10", "--tracking-uri", f"http://{refusing}", "--cpus-per-trial", "1000"]
    arguments += ["--address", refusing, "--dry-run"]
    done = CliRunner().invoke(cli, ["run", "table9", *arguments])
    assert done.exit_code == 2
    assert "epochs" in done.stdout
    server, address, data = done.stderr.splitlines()
    assert server.startswith(f"would be refused: --tracking-uri: 'http://{refusing}' does not answer")
    assert address.startswith("would be refused: --address must belong to a Ray cluster that answers")
    assert data.startswith("would be refused: cifar10 is missing or damaged in ")
    done = CliRunner().invoke(cli, ["run", "table9", *arguments[:-3], "--json", "--dry-run"])
    assert [each.partition(" ")[0] for each in json.loads(done.stdout)["obstacles"]] == [
        "--tracking-uri:",
        "--cpus-per-trial",
        "cifar10",
    ]
    assert list(tmp_path.iterdir()) == []
