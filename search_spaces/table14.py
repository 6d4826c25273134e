"""Table 14: constant learning rates against the stage-wise one, under the standard procedure and under ours.

    study run table14                         digits-LT, 3 replicates: 2235 epochs of 3000
    study run table14 --paper                 CIFAR-10-LT at IF 50: 1495 epochs of 2000 per replicate

Paper: Table 14 (A.7). Constant rates have no warm-up. They keep their milestones, since the switch is counted from
these. The same runs are behind Figures 6 and 7, which show the training images. The paper claims that ours is better at
every rate, and that the stage-wise rate is the best for both. Evidence on digits: same question, other data.
"""

from dataclasses import replace

from search_spaces.shared.protocol import MAIN, bases, column_names, table, trial
from study.report.exhibits import Figure, Table
from study.report.results import Results
from study.space import Choice, Contrast, Request, Space
from trainables.config import Config
from trainables.method import Method
from trainables.methods.cross_entropy import cross_entropy
from trainables.methods.switching import switching

STAGE_WISE = "stage-wise"
RATES = (0.1, 0.02, 0.01, 0.001)
PROCEDURES: dict[str, Method] = {"Standard": cross_entropy, "Our": switching}

# By the learning rate, in the order of `PROCEDURES`.
PAPER = {
    STAGE_WISE: (77.9, 82.9),
    "0.1": (75.5, 77.7),
    "0.02": (76.1, 78.3),
    "0.01": (75.0, 77.7),
    "0.001": (65.9, 66.1),
}

HYPOTHESES = (
    *(Contrast(better=f"Our, {rate}", worse=f"Standard, {rate}") for rate in PAPER),
    *(
        Contrast(better=f"{procedure}, {STAGE_WISE}", worse=f"{procedure}, {rate:g}")
        for procedure in PROCEDURES
        for rate in RATES
    ),
)


def constant(config: Config, rate: float) -> Config:
    """Return a configuration with one learning rate throughout."""
    return replace(config, lr=rate, gamma=1.0, warmup=0, measures=("fit",))


def space(request: Request) -> Space:
    """Return both procedures at every learning rate on every chosen data set."""
    trials = []
    for base in bases(request, (MAIN,)):
        for index, (procedure, method) in enumerate(PROCEDURES.items()):
            for rate, figures in PAPER.items():
                config = method(base) if rate == STAGE_WISE else constant(method(base), float(rate))
                axes = {"procedure": procedure, "rate": rate}
                trials.append(trial(config, f"{procedure}, {rate}", axes, {MAIN: figures[index]}))
    return table(
        request,
        name="table14",
        title="Table 14: constant and stage-wise learning rates",
        trials=trials,
        domain={"procedure": Choice(tuple(PROCEDURES)), "rate": Choice(tuple(PAPER))},
        contrasts=HYPOTHESES,
        evidence="same question, other data",
        columns=column_names((MAIN,)),
    )


def view(results: Results) -> list[Table | Figure]:
    """Return a table for each data set, with the paper's two halves side by side."""
    head = ["Learning rate (SGD)", *PROCEDURES]
    notes = ["Top-1 in % after the last epoch (test/top1)."]
    return [
        Table(
            f"{results.space.title}, {column}",
            head,
            [[rate, *(results.cell(f"{procedure}, {rate}", column) for procedure in PROCEDURES)] for rate in PAPER],
            notes,
        )
        for column in results.columns
    ]
