"""Table 7: switching once, or progressively over a third sampler, S = 1.

    study run table7                          digits-LT, 3 replicates: 579 epochs of 900
    study run table7 --paper                  CIFAR-10-LT at IF 50: 393 epochs of 600 per replicate

Paper: Table 7 (4.2). After m + S epochs under IB, 5 epochs follow under the middle sampler, and the rest under the
last. The paper claims that CB before CR changes nothing, and that accuracy drops with CR before CB. Evidence on digits:
same question, other data.
"""

from dataclasses import replace

from search_spaces.shared.options import BACKBONE, LOSS
from search_spaces.shared.protocol import MAIN, bases, column_names, table, trial
from study.report.exhibits import Figure, Table
from study.report.grids import grid
from study.report.results import Results
from study.space import Choice, Contrast, Request, Space

SCHEDULES: dict[str, tuple[str, tuple[tuple[int, str], ...], float]] = {
    "CR": ("CR", (), 82.9),
    "CB for 5 epochs, then CR": ("CB", ((5, "CR"),), 82.7),
    "CR for 5 epochs, then CB": ("CR", ((5, "CB"),), 79.2),
}

HYPOTHESES = (
    Contrast(better="CR", worse="CR for 5 epochs, then CB"),
    Contrast(better="CB for 5 epochs, then CR", worse="CR", margin=1.0),
)


def space(request: Request) -> Space:
    """Return the three schedules on every chosen data set."""
    trials = []
    for config in bases(request, (MAIN,)):
        for row, (switch, then, figure) in SCHEDULES.items():
            cell = replace(config, first="IB", switch=switch, then=then, S=1)
            axes: dict[str, str | int | float] = {"first": "IB", "switch": row, "S": 1}
            trials.append(trial(cell, row, axes, {MAIN: figure}))
    return table(
        request,
        name="table7",
        title="Table 7: switching once or progressively, first sampler IB, S = 1",
        trials=trials,
        domain={"switch": Choice(tuple(SCHEDULES))},
        contrasts=HYPOTHESES,
        evidence="same question, other data",
        columns=column_names((MAIN,)),
        parts=(BACKBONE, LOSS),
    )


def view(results: Results) -> list[Table | Figure]:
    """Return a table of first sampler, switching sampler and accuracy."""
    table = grid(results)
    head = ["First sampler", "Switching sampler", *results.columns]
    return [replace(table, head=head, rows=[["IB", *row] for row in table.rows], labels=2)]
