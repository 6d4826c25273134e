"""Table 5: accuracy on classes of many, of medium and of few training images, on ImageNet-LT: Table 3's trials.

    study run table5                          digits-LT, 3 replicates: 1914 epochs of 4020
    study run table5 --paper                  ImageNet-LT: 518 epochs of 1220 per replicate
    study run table5 -o recipe=source         each method with the constants of its own publication's code

Paper: Table 5 (4.1). Evidence on digits: mechanics only; 'study show table3' describes the data and networks that stand
in.
"""

from dataclasses import replace

from search_spaces import table3, table4
from search_spaces.shared.options import METHOD
from search_spaces.shared.protocol import column_names
from search_spaces.shared.shots import by_shot
from study.report.exhibits import Figure, Table
from study.report.results import Results
from study.space import Request, Space, Trial

# The figures for many, medium and few with a ResNet-50, and with a ResNeXt-50.
PAPER = {
    "Cross Entropy": ((64.0, 33.8, 5.8), (65.9, 37.5, 7.7)),
    "Decouple-cRT": ((58.8, 44.0, 26.1), (61.8, 46.2, 27.4)),
    "Decouple-LWS": ((57.1, 45.2, 29.3), (60.2, 47.2, 30.3)),
    "BBN": ((56.2, 46.6, 14.1), (58.1, 47.2, 15.6)),
    "Ours (S = 1)": ((53.5, 45.2, 41.8), (55.2, 46.7, 39.0)),
    "Ours, 10 more epochs": ((54.5, 45.0, 41.9), (56.5, 46.1, 39.4)),
}


def space(request: Request) -> Space:
    """Return Table 3's trials with Table 5's claims and view."""
    base = table3.space(request)
    title = "Table 5: accuracy by shot and backbone on ImageNet-LT"
    options = tuple(option for option in base.options if option is not METHOD)  # a method has no figures by shot
    return replace(base, name="table5", title=title, contrasts=table4.claims(base.trials), options=options)


def view(results: Results) -> list[Table | Figure]:
    """Return a table for each backbone."""
    columns = column_names((table3.COLUMN,), *table3.PAPER_BACKBONES)

    def figures(trial: Trial) -> tuple[float, ...]:
        assert trial.printed is not None
        return PAPER[str(trial.axes["method"])][columns.index(trial.printed.of)]

    return [by_shot(results, column, figures, table4.notes(results, column)) for column in results.columns]
