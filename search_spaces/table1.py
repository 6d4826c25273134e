"""Table 1: every method on long-tailed CIFAR.

    study run table1                          digits-LT at IF 50, 20, 10, 3 replicates: 9063 epochs of 14940
    study run table1 --paper                  CIFAR-10/100-LT at IF 100, 50, 10: 11742 epochs of 19560 per replicate
    study run table1 -o recipe=source         each method with the constants of its own publication's code
    study run table1 -o smoothing=all         label-aware smoothing as in its code: ε to all classes, the label too

Paper: Table 1 (4.1). Methods that the paper's table does not have follow below its rows: τ-normalisation, post-hoc and
in-training logit adjustment, balanced softmax, label-aware smoothing, mixup. Evidence on digits: same question, other
data.
"""

from collections.abc import Mapping
from dataclasses import replace

from search_spaces.shared.options import BACKBONE, METHOD, text
from search_spaces.shared.protocol import (
    CIFAR,
    READ_OUT_TAUS,
    RECIPE,
    against,
    bases,
    column_names,
    method_of,
    own_methods,
    own_rows,
    table,
    trial,
    under_recipe,
)
from study.errors import Refusal
from study.report.exhibits import Figure, Table
from study.report.grids import at_edges, grid, printed_row
from study.report.results import Results
from study.space import Choice, Option, Request, Space
from trainables.config import Config
from trainables.losses.label_aware_smoothing import LabelAwareSmoothing
from trainables.method import Method

DIGITS = (50.0, 20.0, 10.0)

# The method, its figures in the paper by `CIFAR`'s columns, and their provenance mark.
ROWS: tuple[tuple[str | Method, tuple[float, ...], str], ...] = (
    ("cross_entropy", (73.1, 77.9, 86.4, 40.7, 44.9, 57.2), "*"),
    ("focal", (70.4, 76.7, 86.7, 38.4, 44.3, 55.8), "†"),
    ("ce_drw", (76.3, 80.0, 87.6, 41.5, 45.3, 58.1), "†"),
    ("ce_drs", (75.6, 79.8, 87.4, 41.6, 45.5, 58.1), "†"),
    ("cb_focal", (74.6, 79.3, 87.1, 39.6, 45.2, 58.0), "†"),
    ("ldam_drw", (77.0, 81.0, 88.2, 42.0, 46.6, 58.7), "†"),
    ("crt", (73.8, 80.7, 86.7, 40.1, 46.4, 57.7), "*"),
    ("lws", (73.5, 77.5, 86.1, 40.2, 45.7, 58.1), "*"),
    ("bbn", (79.8, 82.2, 88.3, 42.6, 47.0, 59.1), "†"),
    ("switching", (79.7, 82.9, 88.4, 44.7, 49.5, 59.5), ""),
    ("tau_normalised", (), ""),
    ("post_hoc", (), ""),
    ("balanced_softmax", (), ""),
    ("logit_adjusted", (), ""),
    ("label_aware_smoothing", (), ""),
    ("mixup_switching", (), ""),
)

METHODS = tuple(method_of(method)(Config()).method for method, _, _ in ROWS)

COPIED = dict(zip(column_names(CIFAR), (70.4, 74.8, 86.7, 38.3, 43.9, 55.7), strict=True))

SHARES = {"others": "to all classes but the label (its paper's eq. 4)", "all": "to all classes (its code)"}
SMOOTHING = Option("smoothing", "label-aware smoothing gives ε " + ", or ".join(f"{k}: {v}" for k, v in SHARES.items()))

READ_OUTS = {"τ-normalised": "tau_normalised/top1", "Post-hoc logit adjustment": "adjusted/top1"}


def space(request: Request) -> Space:
    """Return every method on every chosen data set."""
    trials = []
    share = text(request, "smoothing", "others")
    if share not in SHARES:
        raise Refusal("-o smoothing", share, f"must be {' or '.join(SHARES)}")
    for base in bases(request, CIFAR, DIGITS):
        for method, figures, provenance in (*ROWS, *own_rows(request)):
            config, row = under_recipe(request, method_of(method), base)
            if isinstance(config.loss, LabelAwareSmoothing):
                config = replace(config, loss=replace(config.loss, share=share))
            paper = dict(zip(CIFAR, figures, strict=True)) if figures else {}
            axes = {"method": config.method}
            measure = READ_OUTS.get(config.method, "")
            trials.append(trial(config, row, axes, paper, provenance=provenance, measure=measure))
    return table(
        request,
        name="table1",
        title="Table 1: top-1 accuracy of every method on long-tailed CIFAR",
        trials=trials,
        domain={"method": Choice((*METHODS, *own_methods(trials, METHODS)))},
        contrasts=against(trials, "Ours (S = 1)", "Cross Entropy", "CE-DRS", "BBN"),
        evidence="same question, other data",
        columns=column_names(CIFAR),
        options=(RECIPE, SMOOTHING),
        parts=(BACKBONE, METHOD),
    )


def view(results: Results) -> list[Table | Figure]:
    """Return a table of the paper's rows, the first of which it only copies, and further methods; and the read-outs."""
    methods_of = {result.trial.row: result.trial.axes["method"] for result in results}
    losses = (Config.from_json(result.trial.config).loss for result in results)
    smoothing = {loss.share for loss in losses if isinstance(loss, LabelAwareSmoothing)}
    notes = [
        "Balanced softmax is logit adjustment at τ = 1.",
        *(f"Label-aware smoothing gives ε {SHARES[share]}." for share in sorted(smoothing)),
    ]
    trained = [row for row, method in methods_of.items() if method not in READ_OUTS]
    table = grid(results, rows=trained, corner="Method", notes=notes)
    copied = printed_row(results, "Cross Entropy (copied)", COPIED, "†")
    return [replace(table, rows=[copied, *table.rows]), _read_outs(results, methods_of)]


def _read_outs(results: Results, methods_of: Mapping[str, object]) -> Table:
    """Return a table of cross-entropy's networks with each read-out and without, on the same images."""
    measures = {"Cross Entropy": "holdout/top1", **READ_OUTS}
    rows = [
        [row, *(results.cell(row, column, measures[str(method)]) for column in results.columns)]
        for row, method in methods_of.items()
        if method in measures
    ]
    notes = [f"In % after the last epoch ({', '.join(measures.values())})."]
    for read_out, measure in READ_OUTS.items():
        rows_of = [row for row, method in methods_of.items() if method == read_out]
        notes += at_edges(results, measure.replace("/top1", "/tau"), READ_OUT_TAUS, rows_of)
    title = "Read-outs, on the half of the test images that chose no τ (holdout)"
    return Table(title, ["Method", *results.columns], rows, notes)
