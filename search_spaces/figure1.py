"""Figure 1: the sampling weights, and test accuracy by epoch of cross-entropy, BBN and switching.

    study run figure1                         digits-LT at IF 50, 3 replicates: 747 epochs of 900
    study run figure1 --paper                 CIFAR-10-LT at IF 50: 499 epochs of 600 per replicate
    study run figure1 -o recipe=source        with the constants of each method's own code

Paper: Figure 1 (3.1, 4.3). The paper claims that accuracy rises at once after the switch, and that BBN gets there more
slowly. The space `claims` counts the epochs. Evidence on digits: same question, other data.
"""

from __future__ import annotations

from typing import Any

from search_spaces.shared.protocol import (
    MAIN,
    RECIPE,
    bases,
    class_counts,
    column_names,
    table,
    trial,
    under_recipe,
)
from study.report.exhibits import Figure
from study.report.plotting import curves, slug, style
from study.report.results import Results
from study.space import Request, Space
from trainables.config import Config
from trainables.exponents import SAMPLERS
from trainables.methods.bbn import bbn
from trainables.methods.cross_entropy import cross_entropy
from trainables.methods.switching import switching


def space(request: Request) -> Space:
    """Return the three methods on every chosen data set. They are Table 1's trials."""
    trials = []
    for base in bases(request, (MAIN,)):
        class_counts(base)
        for method in (cross_entropy, bbn, switching):
            config, row = under_recipe(request, method, base)
            trials.append(trial(config, row, {"method": config.method}))
    return table(
        request,
        name="figure1",
        title="Figure 1: sampling weights, and test accuracy by epoch",
        trials=trials,
        domain={},
        evidence="same question, other data",
        columns=column_names((MAIN,)),
        options=(RECIPE,),
    )


def view(results: Results) -> list[Figure | None]:
    """Return (a) the class probabilities and (b) the curves of each data set."""
    figures: list[Figure | None] = []
    for column in results.columns:
        by_row = {row: result for row in results.rows if (result := results.get(row, column)) is not None}
        config = Config.from_json(by_row[list(by_row)[-1]].trial.config)
        figures.append(_weights(column, config))
        figures.append(
            curves(
                f"figure1b-{slug(column)}",
                f"Figure 1(b): test accuracy, {column}",
                "Accuracy on all test images after each epoch, mean over replicates, with a band of ± std.",
                {row: result.curve("test/top1") for row, result in by_row.items()},
                y="test accuracy (%)",
                marks={"switch": config.last_first},
            )
        )
    return figures


def _weights(column: str, config: Config) -> Figure:
    """Return a figure of the probability of each class under the three samplers, from its number of images."""
    import numpy as np

    from trainables.samplers import class_probabilities

    counts = np.asarray(class_counts(config))
    weights = {name: class_probabilities(counts, q) for name, q in SAMPLERS.items()}

    def draw(figure: Any) -> None:
        axis = figure.add_subplot()
        for number, (name, p) in enumerate(weights.items()):
            axis.plot(range(len(p)), p, label=name, markevery=max(1, len(p) // 10), **style(number))
        axis.set_xlabel("class, by size")
        axis.set_ylabel("probability of a draw, p_j")
        axis.legend()

    highest = max(float(p.max()) for p in weights.values())
    caption = (
        "Instance-balanced (IB), class-balanced (CB) and class-reversed (CR) sampling, p_j ∝ n_j^q with q = 1, 0, -1. "
        f"Normalised to sum 1, so that the highest is {highest:.3f}; the axis of the paper's figure reaches 1.0."
    )
    rows = [[j, int(n), *(float(p[j]) for p in weights.values())] for j, n in enumerate(counts)]
    name = f"figure1a-{slug(column)}"
    return Figure(name, f"Figure 1(a): sampling weights, {column}", caption, draw, ("class", "images", *weights), rows)
