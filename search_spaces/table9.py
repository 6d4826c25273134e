"""Table 9: every pair of first and switch sampler, S = 1.

    study run table9                          digits-LT, 3 replicates: 1782 epochs of 2700
    study run table9 --paper                  CIFAR-10/100-LT at IF 100, 50, 10: 7164 epochs of 10800 per replicate
    study run table9 --data cifar10 --paper   27 trainings per replicate

Paper: Table 9 (A.5). The hypotheses are the paper's: IB is the best first sampler, and CR improves every first sampler
(except CR itself on CIFAR-100 at IF 100 and 50).

Evidence on digits: same question, other data. Result on digits-LT with five replicates (results/table9-digits.json):
IB⇒CR − IB⇒IB is +2.6 [+0.6, +4.5] points, and IB⇒CR − CR⇒CR is +7.0 [+1.4, +12.7]. The intervals of the other
hypotheses contain 0. No hypothesis has p < 0.05 by Holm.
"""

from dataclasses import replace

from search_spaces.shared.heat_maps import heat_maps
from search_spaces.shared.options import BACKBONE, LOSS
from search_spaces.shared.protocol import CIFAR, READ_OUT_TAUS, bases, column_names, short_name, table, trial
from study.report.exhibits import Figure, Table
from study.report.grids import at_edges, grid
from study.report.results import Results
from study.space import Choice, Contrast, Integer, Request, Space
from trainables.exponents import SAMPLERS

# By the columns of `CIFAR`.
PAPER = {
    "IB⇒IB": (73.1, 77.9, 86.4, 40.7, 44.9, 57.2),
    "IB⇒CB": (77.1, 81.9, 87.9, 44.2, 48.7, 59.2),
    "IB⇒CR": (79.7, 82.9, 88.4, 44.7, 49.5, 59.5),
    "CB⇒IB": (66.5, 73.8, 86.7, 33.3, 37.1, 55.0),
    "CB⇒CB": (73.0, 78.5, 87.3, 36.2, 40.3, 56.9),
    "CB⇒CR": (74.8, 80.7, 87.9, 38.6, 42.4, 57.8),
    "CR⇒IB": (63.8, 74.8, 85.2, 24.7, 28.7, 51.3),
    "CR⇒CB": (64.2, 72.7, 86.3, 24.7, 29.2, 52.5),
    "CR⇒CR": (68.4, 76.3, 86.8, 22.9, 28.0, 53.2),
}

EXCEPTIONS = column_names((("cifar100", 100.0), ("cifar100", 50.0)))

CR_IMPROVES = (
    Contrast(better="IB⇒CR", worse="IB⇒IB"),
    Contrast(better="CB⇒CR", worse="CB⇒IB"),
    Contrast(better="CR⇒CR", worse="CR⇒IB", except_in=(*EXCEPTIONS, *map(short_name, EXCEPTIONS))),
)
HYPOTHESES = (
    *CR_IMPROVES,
    Contrast(better="IB⇒CR", worse="CB⇒CR"),
    Contrast(better="IB⇒CR", worse="CR⇒CR"),
)

# The measures beside each accuracy on all test images, by their headings.
BESIDE = {"holdout half": "holdout/top1", "holdout half, logits adjusted": "adjusted/top1"}


def space(request: Request) -> Space:
    """Return the nine combinations on every chosen data set."""
    trials = []
    for config in bases(request, CIFAR):
        for first in SAMPLERS:
            for switch in SAMPLERS:
                cell = replace(config, first=first, switch=switch, S=1)
                paper = dict(zip(CIFAR, PAPER[cell.combination], strict=True))
                trials.append(trial(cell, cell.combination, {"first": first, "switch": switch, "S": 1}, paper))
    samplers = Choice(tuple(SAMPLERS))
    return table(
        request,
        name="table9",
        title="Table 9: combinations of first and switch sampler, S = 1",
        trials=trials,
        domain={"first": samplers, "switch": samplers, "S": Integer(0, 10_000)},
        contrasts=HYPOTHESES,
        evidence="same question, other data",
        columns=column_names(CIFAR),
        parts=(BACKBONE, LOSS),
    )


def view(results: Results) -> list[Table | Figure]:
    """Return a table of every combination, with and without post-hoc logit adjustment, and heat maps."""
    notes = [
        "Logits adjusted post hoc: z - τ log π, with τ chosen on the other half of the test images, val.",
        *at_edges(results, "adjusted/tau", READ_OUT_TAUS, results.rows),
    ]
    return [grid(results, beside=BESIDE, notes=notes), *heat_maps(results)]
