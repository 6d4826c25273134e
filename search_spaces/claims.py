"""The paper's claims: for each, differences that were written here before they were measured, with verdicts.

    study run claims                          digits-LT at IF 50, 3 replicates: 4149 epochs of 9600
    study run claims --paper                  the data of Tables 6, 7, 9, 11: 9113 epochs of 16400 per replicate

Paper: 4.2, 4.3, A.5 and A.6. The trials are those of Tables 6, 7, 9 and 11 and of Figure 1. A claim that one way is
better needs a paired difference that is significant by Holm over all differences. A claim that two ways do not differ
needs an interval within a point. Verdicts need at least five replicates (``--seeds 5``). The paper's own figures
agree with all of them except two: IB⇒IB is 0.3 below CB⇒IB on CIFAR-10 at IF 10; and under CB, without re-training,
joint training and a fixed backbone are equal.

Efficiency is counted from the switch on: the epochs, seconds and images until a method is first within half a point of
its own highest accuracy since then. BBN processes two images per draw.

Evidence on digits: same question, other data (Tables 7, 9, Figure 1); exploratory (Tables 6, 11).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache

from search_spaces import figure1, table6, table7, table9, table11
from search_spaces.shared.options import Chosen
from search_spaces.shared.protocol import CIFAR, about, class_counts, column_names, table
from study.report.exhibits import NOTHING, Cell, Figure, Table
from study.report.results import Result, Results
from study.report.statistics import Difference, paired
from study.space import Choice, Contrast, Request, Space, Trial
from trainables.config import Config
from trainables.exponents import SAMPLERS

PARTS: Mapping[str, Callable[[Request], Space]] = {
    "Table 6": table6.space,
    "Table 7": table7.space,
    "Table 9": table9.space,
    "Table 11": table11.space,
    "Figure 1": figure1.space,
}

POINTS = 0.5  # how close to the highest accuracy since the switch counts as reached


def _claim(words: str, part: str, contrasts: Iterable[Contrast]) -> list[Contrast]:
    """Return the contrasts of one part as contrasts of this space, with a claim in words."""
    return [
        replace(contrast, better=f"{part}: {contrast.better}", worse=f"{part}: {contrast.worse}", claim=words)
        for contrast in contrasts
    ]


CONTRASTS = (
    *_claim(
        "instance-balanced is the best first sampler",
        "Table 9",
        (Contrast(f"IB⇒{switch}", f"{first}⇒{switch}") for switch in SAMPLERS for first in ("CB", "CR")),
    ),
    *_claim("switching to class-reversed improves every first sampler", "Table 9", table9.CR_IMPROVES),
    *_claim("accuracy is insensitive to S", "Table 6", table6.HYPOTHESES),
    *_claim("switching on from CR to CB drops", "Table 7", table7.HYPOTHESES[:1]),
    *_claim("CB before CR changes nothing", "Table 7", table7.HYPOTHESES[1:]),
    *_claim(
        "joint training is better than a fixed backbone",
        "Table 11",
        (
            Contrast(f"{switch}, joint{end}", f"{switch}, fixed{end}")
            for switch in SAMPLERS
            for end in ("", ", re-trained")
        ),
    ),
    *_claim(
        "without a switch, re-training the classifier helps",
        "Table 11",
        (Contrast(f"IB, {way}, re-trained", f"IB, {way}") for way in ("fixed", "joint")),
    ),
    *_claim(
        "with a switch, re-training the classifier changes nothing",
        "Table 11",
        (
            Contrast(f"{switch}, {way}, re-trained", f"{switch}, {way}", 1.0)
            for switch in ("CB", "CR")
            for way in ("fixed", "joint")
        ),
    ),
)


def space(request: Request) -> Space:
    """Return the trials of all tables that the claims are about."""
    trials = _trials(request)
    return table(
        request,
        name="claims",
        title="The paper's claims, and what they cost",
        trials=trials,
        domain={"cell": Choice(_cells())},
        contrasts=about(CONTRASTS, trials),
        evidence="same question, other data (Tables 7 and 9, Figure 1); exploratory (Tables 6 and 11)",
        columns=column_names(CIFAR),
    )


def _trials(request: Request) -> list[Trial]:
    shared = replace(request, options=vars(Chosen.of(request)))  # without the options of single tables
    trials = []
    for part, function in PARTS.items():
        for trial in function(shared).trials:
            row = f"{part}: {trial.row}"
            trials.append(replace(trial, row=row, axes={**trial.axes, "cell": row}))
    return trials


@cache
def _cells() -> tuple[str, ...]:
    """Return all rows that exist on any data."""
    return tuple(
        dict.fromkeys(trial.row for request in (Request(), Request({"paper": True})) for trial in _trials(request))
    )


def view(results: Results) -> list[Table | Figure]:
    """Return the claims with counts of verdicts, and efficiency on each data set. The report adds the differences."""
    columns = dict.fromkeys(result.trial.column for result in results if result.trial.row.startswith("Figure 1"))
    verdicts = [] if results.crossed else [_verdicts(results)]
    return [*verdicts, *(_efficiency(results, column) for column in columns)]


def _verdicts(results: Results) -> Table:
    by_claim: dict[str, list[Difference]] = {contrast.claim: [] for contrast in CONTRASTS}
    for difference in results.hypotheses():
        by_claim[difference.contrast.claim].append(difference)
    rows = [_verdict(results, claim, differences) for claim, differences in by_claim.items()]
    head = ["claim", "differences", "ours, points", "paper, points", "supported", "contradicted", "neither"]
    notes = ["Differences: pairs of rows times data sets. Points: the least and the greatest of their means."]
    return Table("Claims, by the verdicts on their differences", head, rows, notes)


def _verdict(results: Results, claim: str, differences: Sequence[Difference]) -> list[str]:
    printed = []
    for difference in differences:
        contrast, column = difference.contrast, difference.column
        better, worse = (results[row, column].trial.printed for row in (contrast.better, contrast.worse))
        if better is not None and worse is not None:
            printed.append(better.value - worse.value)
    verdicts = [difference.verdict.partition(":")[0] for difference in differences]
    counts = [verdicts.count(word) for word in ("supported", "contradicted")]
    ours = _range([difference.estimate.mean for difference in differences])
    return [claim, str(len(differences)), ours, _range(printed), *map(str, counts), str(len(differences) - sum(counts))]


def _range(values: Sequence[float]) -> str:
    if not values:
        return NOTHING
    low, high = (f"{value:+.1f}" for value in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"


def _efficiency(results: Results, column: str) -> Table:
    """Return a table of the epochs, seconds and images that each method needs from the switch on, and in all."""
    compared = [
        result for result in results if result.trial.row.startswith("Figure 1") and result.trial.column == column
    ]
    machine = results.plan.machine
    unit, factor, unit_note = "CPU seconds", float(machine.threads), " times threads"
    if machine.device != "cpu":
        unit, factor, unit_note = "GPU seconds", 1.0, ""
        if 0 < results.plan.resources.gpus < 1:  # stages share one
            factor, unit_note = results.plan.resources.gpus, " times a stage's share of the GPU"
    rows: list[list[str | Cell | None]] = []
    needed: dict[str, dict[int, int]] = {}
    for result in compared:
        config = Config.from_json(result.trial.config)
        switch, images = config.last_first, images_an_epoch(config)
        epochs = needed[config.method] = epochs_needed(result, switch)
        spent = {r: factor * sum(times[switch : switch + epochs[r]]) for r, times in result.wall_seconds().items()}
        processed = {r: n * images for r, n in epochs.items()}
        whole = str(images * result.planned.epochs)
        rows.append([config.method, Cell(epochs), Cell(spent), Cell(processed, decimals=0), str(images), whole])
    head = ["method", "epochs since the switch", unit, "images", "images an epoch", "images in all"]
    models = ", ".join(sorted(frozenset[str]().union(*(result.hardware for result in compared))))
    notes = [
        f"Epochs, {unit} and images since the switch, until test accuracy is within {POINTS:g} points of the method's "
        "highest since then (selected on test). Seconds of training and evaluation by the clock"
        f"{unit_note}{models and f', on {models}'}."
    ]
    *other_methods, ours = needed
    for method in [] if results.crossed else other_methods:  # crossed replicates are not independent
        gap = paired(needed[method], needed[ours])
        if gap is not None:
            interval = ", 95 % t-interval" if gap.n > 1 else ""
            notes.append(f"{method} − {ours}: {gap.words()} epochs (paired, n = {gap.n}{interval}).")
    return Table(f"Efficiency, {column}", head, rows, notes)


def epochs_needed(result: Result, switch: int) -> dict[int, int]:
    """Return each replicate's epochs from the switch until it is within `POINTS` of its highest accuracy since then."""
    import numpy as np

    from search_spaces.shared.analysis import epochs_to_within

    curves = {r: np.asarray(curve, dtype=float) for r, curve in result.curve("test/top1").items()}
    return {r: epochs_to_within(curve, switch, POINTS) for r, curve in curves.items()}


def images_an_epoch(config: Config) -> int:
    """Return the training images that an epoch processes. BBN's two branches take one each."""
    images = sum(class_counts(config))
    images -= images % config.batch_size if config.drop_last else 0
    return images * (2 if config.bilateral else 1)
