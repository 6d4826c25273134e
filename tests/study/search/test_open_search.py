"""An open search, end to end on a real Ray: it grows, its champion is trained again, and its records agree."""

import io
import json
from functools import partial
from pathlib import Path
from typing import Any

import optuna
import pytest
from helpers import MINI_SEARCH, Study
from mlflow import MlflowClient

from study.store.records import load_plan
from study.store.states import Store

pytestmark = pytest.mark.slow


Searched = tuple[Study, Path, str]


def begun(folder: Path, command: Study) -> Searched:
    """Return the command `study` with a home in a folder, this home, and the space's file."""
    path = folder / "mini.py"
    path.write_text(MINI_SEARCH)
    return partial(command, home=folder / "home"), folder / "home", str(path)


def searched(study: Study, space: str, trials: int, *options: str) -> dict[str, Any]:
    """Start a search with one worker. Return its part of the report."""
    done = study("run", space, "--name", "mine", "--workers", "1", "--trials", str(trials), "--json", *options)
    (search,) = json.loads(done.stdout)["searches"]
    return search


@pytest.fixture(scope="module")
def grown(
    one_ray: None, command: Study, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Searched, dict[str, Any], dict[str, Any]]:
    """A search of 6 points that grew to 8: its command, home and file, and both reports."""
    begun_search = begun(tmp_path_factory.mktemp("grown"), command)
    return begun_search, searched(begun_search[0], begun_search[2], 6), searched(begun_search[0], begun_search[2], 8)


def epochs_trained(study: Study) -> int:
    return int(json.loads(study("status", "mine", "--json").stdout)["epochs_trained"])


def only_study(home: Path) -> optuna.Study:
    storage = f"sqlite:///{home / 'optuna.db'}"
    (name,) = optuna.get_all_study_names(storage)
    return optuna.load_study(study_name=name, storage=storage)


def test_a_search_that_grew_is_one_that_was_as_large_at_once(
    grown: tuple[Searched, dict[str, Any], dict[str, Any]], command: Study, tmp_path: Path
) -> None:
    _, small, large = grown
    study, home, space = begun(tmp_path, command)
    at_once = searched(study, space, 8)
    assert len(small["points"]) == 6
    assert small["points"] == large["points"][:6]
    for part in ("points", "best", "importances", "history"):
        assert large[part] == at_once[part]
    assert at_once["champions"][0]["champion_of"] in at_once["best"]
    (mine,) = [each for each in large["champions"] if each["champion_of"] == at_once["best"][0]]
    assert mine == at_once["champions"][0]
    ((study_grown, home_grown, _), _, _) = grown
    assert [trial.params for trial in only_study(home).trials] == [t.params for t in only_study(home_grown).trials]
    assert [trial.values for trial in only_study(home).trials] == [t.values for t in only_study(home_grown).trials]
    assert epochs_trained(study) <= epochs_trained(study_grown)


def test_optuna_holds_each_point_once_and_complete(grown: tuple[Searched, dict[str, Any], dict[str, Any]]) -> None:
    (_, home, _), _, report = grown
    trials = only_study(home).trials
    assert [(trial.user_attrs["trial"], trial.state.name) for trial in trials] == [
        (f"#{number}", "COMPLETE") for number in range(8)
    ]
    assert [trial.params for trial in trials] == [
        {name: point[name] for name in ("first_q", "switch_q", "S")} for point in report["points"]
    ]
    assert [trial.values for trial in trials] == [pytest.approx(point["values"]) for point in report["points"]]


def test_the_report_tells_of_points_champions_importances_and_history(
    grown: tuple[Searched, dict[str, Any], dict[str, Any]],
) -> None:
    _, _, report = grown
    assert [report[name] for name in ("trials", "planned", "ended", "stopped")] == [8, 8, 8, 0]
    values = [point["values"][0] for point in report["points"]]
    assert report["objectives"] == ["val/top1"]
    assert report["best"] == [f"#{values.index(max(values))}"]
    assert report["history"] == [{"trial": f"#{n}", "best": max(values[: n + 1])} for n in range(8)]
    assert (report["distinct"], report["importances"]) == (8, {})  # too few to say
    (champion,) = [each for each in report["champions"] if each["champion_of"] == report["best"][0]]
    assert champion["n"] == len(champion["test/top1"]["values"]) == len(champion["holdout/top1"]["values"]) == 2


