"""How MLflow's own UI opens a run: for each table a saved view, one mean and one curve for each trial.

The UI (MLflow 3.17) keeps a view as a tag of the experiment, and a link names it; without one it opens an experiment as
an agent's, which shows none of its runs. A server that does not know such tags ignores them.
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
LIMIT = 20_000  # letters of a tag's value, in MLflow
CLOSED = 200  # groups that a view lists as closed; of more, the list would be what fills a tag


def tags(plan: Plan, work: Work) -> dict[str, str]:
    """The experiment's tags that hold the views, one for each space of a plan; none that MLflow would refuse.

    Args:
        plan: of the run.
        work: says what parameters MLflow shows, and which measures beside a space's objectives.
    """
    found = {}
    for space in plan.spaces:
        points = plan.points(space)
        shown = [{"trial": trial.label, **work.parameters(trial.trial.config, 0, plan.machine)} for trial in points]
        group = grouping([name for trial in points[:1] for name in trial.trial.axes], shown)
        values = [_text(each[group]) for each in shown]
        state = json.dumps(
            _state(space, plan.generation, (*space.objectives, *work.headline), group, values), ensure_ascii=False
        )
        created = int(datetime.fromisoformat(plan.created).timestamp() * 1000)
        packed = "deflate;" + base64.b64encode(zlib.compress(state.encode())).decode()
        view = {"name": f"{space.name} by {group}", "createdAt": created, "state": packed}
        found[TAG + space.name] = json.dumps(view, ensure_ascii=False)
    return {name: value for name, value in found.items() if len(value) <= LIMIT}


def grouping(axes: Sequence[str], shown: Sequence[Mapping[str, Any]]) -> str:
    """The parameter over whose values MLflow averages: an axis that by itself tells all trials apart, or else `trial`.

    Args:
        axes: of the trials of one space.
        shown: the parameters that MLflow has of each trial; an axis need not be one, nor have the same values.
    """
    for name in axes:
        if len({_text(each[name]) for each in shown if name in each}) == len(shown) > 1:
            return name
    return "trial"


def link(address: str, experiment: str, view: str = "") -> str:
    """The address of an experiment's runs in the UI, as one of its views shows them."""
    query = {"workflowType": "machine_learning", **({"viewStateShareKey": view} if view else {})}
    return f"{address.rstrip('/')}/#/experiments/{experiment}/runs?{urlencode(query)}"


def links(address: str, experiment: Mapping[str, Any]) -> dict[str, str]:
    """The links to an experiment's views, by the view's name; to its runs, by its own name, if it has no view.

    Args:
        address: of the server.
        experiment: as MLflow's REST API gives it.
    """
    number, keys = experiment["experiment_id"], {}
    for tag in experiment.get("tags", ()):
        if tag["key"].startswith(TAG):
            with suppress(ValueError, KeyError, TypeError):  # of another version of MLflow: it has no name
                keys[json.loads(tag["value"])["name"]] = tag["key"].removeprefix(TAG)
    return {name: link(address, number, key) for name, key in keys.items()} or {
        experiment["name"]: link(address, number)
    }


def _state(space: PlannedSpace, generation: int, shown: Sequence[str], group: str, values: Sequence[str]) -> Json:
    """The state of MLflow's runs page in its own words: a parameter to group by, and the values it has."""
    measures = tuple(dict.fromkeys(shown))
    columns = [f"metrics.`{measure}`" for measure in measures]
    words = f"tags.`study.space` = '{space.name}'"
    if generation:  # older ones are of other sources
        words += f" and tags.`study.generation` = '{generation}'"
    return {
        "searchFilter": words,
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
    """A value as MLflow shows it."""
    return value if isinstance(value, str) else json.dumps(value)
