"""What a request means for a table of the paper: its base configurations, and a configuration as a trial. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from study.plan import Choice, Domain, Real, Request, Trial
from study.refusal import Refusal
from trainables.config import Config, base
from trainables.datasets import DATASETS

DIGITS_STAND_FOR = ("cifar10", 50.0)  # the paper's column that digits-LT is shown beside

DATA_DOMAIN: Mapping[str, Domain] = {"dataset": Choice(tuple(DATASETS)), "imbalance": Real(1.0, 1e6)}

Columns = Sequence[tuple[str, float]]


def bases(request: Request, paper: Columns) -> list[Config]:
    """The base configuration of each column of a table.

    By default digits-LT at IF 50. A data set that is asked for comes at IF 50, or with ``--paper`` at the imbalance
    factors of the paper's table; imbalance factors that are asked for replace either.

    Args:
        request: what the user chose.
        paper: the table's (data set, IF) in the paper.

    Raises:
        Refusal: for digits under the paper's protocol, or a value that a configuration refuses.
    """
    if request.paper and "digits" in request.data:
        raise Refusal("--data", "digits", "it is not a data set of the paper: without --paper, or cifar10, would do")
    data = request.data or (tuple(dataset for dataset, _ in paper) if request.paper else ("digits",))
    found = {}
    for dataset in data:
        own = [imbalance for name, imbalance in paper if name == dataset] if request.paper else []
        for imbalance in request.imbalance or own or (50.0,):
            found[dataset, imbalance] = base(dataset, imbalance)
    return list(found.values())


def column(dataset: str, imbalance: float) -> str:
    """A table's column in words."""
    return f"{dataset}-LT IF {imbalance:g}"


def trial(
    config: Config, row: str, axes: Mapping[str, str | int | float], paper: Mapping[tuple[str, float], float]
) -> Trial:
    """A configuration as a trial, beside the paper's figure for its column (digits: for `DIGITS_STAND_FOR`).

    Args:
        config: the configuration.
        row: the table's row in words.
        axes: what tells it apart from the table's other rows.
        paper: the row's figures in the paper, by (data set, IF).
    """
    own = (config.dataset, config.imbalance)
    beside = DIGITS_STAND_FOR if config.dataset == "digits" else own
    figure = paper.get(beside)
    return Trial(
        row=row,
        column=column(*own),
        config=config.to_json(),
        axes={"dataset": config.dataset, "imbalance": config.imbalance, "combination": config.combination, **axes},
        paper=figure,
        paper_of=column(*beside) if figure is not None else "",
    )
