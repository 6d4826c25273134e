"""Table 10: switching to classes by their cardinality, or by their irregularity.

    study run table10                         digits-LT, 3 replicates: 447 epochs of 600
    study run table10 --paper                 CIFAR-10-LT at IF 50: 299 epochs of 400 a replicate

    study run table8 --data cifar10                        irregularities of one's own, under other seeds than here
    study report table8 --format json > table8.json
    study run table10 --data cifar10 -o irregularity=@table8.json

Paper: Table 10 (A.5). Evidence on digits: exploratory. Class probabilities after the switch are p_j ∝ 1/n_j (eq. 1), or
proportional to Table 8's irregularities I_j: p_j = I_j / Σ I (footnote 1), then uniform in the class. By default I_j is
as printed for CIFAR-10-LT at IF 50, and as measured on digits-LT at IF 50 (results/table8-digits.json). Split and
subset are those of Table 8 in all replicates. The paper's claim: the two differ slightly.
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
REMEDY = (
    "numbers with commas between them, one a class, the largest class first, or @FILE with what "
    "`study report table8 --format json` prints of a run of table8 on the same data"
)


def space(request: Request) -> Space:
    """Both weights on every data set asked for."""
    trials, configs = [], bases(request, (MAIN,), alike=("split", "subset"))
    given = text(request, "irregularity")
    if len(configs) > 1 and given and not given.lstrip().startswith("{"):
        raise Refusal(
            OPTION, given[:40], f"one of {', '.join(map(column, configs))} would do: they are of one data set"
        )
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
        options=(Option("irregularity", f"each class's, for table10: {REMEDY}"),),
        parts=(BACKBONE, LOSS),
    )


def irregularities(request: Request, config: Config) -> tuple[list[float], str]:
    """The irregularity of each class, largest class first, and where it is from: (C,).

    Raises:
        Refusal: if there is none for these data, or it is not one number ≥ 0 a class, some of them above 0.
    """
    given, place = text(request, "irregularity"), (config.dataset, config.imbalance)
    if not given and place == MAIN:
        return list(table8.IRREGULARITY), "as printed"
    source = "given"
    if not given and place == (STAND_IN, 50.0) and MEASURED.exists():
        given, source = MEASURED.read_text(encoding="utf-8"), f"results/{MEASURED.name}"
    if not given:
        raise Refusal(OPTION, given, f"none is known for {column(config)}: {REMEDY} would do")
    try:
        numbers = _reported(given, config) if given.lstrip().startswith("{") else [float(n) for n in given.split(",")]
    except (ValueError, LookupError, TypeError) as error:
        raise Refusal(OPTION, given[:40], f"for {column(config)}, {REMEDY} would do") from error
    classes = len(class_counts(config))
    if len(numbers) != classes or not all(math.isfinite(n) and n >= 0 for n in numbers) or not any(numbers):
        remedy = f"{classes} finite numbers ≥ 0, not all 0, would do for {column(config)}"
        raise Refusal(OPTION, ", ".join(map(str, numbers))[:60], remedy)
    return numbers, source


def _reported(report: str, config: Config) -> list[float]:
    """The irregularities of these data in a report of table8's."""
    name = table8.figure_name(column(config))
    (figure,) = [each for each in json.loads(report)["figures"] if each["name"] == name]
    place = figure["head"].index("irregularity")
    return [float(row[place]) for row in figure["rows"]]


def probabilities(irregularity: list[float]) -> tuple[float, ...]:
    """p_j = I_j / Σ I to six digits; an I of 0 becomes the least of the others: p_j > 0."""
    least = min(value for value in irregularity if value > 0)
    floored = [value or least for value in irregularity]
    return tuple(float(f"{value / sum(floored):.6g}") for value in floored)


def view(results: Results) -> list[Table | Figure]:
    """The paper's table, and of each data set the class probabilities behind it."""
    return [grid(results, corner="Sampling weight"), *(_weights(results, name) for name in results.columns)]


def _weights(results: Results, name: str) -> Table:
    import numpy as np

    from trainables.samplers import class_probabilities

    own = results["irregularity", name].trial
    config = Config.from_json(own.config)
    counts = class_counts(config)
    assert isinstance(config.switch, tuple)
    by_weight = zip(counts, class_probabilities(np.array(counts), -1.0), config.switch, strict=True)
    rows = [[str(j), str(n), f"{p:.4f}", f"{weight:.4f}"] for j, (n, p, weight) in enumerate(by_weight)]
    notes = [f"Irregularity: {own.axes['source']}."]
    if own.axes["floored"]:
        notes.append(f"That of {own.axes['floored']} classes is 0, for which stands the smallest of the others.")
    head = ["class", "cardinality", "p_j by cardinality", "p_j by irregularity"]
    return Table(f"Table 10: class probabilities after the switch, {name}", head, rows, notes)