def test_the_champion_is_trained_under_fresh_replicates_and_registered(
    grown: tuple[Searched, dict[str, Any], dict[str, Any]],
) -> None:
    (_, home, _), _, report = grown
    client = MlflowClient(f"sqlite:///{home / 'mlflow.db'}")
    best = f"champion {report['best'][0]}"
    children = client.search_runs([client.get_experiment_by_name("mine").experiment_id], f"params.trial = '{best}'")
    assert sorted(int(child.data.params["replicate"]) for child in children) == [1000, 1001]
    assert {child.data.params["champion_of"] for child in children} == {report["best"][0]}
    assert {child.info.status for child in children} == {"FINISHED"}
    registered = client.get_model_version_by_alias("mine", "champion")
    assert registered.tags["study.trial"] == f"mini/{best}"
    assert registered.run_id in {child.info.run_id for child in children if child.data.params["replicate"] == "1000"}
    plan = load_plan(Store(str(home / "store")), "mine")
    assert plan is not None
    assert len(client.search_model_versions("name = 'mine'")) == sum(bool(t.champion_of) for t in plan.trials)


def test_another_start_trains_nothing_and_doubles_nothing(
    grown: tuple[Searched, dict[str, Any], dict[str, Any]],
) -> None:
    (study, home, space), _, report = grown
    before = epochs_trained(study)
    assert searched(study, space, 8) == report
    study("resume", "mine")
    assert epochs_trained(study) == before
    client = MlflowClient(f"sqlite:///{home / 'mlflow.db'}")
    runs = client.search_runs([client.get_experiment_by_name("mine").experiment_id])
    assert len(runs) == 1 + 8 + 2 * len(report["champions"])
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert len(only_study(home).trials) == 8


def test_a_search_cannot_shrink(grown: tuple[Searched, dict[str, Any], dict[str, Any]]) -> None:
    (study, _, space), _, _ = grown
    refused = study("run", space, "--name", "mine", "--workers", "1", "--trials", "7", code=2)
    assert "which already has 8" in str(refused.exception)


def test_points_told_to_another_database_are_the_same(
    grown: tuple[Searched, dict[str, Any], dict[str, Any]], tmp_path: Path
) -> None:
    (study, home, _), _, _ = grown
    study("resume", "mine", "--storage", f"sqlite:///{tmp_path / 'optuna.db'}")
    for mine, theirs in zip(only_study(home).trials, only_study(tmp_path).trials, strict=True):
        assert (mine.params, mine.values, mine.state) == (theirs.params, theirs.values, theirs.state)


def test_with_two_objectives_each_point_of_the_front_is_a_champion(
    one_ray: None, command: Study, tmp_path: Path
) -> None:
    study, home, space = begun(tmp_path, command)
    report = searched(study, space, 4, "--objectives", "top1,few")
    assert report["objectives"] == ["val/top1", "val/few"]
    by_label = {point["trial"]: point["values"] for point in report["points"]}

    def beaten(values: list[float]) -> bool:
        others = (other for other in by_label.values() if other != values)
        return any(all(a >= b for a, b in zip(other, values, strict=True)) for other in others)

    front = {label for label, values in by_label.items() if not beaten(values)}
    assert set(report["best"]) <= front
    assert {tuple(by_label[label]) for label in report["best"]} == {tuple(by_label[label]) for label in front}
    leading = [by_label[label][0] for label in report["best"]]
    assert leading == sorted(leading, reverse=True)
    assert {champion["champion_of"] for champion in report["champions"]} == set(report["best"])
    assert {tuple(trial.values) for trial in only_study(home).best_trials} == {tuple(by_label[b]) for b in front}
    client = MlflowClient(f"sqlite:///{home / 'mlflow.db'}")
    assert len(client.search_model_versions("name = 'mine'")) == len(report["best"])
    alias = client.get_model_version_by_alias("mine", "champion")
    assert alias.tags["study.trial"] == f"mini/champion {report['best'][0]}"


def test_optunas_own_dashboard_shows_the_study(grown: tuple[Searched, dict[str, Any], dict[str, Any]]) -> None:
    optuna_dashboard = pytest.importorskip("optuna_dashboard")
    (_, home, _), _, _ = grown
    application = optuna_dashboard.wsgi(optuna.storages.get_storage(f"sqlite:///{home / 'optuna.db'}"))

    def get(path: str) -> dict[str, Any]:
        answered: list[str] = []
        environment = {
            "REQUEST_METHOD": "GET",
            "PATH_INFO": path,
            "QUERY_STRING": "",
            "SERVER_NAME": "127.0.0.1",
            "SERVER_PORT": "80",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "wsgi.input": io.BytesIO(),
            "wsgi.errors": io.StringIO(),
            "wsgi.url_scheme": "http",
            "HTTP_CONTENT_TYPE": "application/json",
        }
        body = b"".join(application(environment, lambda status, *_: answered.append(status)))
        assert answered == ["200 OK"]
        return json.loads(body)

    studies = get("/api/studies")
    (listed,) = studies.get("studies") or studies["study_summaries"]
    assert listed["study_name"] == only_study(home).study_name
    shown = get(f"/api/studies/{listed['study_id']}")
    assert [trial["state"] for trial in shown["trials"]] == ["Complete"] * 8
    assert [trial["values"] for trial in shown["trials"]] == [trial.values for trial in only_study(home).trials]
