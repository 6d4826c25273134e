"""Figure 2: how fast classes of four sizes are learned, under the standard procedure and the paper's.

    study run figure2                         digits-LT at IF 50, 3 replicates: 447 epochs of 600
    study run figure2 --paper                 CIFAR-10-LT at IF 50: 299 epochs of 400 per replicate

Paper: Figure 2 (4.3). It shows the accuracy on the training images, un-augmented, after each epoch, for the classes of
rank 0, 1, 7 and 9 of ten by size. With more classes, it shows the two largest, the smallest, and the one at 7/9 of the
ranks. The paper claims that larger classes are learned sooner, that a lower lr helps small ones most, and that
switching speeds these up at slight damage to large ones.

Evidence on digits: exploratory. On digits the runs are theorem1's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from search_spaces.shared.protocol import MAIN, bases, class_counts, column_names, table, trial
from study.report.exhibits import Figure
from study.report.plotting import panels, slug
from study.report.results import Results
from study.space import Choice, Request, Space
from trainables.config import Config
from trainables.method import Method
from trainables.methods.cross_entropy import cross_entropy
from trainables.methods.switching import switching

PROCEDURES: Mapping[str, Method] = {"standard": cross_entropy, "ours": switching}


def space(request: Request) -> Space:
    """Return both procedures on every chosen data set."""
    trials = []
    for base in bases(request, (MAIN,)):
        class_counts(base)
        for row, method in PROCEDURES.items():
            trials.append(trial(replace(method(base), measures=("fit",)), row, {"procedure": row}))
    return table(
        request,
        name="figure2",
        title="Figure 2: learning speed of four classes, standard and ours",
        trials=trials,
        domain={"procedure": Choice(tuple(PROCEDURES))},
        evidence="exploratory",
        columns=column_names((MAIN,)),
    )


def view(results: Results) -> list[Figure | None]:
    """Return a figure for each data set, with a panel for each procedure."""
    return [learning_speed(results, column) for column in results.columns]


def learning_speed(results: Results, column: str) -> Figure | None:
    """Return a figure of the training accuracy of four classes by epoch, a panel for each row; None without results.

    Args:
        results: the results, with ``fit`` among their measures.
        column: the column of the data.
    """
    by_row = {row: results[row, column] for row in results.rows}
    configs = [Config.from_json(result.trial.config) for result in by_row.values()]
    counts = class_counts(configs[0])
    sets = {
        panel: {
            f"class {rank} ({counts[rank]} images)": {
                number: [None if epoch is None else epoch[rank] for epoch in epochs]
                for number, epochs in result.lists("fit/class_accuracy").items()
            }
            for rank in ranks(len(counts))
        }
        for panel, result in by_row.items()
    }
    switched = [config.last_first for config in configs if config.switch != config.first]
    mark = "switch" if len(switched) == len(configs) else "switch (ours)"
    return panels(
        slug(f"{results.space.name}-{column}"),
        f"{results.space.title}, {column}",
        "Accuracy on a class's training images, un-augmented, after each epoch: mean over replicates, with a band of "
        "± std. Classes are ranked by size, 0 the largest.",
        sets,
        y="training accuracy of the class (%)",
        marks={mark: switched[0]} if switched else None,
    )


def ranks(classes: int) -> Sequence[int]:
    """Return the ranks of the classes that the paper shows: 0, 1, 7 and 9 of ten, and the like of more."""
    return sorted({0, 1, round(7 / 9 * (classes - 1)), classes - 1})
