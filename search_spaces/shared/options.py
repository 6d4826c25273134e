"""Options of every table and figure: ``--data``, ``--imbalance``, ``--paper``, ``--short``, ``--vary``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from study.errors import Refusal
from study.planning.replication import Crossing
from study.space import Option, Request
from trainables import references
from trainables.data.datasets import names

CROSSED = "crossed"  # replicates are every pair of a subset and a training seed


def _not_varied(vary: Sequence[str], seeds: Sequence[Mapping[str, str]]) -> str:
    """Return the first word of ``--vary`` that the seeds of a trial's replicates do not show; "" if there is none.

    The user's word is one of the words in a seed's name: ``seed`` stands for ``training seed``.
    """
    varying = {name for name in seeds[0] if len({replicate[name] for replicate in seeds}) > 1}
    words = {word for name in varying for word in name.split()}
    for word in vary:
        varies = Crossing.among(seeds) if word == CROSSED else word == "all" or word in words or len(seeds) == 1
        if not varies:
            return word
    return ""


OPTIONS = (
    Option(
        "data",
        f"Data set: {', '.join(names())}, folder:PATH, or your own as package.module:Name or ./file.py:Name; "
        "repeatable. [default: digits]",
        repeatable=True,
        metavar="NAME",
        reference=True,
    ),
    Option("imbalance", "Imbalance factor; repeatable. [default: 50]", kind="number", repeatable=True, metavar="IF"),
    Option(
        "short",
        "Short protocol: CIFAR (--data cifar10 or cifar100) with the paper's ResNet-32, in 30 epochs instead of 200.",
        kind="flag",
        scale=True,
    ),
    Option("paper", "The paper's data, epochs and protocol.", kind="flag", scale=True),
    Option(
        "vary",
        "How replicates differ; repeatable. seed: in the training seed (initial weights, sampling, augmentation). "
        "subset: in the images that the long-tailed set keeps. split: in the images for test. all: in all of these "
        "that the data have. crossed: every pair of a subset and a seed, which shows how much each adds to the spread; "
        "--seeds must then be a square number (default 9). [default: seed, with the published subset; for digits, all]",
        repeatable=True,
        choices=("seed", "subset", "split", "all", CROSSED),
        ignored=_not_varied,
    ),
)

BACKBONE = Option(
    "backbone",
    f"Network: {', '.join(references.names(references.BACKBONE))}, or your own as package.module:Name or "
    "./file.py:Name. [default: the data set's]",
    metavar="NAME",
    reference=True,
)
LOSS = Option(
    "loss",
    f"Loss, for tables of samplers: {', '.join(references.names(references.LOSS))}, or your own as package.module:Name "
    "or ./file.py:Name; with parameters as in 'ldam(max_margin=0.3)'. [default: cross_entropy]",
    metavar="NAME",
    reference=True,
)
METHOD = Option(
    "method",
    "One more row in tables of methods: ./file.py:function or package.module:function. The function turns the "
    "protocol's configuration into the method's; repeatable.",
    repeatable=True,
    metavar="NAME",
    reference=True,
)
ALL = (*OPTIONS, BACKBONE, LOSS, METHOD)


@dataclass(frozen=True)
class Chosen:
    """The options of `ALL` in a request.

    Attributes:
        data: names of data sets; empty for the table's default.
        imbalance: imbalance factors; empty for the table's default.
        short, paper: the protocol.
        vary: how replicates differ; empty for the default.
        backbone, loss: references to parts; "" for the protocol's parts.
        method: references to methods in addition to the table's.
    """

    data: tuple[str, ...] = ()
    imbalance: tuple[float, ...] = ()
    short: bool = False
    paper: bool = False
    vary: tuple[str, ...] = ()
    backbone: str = ""
    loss: str = ""
    method: tuple[str, ...] = ()

    @classmethod
    def of(cls, request: Request) -> Chosen:
        """Return the options of `ALL` in a request, without options of single tables.

        Raises:
            Refusal: if values of ``--vary`` cannot be combined.
        """
        names = [option.name for option in ALL]
        chosen = cls(**{name: value for name, value in request.options.items() if name in names})  # type: ignore[arg-type]
        if len(chosen.vary) > 1 and {"all", CROSSED} & set(chosen.vary):
            words = "must be all or crossed alone, or some of seed, subset and split"
            raise Refusal("--vary", ", ".join(chosen.vary), words)
        return chosen


def text(request: Request, name: str, otherwise: str = "") -> str:
    """Return an option of a single table (``-o NAME=VALUE``)."""
    return str(request.options.get(name, otherwise))


def varying(request: Request, *vary: str) -> Request:
    """Return the request with another default of ``--vary``."""
    return replace(request, options={"vary": vary, **request.options})
