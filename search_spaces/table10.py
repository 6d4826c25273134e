"""Table 10: switching by cardinality, which is class-reversed sampling, or by irregularity.

    study run table10                         digits-LT at IF 50, 3 replicates: 447 epochs of 600
    study run table10 --paper                 CIFAR-10-LT at IF 50: 299 epochs of 400 a replicate
    study run table10 --data cifar100 -o irregularity=@table8.json

Paper: Table 10 (A.5). Evidence on digits: exploratory. After m + S epochs under IB, a class is drawn with probability
p_j = I_j / Σ I (footnote 1). I is the one that the paper prints, on CIFAR-10-LT at IF 50; on digits-LT at IF 50 that of
results/table8-digits.json; else that of a run of table8: ``study report table8 --format json > table8.json``. Split and
subset are table8's in every replicate, and the seeds are others. The paper's claim: the two differ slightly.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from search_spaces import table8
from study.exhibits import Figure, Table
from study.grids import grid
from study.plan import Choice, Contrast, Request, Space
from study.refusal import Refusal
from study.results import Results
from trainables import methods
from trainables.config import Config
from trainables.protocol import DATA_DOMAIN, bases, class_counts, column, trial
from trainables.work import WORK

PAPER = {"cardinality": 82.9, "irregularity": 82.8}
MEASURED = Path(__file__).parent / "results" / "table8-digits.json"
OPTION = "irregularity"
MEANING = "of each class, largest first, with commas between them; or what `study report table8 --format json` writes"


def space(request: Request) -> Space:
    """Both weights on every data set asked for."""
    trials, floored = [], {}
    configs = bases(request, (table8.COLUMN,))
    for config in configs:
        found = irregularity(request, config, alone=len(configs) == 1)
        least = min(each for each in found if each > 0)
        floored[column(config)] = [rank for rank, each in enumerate(found) if each == 0]
        raised = [max(each, least) for each in found]
        weights = tuple(float(f"{each / sum(raised):.6g}") for each in raised)
        for row, made in (
            ("cardinality", methods.switching(config)),
            ("irregularity", methods.weighted_switching(config, weights, "irregularity")),
        ):
            paper = {table8.COLUMN: PAPER[row]}
            trials.append(trial(replace(made, varies=("seed",)), row, {"weights": row}, paper))
    return Space(
        name="table10",
        title="Table 10: switching by cardinality or by irregularity",
        trials=tuple(trials),
        domain={**DATA_DOMAIN, "weights": Choice(tuple(PAPER))},
        contrasts=(Contrast(better="irregularity", worse="cardinality", margin=1.0),),
        evidence="exploratory",
        work=WORK,
        options={OPTION: MEANING},
        view=partial(view, floored),
    )


def irregularity(request: Request, config: Config, alone: bool = True) -> Sequence[float]:
    """The irregularity of each class of a data set, largest class first: (C,).

    Args:
        request: its option, if it has one.
        config: of the data set.
        alone: whether it is the only one.

    Raises:
        Refusal: if there is none, it is for other data, or it is not a number ≥ 0 for each class.
    """
    counts, given = class_counts(config), request.options.get(OPTION)
    place = (config.dataset, config.imbalance)
    if given is None:
        if place == table8.COLUMN:
            return table8.IRREGULARITY
        if place == ("digits", 50.0):
            return _recorded(MEASURED.read_text(encoding="utf-8"), config)
        data = f"--data {config.dataset} --imbalance {config.imbalance:g}"
        remedy = (
            f"that of a run would do: study run table8 {data}; study report table8 --format json > table8.json; "
            f"-o {OPTION}=@table8.json"
        )
        raise Refusal(f"-o {OPTION}", f"none for {column(config)}", remedy)
    if given.lstrip().startswith("{"):
        found = _recorded(given, config)
    elif alone:
        found = _numbers(given)
    else:
        raise Refusal(f"-o {OPTION}", given, "numbers are for one data set at one imbalance factor")
    if len(found) != len(counts) or not all(0 <= each < math.inf for each in found) or not sum(found) > 0:
        remedy = f"{len(counts)} finite numbers ≥ 0, one a class, that do not all vanish would do"
        raise Refusal(f"-o {OPTION}", ", ".join(f"{each:g}" for each in found), remedy)
    return found


def _recorded(text: str, config: Config) -> list[float]:
    """What a report of table8 has for a data set."""
    try:
        figures = json.loads(text)["figures"]
        (found,) = [each for each in figures if each["name"] == table8.figure_name(column(config))]
        place = found["head"].index("irregularity")
        return [float(row[place]) for row in found["rows"]]
    except (ValueError, KeyError, TypeError, IndexError) as error:
        remedy = f"what `study report table8 --format json` writes of a complete run on {column(config)} would do"
        raise Refusal(f"-o {OPTION}", f"{text[:40]}…", remedy) from error


def _numbers(text: str) -> list[float]:
    try:
        return [float(each) for each in text.split(",")]
    except ValueError as error:
        raise Refusal(f"-o {OPTION}", text[:80], f"numbers would do: {MEANING}") from error


def view(floored: Mapping[str, Sequence[int]], results: Results) -> list[Table | Figure | None]:
    """The accuracies, and what the classes' probabilities are after the switch.

    Args:
        floored: by data set, the classes whose irregularity of 0 was raised to the smallest positive one.
        results: of the space.
    """
    return [grid(results, corner="sampling weight"), *(_weights(results, each, floored) for each in results.columns)]


def _weights(results: Results, data: str, floored: Mapping[str, Sequence[int]]) -> Table:
    import numpy as np

    from trainables.config import resolve_sampler
    from trainables.samplers import class_probabilities

    configs = [Config.from_json(results[row, data].trial.config) for row in PAPER]
    counts = np.asarray(class_counts(configs[0]))
    drawn = [class_probabilities(counts, resolve_sampler(config.switch)) for config in configs]
    rows = [[str(rank), str(n), *(f"{p[rank]:.4f}" for p in drawn)] for rank, n in enumerate(counts)]
    zero = floored.get(data, ())
    notes = [f"Irregularity 0, raised to the smallest positive one: class {', '.join(map(str, zero))}."] if zero else []
    head = ["class", "cardinality", *(f"by {row}" for row in PAPER)]
    return Table(f"Class probabilities after the switch, {data}", head, rows, notes)
