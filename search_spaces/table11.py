"""Table 11: after the switch, joint training or a fixed backbone, and the classifier kept or drawn anew, by sampler.

    study run table11                         digits-LT, 3 replicates: 1917 epochs of 3600
    study run table11 --paper                 CIFAR-10-LT at IF 50: 1289 epochs of 2400 per replicate

Paper: Table 11 (A.6). All twelve trials branch from one trunk at S = 1 and continue at the decayed lr without warm-up.
Those with joint training and the classifier kept are Table 9's. The paper claims that joint training is better, and
that a classifier drawn anew helps only where the sampler is not switched. Evidence on digits: exploratory.
"""

from dataclasses import replace

from search_spaces.shared.options import BACKBONE, LOSS
from search_spaces.shared.protocol import MAIN, bases, column_names, table, trial
from study.report.exhibits import Figure, Table
from study.report.results import Results
from study.space import Choice, Contrast, Request, Space
from trainables.exponents import SAMPLERS

# By the switching sampler, in the order of `WAYS`.
PAPER = {
    "IB": (76.3, 77.9, 77.7, 78.9),
    "CB": (81.9, 81.9, 81.8, 81.9),
    "CR": (81.4, 82.9, 81.6, 82.4),
}
WAYS = ((False, False), (True, False), (False, True), (True, True))  # joint training, re-training the classifier

HYPOTHESES = (
    *(Contrast(better=f"{switch}, joint", worse=f"{switch}, fixed") for switch in SAMPLERS),
    Contrast(better="IB, joint, re-trained", worse="IB, joint"),
    *(Contrast(better=f"{switch}, joint, re-trained", worse=f"{switch}, joint", margin=1.0) for switch in ("CB", "CR")),
)


def space(request: Request) -> Space:
    """Return the twelve cells on every chosen data set."""
    trials = []
    for config in bases(request, (MAIN,)):
        for switch, figures in PAPER.items():
            for (joint, anew), figure in zip(WAYS, figures, strict=True):
                cell = replace(config, first="IB", switch=switch, S=1, joint=joint, reinitialise=anew)
                axes = {
                    "switch": switch,
                    "training": "joint" if joint else "fixed",
                    "classifier": "re-trained" if anew else "kept",
                }
                row = f"{switch}, {axes['training']}" + (", re-trained" if anew else "")
                trials.append(trial(cell, row, axes, {MAIN: figure}))
    return table(
        request,
        name="table11",
        title="Table 11: decoupled and joint training after the switch",
        trials=trials,
        domain={
            "switch": Choice(tuple(SAMPLERS)),
            "training": Choice(("joint", "fixed")),
            "classifier": Choice(("kept", "re-trained")),
        },
        contrasts=HYPOTHESES,
        evidence="exploratory",
        columns=column_names((MAIN,)),
        parts=(BACKBONE, LOSS),
    )


def view(results: Results) -> list[Table | Figure]:
    """Return a table of samplers, S, crosses for joint training and re-training, and the accuracy on each data set."""
    rows = []
    for row in results.rows:
        axes = results[row, results.columns[0]].trial.axes
        crosses = ["X" if axes["training"] == "joint" else "", "X" if axes["classifier"] == "re-trained" else ""]
        cells = [results.cell(row, column) for column in results.columns]
        rows.append(["IB", "1", str(axes["switch"]), *crosses, *cells])
    head = ["First sampler", "S", "Switching sampler", "Joint training", "Re-training classifier", *results.columns]
    return [Table(results.space.title, head, rows, ["Top-1 in % after the last epoch (test/top1)."], labels=5)]
