"""An open search: which first exponent, which switch exponent, and when?

    study run sampler_search                              digits-LT, 50 points, one replicate each
    study run sampler_search --trials 20                  --trials is the total: a larger one later adds points
    study run sampler_search --objectives top1,few        the Pareto front of overall and few-shot accuracy
    study run sampler_search --data cifar10 --paper       the paper's network and protocol, at IF 50

IB, CB and CR are the exponents 1, 0 and -1. The first exponent has steps of 0.5, so that points share their first
epochs. The switch exponent is continuous. S runs from 0 to T - m - 1. Points are chosen by `val`, one half of the test
images. The best point is trained again in three fresh replicates, and reported on `test`, all test images, and on
`holdout`, the half that was not used for selection.

Paper: none. The paper's Table 9 is nine points of this space at S = 1, and its Table 6 five points at IB⇒CR.

Evidence on digits: exploratory.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from search_spaces.shared.options import BACKBONE, LOSS, Chosen
from search_spaces.shared.protocol import bases, named, table, trial
from study.errors import Refusal
from study.space import Integer, OpenSearch, Real, Request, Space, Trial
from trainables.data.datasets import facts

TRIALS = 50
REPORTED = ("test/top1", "holdout/top1")  # all test images, and the half of them that chooses nothing
OBJECTIVES = ("top1", "many", "medium", "few", "worst")


def space(request: Request) -> Space:
    """Return the search on one data set."""
    configs = bases(request, (("cifar10", 50.0),))
    if len(configs) > 1:
        chosen = Chosen.of(request)
        value = ", ".join(chosen.data) or chosen.imbalance
        raise Refusal("--data", value, "must be one data set at one imbalance factor")
    config = configs[0]
    known = facts(config.dataset)
    shots = (
        {} if known.lists is not None else known.shots(config.imbalance)
    )  # data with lists have classes of every shot
    empty = {shot for shot, ranks in shots.items() if not ranks}
    for name in request.objectives:
        if name not in OBJECTIVES or name in empty:
            allowed = ", ".join(objective for objective in OBJECTIVES if objective not in empty)
            raise Refusal("--objectives", name, f"must be some of {allowed}, separated by commas")

    def point(values: Mapping[str, Any]) -> Trial:
        cell = replace(config, first=values["first_q"], switch=values["switch_q"], S=values["S"])
        return named(request, trial(cell, cell.combination, values, {}))

    return table(
        request,
        name="sampler_search",
        title="Open search: first exponent, switch exponent and S",
        trials=(),
        domain={
            "first_q": Real(-2.0, 2.0, step=0.5),
            "switch_q": Real(-2.0, 2.0),
            "S": Integer(0, config.epochs - config.last_milestone - 1),
        },
        objectives=tuple(f"val/{name}" for name in request.objectives or ("top1",)),
        search=OpenSearch(point=point, base=config.to_json(), trials=request.trials or TRIALS, reported=REPORTED),
        evidence="exploratory",
        parts=(BACKBONE, LOSS),
    )
