"""Table 10: switching to classes by their cardinality, or by their irregularity.

    study run table10                         digits-LT, 3 replicates: 447 epochs of 600
    study run table10 --paper                 CIFAR-10-LT at IF 50: 299 epochs of 400 per replicate

With irregularities of your own, measured under other seeds than those of this table:

    study run table8 --data cifar10
    study report table8 --format json > table8.json
    study run table10 --data cifar10 -o irregularity=@table8.json

Paper: Table 10 (A.5). After the switch, class probabilities are p_j ∝ 1/n_j (eq. 1), or proportional to Table 8's
irregularities I_j: p_j = I_j / Σ I (footnote 1). Within a class, images are drawn uniformly. The paper claims that the
two differ slightly.

Evidence on digits: exploratory. The default I_j is the paper's for CIFAR-10-LT at IF 50, and the measured one for
digits-LT at IF 50 (results/table8-digits.json). Split and subset are those of Table 8 in all replicates.
"""

import json
import math
from pathlib import Path

from search_spaces import table8
from search_spaces.shared.options import BACKBONE, LOSS, text
from search_spaces.shared.protocol import MAIN, STAND_IN, bases, class_counts, column, column_names, table, trial
from study.errors import Refusal
from study.report.exhibits import Figure, Table
from study.report.grids import grid
from study.report.results import Results
from study.space import Choice, Contrast, Option, Request, Space
from trainables.config import Config
from trainables.methods.switching import switching, weighted_switching

MEASURED = Path(__file__).parent / "results" / "table8-digits.json"
OPTION = "-o irregularity"
ALLOWED = (
    "numbers separated by commas, one for each class, the largest class first; or @FILE with the output of 'study "
    "report table8 --format json' for a run of table8 on the same data"
)


def space(request: Request) -> Space:
    """Return both weights on every chosen data set."""
    trials, configs = [], bases(request, (MAIN,), alike=("split", "subset"))
    value = text(request, "irregularity")
    if len(configs) > 1 and value and not value.lstrip().startswith("{"):
        hint = f"Its numbers belong to one data set; choose one of {', '.join(map(column, configs))}"
        raise Refusal(OPTION, value[:40], "must be left out with several data sets", hint)
    for config in configs:
        irregularity, source = irregularities(request, config)
        weights = probabilities(irregularity)
        by_irregularity = weighted_switching(config, weights, "irregularity")
        axes: dict[str, str | int | float] = {
            "weight": "irregularity",
            "source": source,
            "floored": sum(value == 0 for value in irregularity),
        }
        trials.append(trial(switching(config), "cardinality", {"weight": "cardinality"}, {MAIN: 82.9}))
        trials.append(trial(by_irregularity, "irregularity", axes, {MAIN: 82.8}))
    return table(
        request,
        name="table10",
        title="Table 10: sampling weights by cardinality and by irregularity",
        trials=trials,
        domain={"weight": Choice(("cardinality", "irregularity"))},
        contrasts=(Contrast(better="irregularity", worse="cardinality", margin=1.0),),
        evidence="exploratory",
        columns=column_names((MAIN,)),
        options=(Option("irregularity", f"the irregularity of each class, for table10: {ALLOWED}"),),
        parts=(BACKBONE, LOSS),
    )


def irregularities(request: Request, config: Config) -> tuple[list[float], str]:
    """Return the irregularity of each class, largest class first: (C,); and its source in words.

    Raises:
        Refusal: if none is known for these data, or if it is not a number ≥ 0 for each class, some of them above 0.
    """
    value, data = text(request, "irregularity"), (config.dataset, config.imbalance)
    if not value and data == MAIN:
        return list(table8.IRREGULARITY), "as printed"
    source = "given"
    if not value and data == (STAND_IN, 50.0) and MEASURED.exists():
        value, source = MEASURED.read_text(encoding="utf-8"), f"results/{MEASURED.name}"
    if not value:
        words = f"no irregularities are known for {column(config)}"
        raise Refusal(OPTION, value, words, hint=f"{OPTION} takes {ALLOWED}")
    try:
        numbers = (
            _from_report(value, config) if value.lstrip().startswith("{") else [float(n) for n in value.split(",")]
        )
    except (ValueError, LookupError, TypeError) as error:
        words = f"must hold the irregularities of {column(config)}"
        raise Refusal(OPTION, value[:40], words, hint=f"It takes {ALLOWED}") from error
    classes = len(class_counts(config))
    if len(numbers) != classes or not all(math.isfinite(n) and n >= 0 for n in numbers) or not any(numbers):
        words = f"must be {classes} finite numbers ≥ 0, not all 0, for {column(config)}"
        raise Refusal(OPTION, ", ".join(map(str, numbers))[:60], words)
    return numbers, source


def _from_report(report: str, config: Config) -> list[float]:
    """Return the irregularities of these data from a report of table8."""
    name = table8.figure_name(column(config))
    (figure,) = [figure for figure in json.loads(report)["figures"] if figure["name"] == name]
    index = figure["head"].index("irregularity")
    return [float(row[index]) for row in figure["rows"]]


def probabilities(irregularity: list[float]) -> tuple[float, ...]:
    """Return p_j = I_j / Σ I to six digits. An I of 0 is replaced by the least of the others, so that p_j > 0."""
    least = min(value for value in irregularity if value > 0)
    floored = [value or least for value in irregularity]
    return tuple(float(f"{value / sum(floored):.6g}") for value in floored)


def view(results: Results) -> list[Table | Figure]:
    """Return the paper's table, and the class probabilities behind it for each data set."""
    return [grid(results, corner="Sampling weight"), *(_weights(results, name) for name in results.columns)]


def _weights(results: Results, name: str) -> Table:
    import numpy as np

    from trainables.samplers import class_probabilities

    trial = results["irregularity", name].trial
    config = Config.from_json(trial.config)
    counts = class_counts(config)
    assert isinstance(config.switch, tuple)
    by_weight = zip(counts, class_probabilities(np.array(counts), -1.0), config.switch, strict=True)
    rows = [[str(j), str(n), f"{p:.4f}", f"{weight:.4f}"] for j, (n, p, weight) in enumerate(by_weight)]
    notes = [f"Irregularity: {trial.axes['source']}."]
    if trial.axes["floored"]:
        notes.append(f"It is 0 for {trial.axes['floored']} classes; the smallest of the others is used for these.")
    head = ["class", "cardinality", "p_j by cardinality", "p_j by irregularity"]
    return Table(f"Table 10: class probabilities after the switch, {name}", head, rows, notes)
