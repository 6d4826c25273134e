"""Table 12: the quality of the features: a classifier re-trained under each sampler, on the backbone of each training.

    study run table12                         digits-LT, 3 replicates: 987 epochs of 2340
    study run table12 --paper                 CIFAR-10-LT at IF 50: 479 epochs of 1380 per replicate

Paper: Table 12 (A.6). After all epochs of the standard procedure and of ours, the backbone is fixed. The classifier is
drawn anew and trained for another 30 epochs, as cRT does it. The standard features under CB are cRT. The paper claims
that our features are better (under IB slightly worse). Evidence on digits: exploratory.
"""

from dataclasses import replace

from search_spaces.shared.protocol import MAIN, bases, column_names, table, trial
from study.report.exhibits import Figure, Table
from study.report.results import Results
from study.space import Choice, Contrast, Request, Space
from trainables.exponents import SAMPLERS
from trainables.method import Method
from trainables.methods.cross_entropy import cross_entropy
from trainables.methods.switching import switching

# The training behind the features, and the figures in the order of `SAMPLERS`.
FEATURES: dict[str, tuple[Method, tuple[float, ...]]] = {
    "Standard": (cross_entropy, (77.7, 80.7, 82.2)),
    "Our": (switching, (77.0, 81.4, 82.6)),
}


def space(request: Request) -> Space:
    """Return the six cells on every chosen data set."""
    trials = []
    for base in bases(request, (MAIN,)):
        for feature, (method, figures) in FEATURES.items():
            for sampler, figure in zip(SAMPLERS, figures, strict=True):
                row = f"{feature}, {sampler}"
                cell = replace(method(base), method=f"{feature} features, {sampler}", retrain=sampler)
                trials.append(trial(cell, row, {"feature": feature, "retrain": sampler}, {MAIN: figure}))
    return table(
        request,
        name="table12",
        title="Table 12: quality of the features of standard training and of ours",
        trials=trials,
        domain={"feature": Choice(tuple(FEATURES)), "retrain": Choice(tuple(SAMPLERS))},
        contrasts=tuple(Contrast(better=f"Our, {sampler}", worse=f"Standard, {sampler}") for sampler in ("CB", "CR")),
        evidence="exploratory",
        columns=column_names((MAIN,)),
    )


def view(results: Results) -> list[Table | Figure]:
    """Return a table of feature, sampler of the re-training, and accuracy on each data set."""
    rows = [[*row.split(", "), *(results.cell(row, column) for column in results.columns)] for row in results.rows]
    head = ["Feature", "Re-training", *results.columns]
    return [Table(results.space.title, head, rows, ["Top-1 in % after the last epoch (test/top1)."], labels=2)]
