"""Theorem 1, measured: does the bound favour class-reversed over instance-balanced sampling after the switch?

    study run theorem1                        digits-LT at IF 50, 3 replicates: 447 epochs of 600
    study run theorem1 --paper                CIFAR-10-LT at IF 50: 299 epochs of 400 per replicate

Paper: Section 3.3 and A.1. The theorem's condition is Q_n + L_S - L > 0, where L_S - L → 0. With all terms at one θ,
Q_n + L_S - L is 0 for every θ. So L_S is taken at θ_IB and L at θ_CR, in two branches of one trunk, after each epoch
since the switch. Q̂ stands for Q_n: the minimum of Σ_j (p_j - n_j/n) · L̄_j(θ) over all θ that either branch has passed
through since the switch, averaged over replicates. Each replicate has a subset of its own. The losses are those of the
un-augmented training images, without the regular terms.

Two more quantities are shown. The proof assumes that smaller classes have larger losses: the rank correlation of L̄_j
with j measures this. The proof drops the factor √(n · Σ_j p_j²/n_j), by which the bound's confidence term is larger
than under IB.

Evidence on digits: exploratory. The runs are like Figure 2's; on digits they are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from search_spaces import figure2
from search_spaces.shared.options import varying
from search_spaces.shared.protocol import class_counts
from study.report.exhibits import Cell, Figure, Table
from study.report.plotting import curves, slug
from study.report.results import Results
from study.report.statistics import estimate
from study.space import Request, Space
from trainables.config import Config

if TYPE_CHECKING:
    from search_spaces.shared.analysis import Bound, Floats

GAP = "Q̂ + L_S(θ_IB) − L(θ_CR)"


def space(request: Request) -> Space:
    """Return Figure 2's runs, with each replicate on a subset of its own."""
    title = "Theorem 1: the bound's terms in two branches of one trunk"
    request = varying(request, "all")
    return replace(figure2.space(request), name="theorem1", title=title)


def view(results: Results) -> list[Table | Figure | None]:
    """Return for each data set the terms after the first and the last epoch since the switch, and their curves."""
    return [exhibit for column in results.columns for exhibit in _exhibits(results, column)]


def bounds(results: Results, column: str) -> dict[int, Bound]:
    """Return Section 3.3's terms of each replicate that has both branches."""
    import numpy as np

    from search_spaces.shared.analysis import bound

    standard, general = (results[row, column] for row in ("standard", "ours"))
    config = Config.from_json(general.trial.config)
    counts = np.asarray(class_counts(config))
    theirs, ours = (result.lists("fit/class_loss") for result in (standard, general))
    since = config.last_first
    return {
        number: bound(np.asarray(theirs[number][since:]), np.asarray(ours[number][since:]), counts)
        for number in sorted(theirs.keys() & ours.keys())
    }


def _exhibits(results: Results, column: str) -> list[Table | Figure | None]:
    import numpy as np

    from search_spaces.shared.analysis import confidence_factor

    config = Config.from_json(results["ours", column].trial.config)
    counts, by_replicate = np.asarray(class_counts(config)), bounds(results, column)

    def curves_of(term: Callable[[Bound], Floats]) -> dict[int, list[float]]:
        return {number: list(map(float, term(bound))) for number, bound in by_replicate.items()}

    terms = {
        "L_S(θ_IB)": curves_of(lambda b: b.standard),
        "L(θ_CR)": curves_of(lambda b: b.general),
        "Q̂": curves_of(lambda b: b.q),
        GAP: curves_of(lambda b: b.gap),
    }
    ordered = {"θ_IB": curves_of(lambda b: b.ordered_standard), "θ_CR": curves_of(lambda b: b.ordered_general)}
    quantities = {
        **terms,
        "L_S(θ_IB) − L(θ_CR)": curves_of(lambda b: b.standard - b.general),
        **{f"rank correlation of L̄_j with j at {theta}": runs for theta, runs in ordered.items()},
    }
    rows: list[list[str | Cell | None]] = [
        [name, *(Cell({r: curve[at] for r, curve in runs.items()}, decimals=4) for at in (0, -1))]
        for name, runs in quantities.items()
    ]
    above = {r: 100 * float(np.mean(np.asarray(curve) > 0)) for r, curve in terms[GAP].items()}
    rows.append([f"epochs since the switch with {GAP} > 0, in %", None, Cell(above)])
    for name, q in (("IB", 1.0), ("CR", -1.0)):
        rows.append([f"factor of the confidence term, {name}", *[f"{confidence_factor(counts, q):.2f}"] * 2])
    last = None if results.crossed else estimate([curve[-1] for curve in terms[GAP].values()])
    interval = ", with its 95 % t-interval" if last is not None and last.n > 1 else ""
    notes = [
        "Mean cross-entropy in nats. The theorem's condition: the gap, "
        f"{GAP}, is above 0; its assumption 3: the rank correlation is 1.",
        *([] if last is None else [f"The gap after the last epoch{interval}: {last.words(4)}."]),
    ]
    head = ["", "after the first epoch since the switch", "after the last epoch"]
    caption = "Mean over replicates, with a band of ± std."
    since = "epochs since the switch"
    return [
        Table(f"Theorem 1: the bound's terms, {column}", head, rows, notes),
        curves(
            slug(f"bound-{column}"),
            f"Theorem 1: the bound's terms, {column}",
            f"{caption} The theorem's condition is that {GAP} is above 0.",
            terms,
            x=since,
            y="cross-entropy (nats)",
        ),
        curves(
            slug(f"assumption3-{column}"),
            f"Theorem 1: assumption 3, {column}",
            f"{caption} 1: the smaller a class, the larger its mean training loss.",
            _finite(ordered),
            x=since,
            y="rank correlation of L̄_j with j",
        ),
    ]


def _finite(curves: Mapping[str, Mapping[int, Sequence[float]]]) -> dict[str, dict[int, list[float | None]]]:
    """Return curves with None for NaN, the rank correlation of losses that are all equal."""
    return {
        name: {r: [value if value == value else None for value in curve] for r, curve in runs.items()}
        for name, runs in curves.items()
    }
