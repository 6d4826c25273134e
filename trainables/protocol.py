"""What a request means for a table of the paper: its base configurations, and a configuration as a trial. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from study.exhibits import Cell, Printed
from study.plan import Choice, Contrast, Domain, Real, Request, Trial
from study.refusal import Refusal
from study.results import Results
from trainables import methods
from trainables.config import Config, base
from trainables.datasets import DATASETS, facts

DIGITS_STAND_FOR = ("cifar10", 50.0)  # the paper's column that digits-LT is shown beside

DATA_DOMAIN: Mapping[str, Domain] = {"dataset": Choice((*DATASETS, "folder")), "imbalance": Real(1.0, 1e6)}

RECIPE: Mapping[str, str] = {
    "recipe": "common (the paper's protocol for every method) or source (the constants of its own code, if it has one)"
}

Columns = Sequence[tuple[str, float]]

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
    paper: Mapping[tuple[str, float], float] | None = None, *, stands_for: tuple[str, float] = DIGITS_STAND_FOR,
    provenance: str = "", measure: str = "", least: int = 1, suffix: str = "", paper_suffix: str = "",
) -> Trial:  # fmt: skip
    """A configuration as a trial, beside the paper's figure for its column.

    Args:
        config: the configuration.
        row: the table's row in words.
        axes: what tells it apart from the table's other rows.
        paper: the row's figures in the paper, by (data set, IF).
        stands_for: the paper's column that digits at IF 50 are shown beside.
        provenance: of the paper's figures: † copied by it from their source, * run again by it.
        measure: what the row shows, if not the space's first objective.
        least: replicates that it needs at least.
        suffix: of the column, where a table has several for one data set.
        paper_suffix: of the paper's column, likewise.
    """
    own = (config.dataset, config.imbalance)
    beside = stands_for if own == ("digits", 50.0) else own
    figure = (paper or {}).get(beside)
    return Trial(
        row=row,
        column=column(config) + suffix,
        config=config.to_json(),
        axes={
            "dataset": config.dataset.partition(":")[0],
            "imbalance": config.imbalance,
            "combination": config.combination,
            **axes,
        },
        paper=figure,
        paper_of=column_name(*beside) + paper_suffix if figure is not None else "",
        provenance=provenance,
        measure=measure,
        least=least,
    )


def printed_row(results: Results, name: str, figures: Mapping[str, float], provenance: str) -> list[str | Cell | None]:
    """A row that the paper prints and we do not train, under this name; its figures by the paper's column."""
    row: list[str | Cell | None] = [name]
    for column in results.columns:
        beside = (each.trial.paper_of for each in results if each.trial.column == column)
        of = next(filter(None, beside), "")
        printed = Printed(figures[of], provenance, "" if of == column else of) if of in figures else None
        row.append(Cell(printed=printed))
    return row


def after_the_standard_procedure(base: Config, more: int = 10) -> Config:
    """Switching after all epochs of the base, for so many more (A.3.2: the larger S of ImageNet-LT and iNaturalist)."""
    longer = replace(base, epochs=base.epochs + more, S=base.epochs - base.last_milestone)
    return replace(methods.switching(longer), method=f"Ours, {more} more epochs")


def against(trials: Sequence[Trial], better: str, *worse: str, measure: str = "") -> tuple[Contrast, ...]:
    """The hypotheses that a method beats others, each under the recipe that it has in these trials."""
    rows = {str(each.axes["method"]): each.row for each in trials}
    return tuple(Contrast(better=rows[better], worse=rows[method], measure=measure) for method in worse)
