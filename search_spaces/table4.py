"""Table 4: accuracy on classes of many, of medium and of few training images, on long-tailed CIFAR-100.

    study run table4                          digits-LT, 3 replicates: 927 epochs of 1680
    study run table4 --paper                  CIFAR-100-LT at IF 100: 559 epochs of 1060 per replicate
    study run table4 -o recipe=source         each method with the constants of its own publication's code

Paper: Table 4 (4.1). Many-shot classes have more than 100 training images, few-shot classes fewer than 20. The accuracy
of a split is the mean over its classes. By the paper's own splits, the overall accuracy of BBN would be 41.9 and that
of cRT 39.8, which differs from the overall figures that it prints.

Evidence on digits: exploratory. The largest class has 124 images, so many-shot means more than 40 and few-shot fewer
than 10.
"""

from collections.abc import Sequence

from search_spaces.shared.options import BACKBONE
from search_spaces.shared.protocol import RECIPE, against, bases, column_names, table, trial, under_recipe
from search_spaces.shared.shots import by_shot
from study.report.exhibits import Figure, Table
from study.report.results import Results
from study.space import Choice, Contrast, Request, Space, Trial
from trainables.config import Config
from trainables.data.datasets import facts
from trainables.method import Method
from trainables.methods.bbn import bbn
from trainables.methods.cross_entropy import cross_entropy
from trainables.methods.crt import crt
from trainables.methods.lws import lws
from trainables.methods.switching import switching

COLUMN = ("cifar100", 100.0)

# The method, its figures for many-, medium- and few-shot classes, that for all images, and its mark in Table 1.
ROWS: tuple[tuple[Method, tuple[float, ...], float, str], ...] = (
    (cross_entropy, (68.2, 39.7, 9.9), 40.7, "*"),
    (crt, (58.1, 40.3, 18.0), 40.1, "*"),
    (lws, (59.5, 40.7, 17.4), 40.2, "*"),
    (bbn, (54.5, 51.0, 16.7), 42.6, "†"),
    (switching, (57.1, 48.1, 26.5), 44.7, ""),
)
METHODS = tuple(method(Config()).method for method, *_ in ROWS)


def space(request: Request) -> Space:
    """Return every method on every chosen data set."""
    trials = []
    for base in bases(request, (COLUMN,)):
        for method, _, figure, provenance in ROWS:
            config, row = under_recipe(request, method, base)
            axes = {"method": config.method}
            trials.append(trial(config, row, axes, {COLUMN: figure}, provenance=provenance))
    return table(
        request,
        name="table4",
        title="Table 4: accuracy by shot on long-tailed CIFAR-100",
        trials=trials,
        domain={"method": Choice(METHODS)},
        contrasts=claims(trials),
        evidence="exploratory",
        columns=column_names((COLUMN,)),
        options=(RECIPE,),
        parts=(BACKBONE,),
    )


def claims(trials: Sequence[Trial]) -> tuple[Contrast, ...]:
    """Return the claims that cross-entropy is the best on many-shot classes, and ours on few-shot ones (4.1)."""
    cross_entropy_name, *compared, ours = METHODS
    many = against(trials, cross_entropy_name, *compared, ours, measure="test/many")
    return (*many, *against(trials, ours, cross_entropy_name, *compared, measure="test/few"))


def view(results: Results) -> list[Table | Figure]:
    """Return a table for each data set."""
    figures = {method: shots for method, (_, shots, *_) in zip(METHODS, ROWS, strict=True)}
    return [
        by_shot(results, column, lambda trial: figures[str(trial.axes["method"])], notes(results, column))
        for column in results.columns
    ]


def notes(results: Results, column: str) -> list[str]:
    """Return notes on the many-, medium- and few-shot classes of a column, and on the marks of the figures."""
    config = next(result.trial.config for result in results if result.trial.column == column)
    known = facts(config["dataset"])
    sizes = {} if known.lists is not None else known.shots(config["imbalance"])
    classes = ", ".join(f"{len(ranks)} {split}" for split, ranks in sizes.items())
    return [
        f"In % after the last epoch (test); many-shot: more than {known.many} training images, few-shot: fewer than "
        f"{known.few}" + (f"; classes: {classes}." if classes else "."),
        "The paper marks no figure of this table; the marks under All are those of the same figures in its "
        + ("Table 1." if results.space.name == "table4" else "Table 3."),
    ]
