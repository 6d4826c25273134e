"""Table 6: the switch offset S, from instance-balanced to class-reversed sampling.

    study run table6                          digits-LT, S = 0, 1, 5, 10, 25, 3 replicates: 852 epochs of 1500
    study run table6 --paper                  CIFAR-10/100-LT at IF 50, S = 0, 1, 5, 10, 50: 1168 of 2000 per replicate

Paper: Table 6 (4.2). The paper claims that accuracy is insensitive to S. This is a claim of equivalence: each S is
within a point of S = 1.

Evidence on digits: exploratory. The values of S on digits are chosen, not rounded from the paper's: 100 epochs with the
milestone at 50 leave no room for S = 50. On other data, offsets beyond the last epoch are left out.
"""

from dataclasses import replace

from search_spaces.shared.options import BACKBONE, LOSS
from search_spaces.shared.protocol import STAND_IN, about, bases, column_names, table, trial
from study.space import Contrast, Integer, Request, Space

OFFSETS = (0, 1, 5, 10, 50)
DIGITS_OFFSETS = (0, 1, 5, 10, 25)
COLUMNS = (("cifar10", 50.0), ("cifar100", 50.0))
PAPER = {0: (82.6, 49.7), 1: (82.9, 49.5), 5: (82.9, 49.3), 10: (82.8, 49.1), 50: (82.6, 49.1)}

HYPOTHESES = tuple(
    Contrast(better=f"S = {S}", worse="S = 1", margin=1.0) for S in sorted({*OFFSETS, *DIGITS_OFFSETS} - {1})
)


def space(request: Request) -> Space:
    """Return IB⇒CR at each offset on every chosen data set."""
    trials = []
    for config in bases(request, COLUMNS):
        offsets = DIGITS_OFFSETS if config.dataset == STAND_IN else OFFSETS
        for S in (S for S in offsets if config.last_milestone + S < config.epochs):
            cell = replace(config, first="IB", switch="CR", S=S)
            paper = dict(zip(COLUMNS, PAPER[S], strict=True)) if S in PAPER else {}
            trials.append(trial(cell, f"S = {S}", {"first": "IB", "switch": "CR", "S": S}, paper))
    return table(
        request,
        name="table6",
        title="Table 6: the switch offset S of IB⇒CR",
        trials=trials,
        domain={"S": Integer(0, 10_000)},
        contrasts=about(HYPOTHESES, trials),
        evidence="exploratory",
        columns=column_names(COLUMNS),
        parts=(BACKBONE, LOSS),
    )
