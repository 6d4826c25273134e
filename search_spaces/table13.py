"""Table 13: bias², variance and total error of five methods over runs.

    study run table13                         digits-LT, 10 replicates: 3790 epochs of 5300
    study run table13 --paper                 CIFAR-10-LT at IF 50, 10 replicates: 7290 epochs of 10300 in all

Paper: Table 13 (A.6). The paper claims that ours has the highest accuracy and the lowest total error. It does not give
its decomposition. In each of its rows, bias² is (1 - accuracy)² and the variance about accuracy · (1 - accuracy), so
they are probably not computed from run to run.

Here the decomposition is that of Kohavi and Wolpert (1996), whose parts sum to the mean 0-1 error. Each method has at
least ten runs on one split of the images into training and test. Subset and seed vary, so from replicate 1 on, the runs
are not those of Table 1. Evidence on digits: exploratory.
"""

from dataclasses import replace

from search_spaces.shared.options import CROSSED, Chosen, varying
from search_spaces.shared.protocol import MAIN, against, bases, column_names, table, trial
from study.errors import Refusal
from study.report.exhibits import Cell, Figure, Statistic, Table
from study.report.results import Result, Results
from study.report.statistics import mean
from study.space import Choice, Printed, Request, Space
from trainables.config import Config
from trainables.method import Method
from trainables.methods.bbn import bbn
from trainables.methods.cross_entropy import cross_entropy
from trainables.methods.crt import crt
from trainables.methods.switching import switching

RUNS = 10


def reversed_only(base: Config) -> Config:
    """Return cross-entropy under class-reversed sampling throughout."""
    return replace(base, method="Cross Entropy (CR only)", first="CR", switch="CR")


# The method, its name in the paper, and its accuracy, bias², variance and total error there.
ROWS: tuple[tuple[Method, str, tuple[float, float, float, float]], ...] = (
    (cross_entropy, "Cross Entropy (IB only)", (0.779, 0.049, 0.168, 0.217)),
    (reversed_only, "Cross Entropy (CR only)", (0.763, 0.056, 0.183, 0.239)),
    (crt, "Decouple-cRT", (0.807, 0.037, 0.148, 0.185)),
    (bbn, "BBN", (0.822, 0.032, 0.146, 0.178)),
    (switching, "Ours (S = 1)", (0.829, 0.029, 0.142, 0.171)),
)
METHODS = tuple(name for _, name, _ in ROWS)


def space(request: Request) -> Space:
    """Return ten runs of each method on every chosen data set."""
    trials = []
    if CROSSED in Chosen.of(request).vary:
        hint = "Bias and variance are computed over independent runs"
        raise Refusal("--vary", CROSSED, "must be seed, subset or all", hint)
    request = varying(request, "all")
    for base in bases(request, (MAIN,), alike=("split",)):
        for method, name, (accuracy, *_) in ROWS:
            config = replace(method(base), method=name)
            paper = {MAIN: round(100 * accuracy, 1)}
            trials.append(trial(config, name, {"method": name}, paper, least=RUNS))
    return table(
        request,
        name="table13",
        title="Table 13: bias², variance and total error",
        trials=trials,
        domain={"method": Choice(METHODS)},
        contrasts=against(trials, "Ours (S = 1)", *METHODS[:-1]),
        evidence="exploratory",
        columns=column_names((MAIN,)),
    )


def view(results: Results) -> list[Table | Figure]:
    """Return a table for each data set, in shares of the test images."""
    notes = [
        "Shares of the test images after the last epoch. Bias², variance and total error are each one number over all "
        "runs (Kohavi and Wolpert, 1996); with the variance corrected for their number, the first two sum to the last.",
        "The paper's formula is not known: in its rows bias² is (1 - accuracy)², so only the accuracies compare.",
    ]
    head = ["Method", "Test accuracy ↑", "Bias² ↓", "Variance ↓", "Total error ↓"]
    printed = {name: figures for _, name, figures in ROWS}
    return [
        Table(
            f"{results.space.title}, {column}",
            head,
            [[row, *_cells(results[row, column], printed[row])] for row in results.rows],
            notes,
        )
        for column in results.columns
    ]


def _cells(result: Result, figures: tuple[float, ...]) -> list[Cell]:
    """Return accuracy, bias², variance and total error, with the paper's figures if the trial has one."""
    from search_spaces.shared.analysis import kohavi_wolpert

    accuracy = {number: value / 100 for number, value in result.last().items()}
    error = mean(list(accuracy.values()))
    over_runs = [None, None, None if error is None else Statistic(1 - error, len(accuracy))]
    predictions, labels = result.observed("predictions"), result.observed("test_labels")
    if len(predictions) > 1:
        import numpy as np

        truth = next(iter(labels.values()))
        parts = kohavi_wolpert(np.stack(list(predictions.values())), truth, int(truth.max()) + 1)
        over_runs[:2] = [Statistic(part, len(predictions)) for part in (parts.bias2, parts.variance)]
    overall = result.printed
    printed = [
        None if overall is None else Printed(figure, of=overall.of, comparable=index == 0)
        for index, figure in enumerate(figures)
    ]
    axes = result.trial.axes
    statistics = (
        Cell(printed=figure, decimals=3, axes=axes, statistic=statistic)
        for figure, statistic in zip(printed[1:], over_runs, strict=True)
    )
    return [Cell(accuracy, printed[0], 3, axes), *statistics]
