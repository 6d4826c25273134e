"""What a request means for a table of the paper: its base configurations, and a configuration as a trial. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from study.refusal import Refusal
from study.space import Choice, Contrast, Domain, Real, Request, Trial
from trainables import methods
from trainables.config import Config, base
from trainables.datasets import DATASETS, facts

DATA_DOMAIN: Mapping[str, Domain] = {"dataset": Choice((*DATASETS, "folder")), "imbalance": Real(1.0, 1e6)}

RECIPE: Mapping[str, str] = {
    "recipe": "common (the paper's protocol for every method) or source (the constants of its own code, if it has one)"
}

Columns = Sequence[tuple[str, float]]

MAIN = ("cifar10", 50.0)  # what most of the paper's analysis is of, and what digits-LT at IF 50 are shown beside
CIFAR: Columns = tuple((dataset, imbalance) for dataset in ("cifar10", "cifar100") for imbalance in (100.0, 50.0, 10.0))


def bases(request: Request, paper: Columns, digits: Sequence[float] = (50.0,)) -> list[Config]:
    """The base configuration of each column of a table.

    By default digits-LT at the table's own imbalance factors for it. A data set that is asked for comes at IF 50, or
    with ``--paper`` at the imbalance factors of the paper's table; imbalance factors that are asked for replace either.
    Data that are long-tailed by nature come as they are.

    Args:
        request: what the user chose.
        paper: the table's (data set, IF) in the paper.
        digits: the imbalance factors of digits-LT in it.

    Raises:
        Refusal: for digits under the paper's protocol, or a value that a configuration refuses.
    """
    if request.paper and "digits" in request.data:
        raise Refusal("--data", "digits", "it is not a data set of the paper: without --paper, or cifar10, would do")
    names = tuple(dict.fromkeys(dataset for dataset, _ in paper))
    found: dict[tuple[str, float], Config] = {}
    for dataset in request.data or (names if request.paper else ("digits",)):
        own: Sequence[float | None] = (None,)
        if facts(dataset).natural is None:
            own = [imbalance for name, imbalance in paper if name == dataset] if request.paper else ()
            own = own or (digits if dataset == "digits" else (50.0,))
        for imbalance in request.imbalance or own:
            config = base(dataset, imbalance)
            found[dataset, config.imbalance] = config
    return list(found.values())


def under_recipe(request: Request, made: Config) -> tuple[Config, str]:
    """A method's configuration under the recipe that was asked for (``-o recipe=…``), and its name in a table."""
    recipe = request.options.get("recipe", "common")
    if recipe not in ("common", "source"):
        raise Refusal("-o recipe", recipe, f"{RECIPE['recipe']} would do")
    own = methods.source(made) if recipe == "source" else None
    return (made, made.method) if own is None else (own, f"{made.method} (source)")


def column(config: Config) -> str:
    """A table's column in words."""
    return column_name(config.dataset, config.imbalance)


def column_name(dataset: str, imbalance: float) -> str:
    """The same, of a data set and an imbalance factor."""
    return dataset if facts(dataset).natural is not None else f"{dataset}-LT IF {imbalance:g}"


def column_names(columns: Columns, *parts: str) -> tuple[str, ...]:
    """Those of a table's columns in the paper; with several for one data set, these end in `parts`."""
    return tuple(column_name(*place) + part for place in columns for part in parts or ("",))


def class_counts(config: Config) -> tuple[int, ...]:
    """The training images of each class, largest first: (C,).

    Raises:
        Refusal: of data of which only their lists, which a plan does without, say that.
    """
    known = facts(config.dataset)
    if known.lists is not None:
        remedy = "data whose class counts are declared would do: digits, cifar10, cifar100 or folder:PATH"
        raise Refusal("--data", config.dataset, remedy)
    return known.counts(config.imbalance)


def trial(
    config: Config, row: str, axes: Mapping[str, str | int | float],
    paper: Mapping[tuple[str, float], float] | None = None, *, provenance: str = "", measure: str = "", least: int = 1,
) -> Trial:  # fmt: skip
    """A configuration as a trial, beside the paper's figure for its column.

    Args:
        config: the configuration.
        row: the table's row in words.
        axes: what tells it apart from the table's other rows.
        paper: the row's figures in the paper, by (data set, IF). Digits at IF 50 are shown beside the only one, or of
            several, beside that of `MAIN`.
        provenance: of the paper's figures: † copied by it from their source, * run again by it.
        measure: what the row shows, if not the space's first objective.
        least: replicates that it needs at least.
    """
    figures, beside = paper or {}, (config.dataset, config.imbalance)
    if beside == ("digits", 50.0):
        beside = next(iter(figures)) if len(figures) == 1 else MAIN
    figure = figures.get(beside)
    return Trial(
        row=row,
        column=column(config),
        config=config.to_json(),
        axes={
            "dataset": config.dataset.partition(":")[0],
            "imbalance": config.imbalance,
            "combination": config.combination,
            **axes,
        },
        paper=figure,
        paper_of=column_name(*beside) if figure is not None else "",
        provenance=provenance,
        measure=measure,
        least=least,
    )


def in_part(made: Trial, part: str, paper_part: str) -> Trial:
    """A trial of a table that has several columns for one data set: the ends of its column's name and the paper's."""
    paper_of = made.paper_of + paper_part if made.paper_of else ""
    return replace(made, column=made.column + part, paper_of=paper_of)


def after_the_standard_procedure(base: Config, more: int = 10) -> Config:
    """Switching after all epochs of the base, for so many more (A.3.2: the larger S of ImageNet-LT and iNaturalist)."""
    longer = replace(base, epochs=base.epochs + more, S=base.epochs - base.last_milestone)
    return replace(methods.switching(longer), method=f"Ours, {more} more epochs")


def about(hypotheses: Sequence[Contrast], trials: Sequence[Trial]) -> tuple[Contrast, ...]:
    """The hypotheses whose rows are there: an offset of one data set may be none of another."""
    rows = {each.row for each in trials}
    return tuple(each for each in hypotheses if {each.better, each.worse} <= rows)


def against(trials: Sequence[Trial], better: str, *worse: str, measure: str = "") -> tuple[Contrast, ...]:
    """The hypotheses that a method beats others, in each column under the recipes that they have there."""
    rows = {(str(each.axes["method"]), each.column): each.row for each in trials}
    columns = dict.fromkeys(each.column for each in trials)
    pairs = dict.fromkeys(
        (rows[better, column], rows[method, column]) for method in worse for column in columns
        if (better, column) in rows and (method, column) in rows
    )  # fmt: skip
    return tuple(Contrast(better=one, worse=other, measure=measure) for one, other in pairs)
