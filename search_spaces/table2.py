"""Table 2: iNaturalist 2018 with a ResNet-50, trained for 90 and for 200 epochs.

    study run table2                          digits-LT, 3 replicates: 3405 epochs of 6420
    study run table2 --paper                  iNaturalist 2018: 905 epochs of 2040 per replicate
    study run table2 -o recipe=source         each method with the constants of its own publication's code

Paper: Table 2 (4.1). S = 10 and S = 40 are ten epochs more than the standard procedure (A.3.2), 100 and 210 in all.
Methods with one figure in the paper are trained for 90 epochs only.

Evidence on digits: mechanics only. A ResNet-8 on digits-LT stands in: for 100 epochs with the milestone at 50, and for
200 with the milestone at 100. Its S is listed in the same way. The short protocol has one length.
"""

from dataclasses import replace

from search_spaces.shared.options import BACKBONE, METHOD, Chosen
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
from study.space import Choice, Integer, Request, Space
from trainables import references
from trainables.config import Config
from trainables.method import Method

COLUMN = ("inaturalist2018", 500.0)
PAPER_LENGTHS = (", resnet50, 90 epochs", ", resnet50, 200 epochs")

# The method, its figures by `PAPER_LENGTHS`, and their provenance mark.
ROWS: tuple[tuple[str | Method, tuple[float, ...], str], ...] = (
    ("cross_entropy", (57.2,), "†"),
    ("ce_drw", (63.7,), "†"),
    ("ce_drs", (63.6,), "†"),
    ("cb_focal", (61.1,), "†"),
    ("ldam_drw", (68.0,), "†"),
    ("crt", (65.2, 67.6), "†"),
    ("lws", (65.9, 69.5), "†"),
    ("bbn", (66.3, 69.6), "†"),
    ("switching", (66.7, 70.4), ""),
    (after_the_standard_procedure, (66.8, 70.0), ""),
)
METHODS = tuple(method_of(method)(Config()).method for method, _, _ in ROWS)


def long(base: Config) -> Config:
    """Return the longer training: 200 epochs for iNaturalist (A.3.2), twice the usual number for other data."""
    if base.dataset == COLUMN[0]:
        return replace(base, epochs=200, milestones=(120, 160))
    return replace(base, epochs=2 * base.epochs, milestones=tuple(2 * milestone for milestone in base.milestones))


def space(request: Request) -> Space:
    """Return every method in each length that the paper has for it, on every chosen data set."""
    trials = []
    for base in bases(request, (COLUMN,)):
        lengths = (base,) if Chosen.of(request).short else (base, long(base))
        late = " / ".join(f"S = {after_the_standard_procedure(length).S}" for length in lengths)
        for index, length in enumerate(lengths):
            for method, figures, provenance in (*ROWS, *own_rows(request)):
                if index < len(figures) or not figures:
                    config, row = under_recipe(request, method_of(method), length)
                    cell = trial(
                        config,
                        f"Ours ({late})" if method is after_the_standard_procedure else row,
                        {"method": config.method, "epochs": config.epochs},
                        {COLUMN: figures[index]} if figures else {},
                        provenance=provenance,
                    )
                    part = f", {references.title(base.backbone)}, {length.epochs} epochs"
                    trials.append(in_part(cell, part, PAPER_LENGTHS[index]))
    return table(
        request,
        name="table2",
        title="Table 2: top-1 accuracy of a ResNet-50 on iNaturalist 2018",
        trials=trials,
        domain={"method": Choice((*METHODS, *own_methods(trials, METHODS))), "epochs": Integer(1, 10_000)},
        contrasts=against(trials, "Ours (S = 1)", "Decouple-cRT", "Decouple-LWS", "BBN"),
        evidence="mechanics only",
        columns=column_names((COLUMN,), *PAPER_LENGTHS),
        options=(RECIPE,),
        parts=(BACKBONE, METHOD),
    )
