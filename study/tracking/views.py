"""Saved views for MLflow's UI: one view for each table, with one mean and one curve for each trial.

The UI (MLflow 3.17) stores a view as a tag of the experiment, and a link names the view. Without a view, it takes an
experiment for one of an agent and shows no runs. A server that does not know these tags ignores them.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from study.planning.stored import Plan, PlannedSpace
from study.space import Json, Work

TAG = "mlflow.sharedViewState."
LIMIT = 20_000  # characters of a tag's value, in MLflow
CLOSED = 200  # the most groups that a view lists as closed; a longer list would fill the tag


def tags(plan: Plan, work: Work) -> dict[str, str]:
    """Return the experiment's tags that hold the views, one for each space. Leave out tags too long for MLflow.

    Args:
        plan: the run's plan.
        work: gives the parameters that MLflow shows, and the measures that are shown beside a space's objectives.
    """
    view_tags = {}
    for space in plan.spaces:
        points = [point for point in plan.points(space) if not point.refused]
        parameters = [
            {"trial": trial.label, **work.parameters(trial.trial.config, 0, plan.machine)} for trial in points
        ]
        group = grouping([name for trial in points[:1] for name in trial.trial.axes], parameters)
        values = [_text(of_trial[group]) for of_trial in parameters]
        state = json.dumps(
            _state(space, plan.generation, (*space.objectives, *work.headline), group, values), ensure_ascii=False
        )
        created = int(datetime.fromisoformat(plan.created).timestamp() * 1000)
        packed = "deflate;" + base64.b64encode(zlib.compress(state.encode())).decode()
        view = {"name": f"{space.name} by {group}", "createdAt": created, "state": packed}
        view_tags[TAG + space.name] = json.dumps(view, ensure_ascii=False)
    return {name: value for name, value in view_tags.items() if len(value) <= LIMIT}


def grouping(axes: Sequence[str], parameters: Sequence[Mapping[str, Any]]) -> str:
    """Return the parameter that MLflow groups by: an axis that differs between all trials, or else `trial`.

    Args:
        axes: the axes of one space's trials.
        parameters: the parameters of each trial in MLflow. An axis may be missing, or have other values there.
    """
    for name in axes:
        if len({_text(of_trial[name]) for of_trial in parameters if name in of_trial}) == len(parameters) > 1:
            return name
    return "trial"


def link(address: str, experiment: str, view: str = "") -> str:
    """Return the address of an experiment's runs in the UI, as a view shows them."""
    query = {"workflowType": "machine_learning", **({"viewStateShareKey": view} if view else {})}
    return f"{address.rstrip('/')}/#/experiments/{experiment}/runs?{urlencode(query)}"


def links(address: str, experiment: Mapping[str, Any]) -> dict[str, str]:
    """Return the links to an experiment's views by their names; without views, a link to its runs by its own name.

    Args:
        address: the server's address.
        experiment: the experiment as MLflow's REST API returns it.
    """
    number, keys = experiment["experiment_id"], {}
    for tag in experiment.get("tags", ()):
        if tag["key"].startswith(TAG):
            with suppress(ValueError, KeyError, TypeError):  # a view of another MLflow version, without a name
                keys[json.loads(tag["value"])["name"]] = tag["key"].removeprefix(TAG)
    return {name: link(address, number, key) for name, key in keys.items()} or {
        experiment["name"]: link(address, number)
    }


def _state(space: PlannedSpace, generation: int, measures: Sequence[str], group: str, values: Sequence[str]) -> Json:
    """Return the state of MLflow's runs page in MLflow's format, grouped by a parameter that has these values."""
    measures = tuple(dict.fromkeys(measures))
    columns = [f"metrics.`{measure}`" for measure in measures]
    run_filter = f"tags.`study.space` = '{space.name}'"
    if generation:  # runs of older generations were trained with other sources
        run_filter += f" and tags.`study.generation` = '{generation}'"
    return {
        "searchFilter": run_filter,
        "orderByKey": f"params.`{group}`",
        "orderByAsc": True,
        "groupBy": {"aggregateFunction": "average", "groupByKeys": [{"mode": "param", "groupByData": group}]},
        "groupsExpanded": {f"param.{group}.{value}": False for value in values if len(values) <= CLOSED},
        "runsHiddenMode": "FIRST_20_RUNS",
        "selectedColumns": columns,
        "columnOrder": columns,
        "columnWidths": dict.fromkeys(columns, 190),
        "chartsSearchFilter": f"^({'|'.join(measures)})$",
        "isAccordionReordered": True,
        "compareRunSections": [
            {"uuid": "curves", "name": "curves", "display": True, "isReordered": True, "columns": 2, "cardHeight": 260}
        ],
        "compareRunCharts": [
            {
                "uuid": measure,
                "type": "LINE",
                "metricKey": measure,
                "metricSectionId": "curves",
                "xAxisKey": "step",
                "useGlobalXaxisKey": True,
                "useGlobalLineSmoothing": True,
                "isGenerated": False,
                "deleted": False,
            }
            for measure in measures
        ],
    }


def _text(value: object) -> str:
    """Return a value as MLflow shows it."""
    return value if isinstance(value, str) else json.dumps(value)
