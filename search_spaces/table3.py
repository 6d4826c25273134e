"""Table 3: ImageNet-LT with a ResNet-50 and with a ResNeXt-50.

    study run table3                          digits-LT, 3 replicates: 1914 epochs of 4020
    study run table3 --paper                  ImageNet-LT: 518 epochs of 1220 per replicate
    study run table3 -o recipe=source         each method with the constants of its own publication's code

Paper: Table 3 (4.1). S = 10 is ten epochs more than the standard procedure (A.3.2), 100 in all. The row of OLTR (Liu et
al., 2019) is the paper's; it is not trained.

Evidence on digits: mechanics only. A ResNet-8 and a small ResNeXt of eleven layers on digits-LT stand in. Their S is
listed in the same way.
"""

from dataclasses import replace

from search_spaces.shared.options import METHOD
from search_spaces.shared.protocol import (
    RECIPE,
    after_the_standard_procedure,
    against,
    bases,
    column_names,
    in_part,
    method_of,
    own_methods,
    own_rows,
    table,
    trial,
    under_recipe,
)
from study.report.exhibits import Figure, Table
from study.report.grids import grid, printed_row
from study.report.results import Results
from study.space import Choice, Request, Space
from trainables import references
from trainables.config import Config
from trainables.method import Method

COLUMN = ("imagenet-lt", 256.0)
PAPER_BACKBONES = (", resnet50", ", resnext50")
STAND_IN = {"resnet8": ("resnet8", "resnext11"), "resnet32": ("resnet32",)}  # by the data set's own backbone

# The method, its figures by `PAPER_BACKBONES`, and their provenance mark.
ROWS: tuple[tuple[str | Method, tuple[float, ...], str], ...] = (
    ("cross_entropy", (41.6, 44.4), "†"),
    ("crt", (47.3, 49.5), "†"),
    ("lws", (47.7, 49.9), "†"),
    ("bbn", (45.9, 47.1), "*"),
    ("switching", (47.9, 49.2), ""),
    (after_the_standard_procedure, (48.2, 49.3), ""),
)
METHODS = tuple(method_of(method)(Config()).method for method, _, _ in ROWS)


def space(request: Request) -> Space:
    """Return every method with each backbone on every chosen data set."""
    trials = []
    for base in bases(request, (COLUMN,)):
        for index, backbone in enumerate(STAND_IN.get(references.reference(base.backbone), ("resnet50", "resnext50"))):
            for method, figures, provenance in (*ROWS, *own_rows(request)):
                config, row = under_recipe(
                    request,
                    method_of(method),
                    replace(base, backbone=references.construct(references.BACKBONE, backbone)),
                )
                cell = trial(
                    config,
                    f"Ours (S = {config.S})" if method is after_the_standard_procedure else row,
                    {"method": config.method, "backbone": backbone},
                    {COLUMN: figures[index]} if figures else {},
                    provenance=provenance,
                )
                trials.append(in_part(cell, f", {backbone}", PAPER_BACKBONES[index]))
    return table(
        request,
        name="table3",
        title="Table 3: top-1 accuracy by backbone on ImageNet-LT",
        trials=trials,
        domain={
            "method": Choice((*METHODS, *own_methods(trials, METHODS))),
            "backbone": Choice(references.names(references.BACKBONE)),
        },
        contrasts=against(trials, "Ours (S = 1)", "Cross Entropy", "Decouple-cRT", "BBN"),
        evidence="mechanics only",
        columns=column_names((COLUMN,), *PAPER_BACKBONES),
        options=(RECIPE,),
        parts=(METHOD,),
    )


def view(results: Results) -> list[Table | Figure]:
    """Return a table of the paper's rows, with the printed row of OLTR."""
    table = grid(results, corner="Method")
    oltr = printed_row(results, "OLTR (Liu et al., 2019)", {"imagenet-lt, resnext50": 37.7}, "†")
    first, *later = table.rows
    return [replace(table, rows=[first, oltr, *later])]
