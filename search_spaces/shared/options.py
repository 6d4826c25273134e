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
    """The first word of ``--vary`` that the seeds of a trial's replicates do not show.

    What varies is called by words of which one is the user's: ``training seed`` by ``seed``.
    """
    varying = {name for name in seeds[0] if len({each[name] for each in seeds}) > 1}
    words = {word for name in varying for word in name.split()}
    for word in vary:
        done = Crossing.among(seeds) if word == CROSSED else word == "all" or word in words or len(seeds) == 1
        if not done:
            return word
    return ""


OPTIONS = (
    Option(
        "data",
        f"{', '.join(names())}, folder:PATH, or one of your own, package.module:Name or ./file.py:Name; repeatable. "
        "[default: digits]",
        repeatable=True,
        metavar="NAME",
        reference=True,
    ),
    Option("imbalance", "Imbalance factor; repeatable. [default: 50]", kind="number", repeatable=True, metavar="IF"),
    Option(
        "short",
        "A short protocol: CIFAR (--data cifar10 or cifar100) with the paper's ResNet-32 in 30 epochs instead of 200.",
        kind="flag",
        scale=True,
    ),
    Option("paper", "The paper's own data, epochs and protocol.", kind="flag", scale=True),
    Option(
        "vary",
        "What a replicate differs from the others in; repeatable. seed: the training seed (initial weights, sampling, "
        "augmentation). subset: which images the long-tailed set keeps. split: which images are for test. all: all "
        "that the data have. crossed: every pair of a subset and a seed, which tells how much of the spread each "
        "makes; --seeds is then a square, by default 9. [default: seed, on the published subset; of digits, all]",
        repeatable=True,
        choices=("seed", "subset", "split", "all", CROSSED),
        ignored=_not_varied,
    ),
)

BACKBONE = Option(
    "backbone",
    f"{', '.join(references.names(references.BACKBONE))}, or one of your own, package.module:Name or ./file.py:Name. "
    "[default: the data set's]",
    metavar="NAME",
    reference=True,
)
LOSS = Option(
    "loss",
    f"Of tables of samplers: {', '.join(references.names(references.LOSS))}, or one of your own, package.module:Name "
    "or ./file.py:Name; with parameters as in 'ldam(max_margin=0.3)'. [default: cross_entropy]",
    metavar="NAME",
    reference=True,
)
METHOD = Option(
    "method",
    "Of tables of methods: one more row, ./file.py:function or package.module:function, from the protocol's "
    "configuration to the method's own; repeatable.",
    repeatable=True,
    metavar="NAME",
    reference=True,
)
ALL = (*OPTIONS, BACKBONE, LOSS, METHOD)


@dataclass(frozen=True)
class Asked:
    """What was chosen of `ALL`.

    Attributes:
        data: names of data sets; empty for the table's own default.
        imbalance: imbalance factors; empty for the table's own default.
        short, paper: the protocol.
        vary: what a replicate differs from the others in; empty for the default.
        backbone, loss: references to parts; "" for the protocol's.
        method: references to methods beside the table's.
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
    def of(cls, request: Request) -> Asked:
        """What a request holds of them; options of single tables are left out.

        Raises:
            Refusal: of words of ``--vary`` that cannot stand together.
        """
        names = [option.name for option in ALL]
        found = cls(**{name: value for name, value in request.options.items() if name in names})  # type: ignore[arg-type]
        if len(found.vary) > 1 and {"all", CROSSED} & set(found.vary):
            remedy = "must be all or crossed alone, or some of seed, subset and split"
            raise Refusal("--vary", ", ".join(found.vary), remedy)
        return found


def text(request: Request, name: str, otherwise: str = "") -> str:
    """An option of a single table (``-o NAME=VALUE``)."""
    return str(request.options.get(name, otherwise))


def varying(request: Request, *vary: str) -> Request:
    """The request with another default of ``--vary``."""
    return replace(request, options={"vary": vary, **request.options})
