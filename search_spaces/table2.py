"""Table 2: iNaturalist 2018 with a ResNet-50, trained for 90 and for 200 epochs.

    study run table2                          digits-LT, 3 replicates: 3405 epochs of 6420
    study run table2 --paper                  iNaturalist 2018: 905 epochs of 2040 a replicate
    study run table2 -o recipe=source         each method with the constants of its own publication's code

Paper: Table 2 (4.1). Evidence on digits: mechanics only. A ResNet-8 on digits-LT stands in, for 100 epochs with the
milestone at 50 and for 200 with it at 100. S = 10 and S = 40 are ten epochs more than the standard procedure (A.3.2),
100 and 210 in all; the digits' S is listed likewise. The short protocol has one length. Methods of which the paper
prints one figure are trained for 90 epochs only.
"""

from dataclasses import replace

from search_spaces.shared.options import Asked
from search_spaces.shared.protocol import (
    RECIPE,
    after_the_standard_procedure,
    against,
    bases,
    column_names,
    in_part,
    table,
    trial,
    under_recipe,
)
from study.space import Choice, Integer, Request, Space
from trainables import methods
from trainables.config import Config

COLUMN = ("inaturalist2018", 500.0)
PAPER_LENGTHS = (", resnet50, 90 epochs", ", resnet50, 200 epochs")

# The method, its figures by `PAPER_LENGTHS`, and where the paper has them from.
ROWS: tuple[tuple[methods.Method, tuple[float, ...], str], ...] = (
    (methods.cross_entropy, (57.2,), "†"),
    (methods.ce_drw, (63.7,), "†"),
    (methods.ce_drs, (63.6,), "†"),
    (methods.cb_focal, (61.1,), "†"),
    (methods.ldam_drw, (68.0,), "†"),
    (methods.crt, (65.2, 67.6), "†"),
    (methods.lws, (65.9, 69.5), "†"),
    (methods.bbn, (66.3, 69.6), "†"),
    (methods.switching, (66.7, 70.4), ""),
    (after_the_standard_procedure, (66.8, 70.0), ""),
)
METHODS = Choice(tuple(method(Config()).method for method, _, _ in ROWS))


def long(base: Config) -> Config:
    """The longer training: 200 epochs for iNaturalist (A.3.2), twice as many as usual for other data."""
    if base.dataset == COLUMN[0]:
        return replace(base, epochs=200, milestones=(120, 160))
    return replace(base, epochs=2 * base.epochs, milestones=tuple(2 * milestone for milestone in base.milestones))


def space(request: Request) -> Space:
    """Every method in each length that the paper has of it, on every data set asked for."""
    trials = []
    for base in bases(request, (COLUMN,)):
        lengths = (base,) if Asked.of(request).short else (base, long(base))
        late = " / ".join(f"S = {after_the_standard_procedure(length).S}" for length in lengths)
        for place, length in enumerate(lengths):
            for method, figures, provenance in ROWS:
                if place < len(figures):
                    config, row = under_recipe(request, method(length))
                    made = trial(
                        config,
                        f"Ours ({late})" if method is after_the_standard_procedure else row,
                        {"method": config.method, "epochs": config.epochs},
                        {COLUMN: figures[place]},
                        provenance=provenance,
                    )
                    part = f", {base.backbone}, {length.epochs} epochs"
                    trials.append(in_part(made, part, PAPER_LENGTHS[place]))
    return table(
        request,
        name="table2",
        title="Table 2: top-1 accuracy of a ResNet-50 on iNaturalist 2018",
        trials=trials,
        domain={"method": METHODS, "epochs": Integer(1, 10_000)},
        contrasts=against(trials, "Ours (S = 1)", "Decouple-cRT", "Decouple-LWS", "BBN"),
        evidence="mechanics only",
        columns=column_names((COLUMN,), *PAPER_LENGTHS),
        options=(RECIPE,),
    )
