"""Where the records and the data of a stored run are, for a command that may be given on another machine."""

from __future__ import annotations

import os
from pathlib import Path

from study.errors import Refusal
from study.home import Home
from study.masking import without_password
from study.planning.stored import Plan


def recorded(plan: Plan, tracking_uri: str | None = None, storage: str | None = None) -> tuple[str, str]:
    """Return the URLs of MLflow and Optuna that hold a run's records; "" for the home's own databases.

    An option changes the URLs. The environment does not, but it may have the password that is not stored.
    """
    urls = []
    for option, given, kept, variable in (
        ("--tracking-uri", tracking_uri, plan.tracking_uri, "MLFLOW_TRACKING_URI"),
        ("--storage", storage, plan.storage, "STUDY_STORAGE"),
    ):
        url, environment = given or kept, os.environ.get(variable, "")
        if "***" in url:
            if without_password(environment) != kept:
                hint = f"Give the whole URL again, in {variable} or with {option}"
                raise Refusal(option, kept, f"{option}: the password of {kept!r} is not stored", hint)
            url = environment
        urls.append(url)
    return urls[0], urls[1]


def home_of(plan: Plan, home: Home, chosen: tuple[str, str]) -> Home:
    """Return the home whose databases hold a run's records: the one in which it began, even if only its store is named.

    A store inside its home moves with the home.
    """
    if all(chosen) or not plan.home or plan.home == str(home.path) or home.store_url == str(home.path / "store"):
        return home
    needed = [name for name, url in zip(("mlflow.db", "optuna.db"), chosen, strict=True) if not url]
    for folder in (plan.home, home.path):
        if all(Path(folder, name).is_file() for name in needed):
            return Home(str(folder), home.store_url)
    words = f"must be {plan.home}, which holds the records of {plan.run}"
    raise Refusal("--home", str(home.path), words, hint="Or give both --tracking-uri and --storage")


def data_dir_of(plan: Plan, home: Home) -> str | None:
    """Return the folder of data for a run that is resumed where the plan's folder is not; None for the plan's."""
    if Path(plan.resources.data_dir).is_dir():
        return None
    given = os.environ.get("STUDY_DATA")
    if given:
        return str(Path(given).expanduser().absolute())
    was_in_home = plan.resources.data_dir == str(Path(plan.home, "data"))
    here = home.path / "data"
    return str(here) if was_in_home and here.is_dir() else None
