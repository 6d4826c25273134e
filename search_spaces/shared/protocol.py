"""What a request means for a table of the paper: its base configurations, and a configuration as a trial. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from search_spaces.shared.options import BACKBONE, CROSSED, OPTIONS, Asked, text
from search_spaces.shared.shots import SHOTS
from study.errors import Refusal
from study.space import Choice, Contrast, Domain, OpenSearch, Option, Printed, Real, Request, Source, Space, Trial
from trainables import method, references
from trainables.config import SEEDS, Config
from trainables.data.datasets import FOLDER, facts, label, names
from trainables.method import Method, sourced
from trainables.methods.switching import switching
from trainables.work import WORK

RECIPE = Option(
    "recipe", "common (the paper's protocol for every method) or source (the constants of its own code, if it has one)"
)

PAPER = Source(
    "paper", marks={"†": "copied by the paper from its source", "*": "run again by the paper"}, runs="n = 1 or unstated"
)

READ_OUT_TAUS = (0.0, 2.0)  # the ends of what read-outs choose τ from; see `readouts`

Columns = Sequence[tuple[str, float]]

STAND_IN = "digits"  # trained unless the user says otherwise: in minutes on a CPU
MAIN = ("cifar10", 50.0)  # what most of the paper's analysis is of, and what digits-LT at IF 50 are shown beside
SHORT = ("cifar10", "cifar100")  # the data that have a short protocol
SHORT_EPOCHS = 30
CIFAR: Columns = tuple((dataset, imbalance) for dataset in ("cifar10", "cifar100") for imbalance in (100.0, 50.0, 10.0))


def base(dataset: str, imbalance: float | None = None) -> Config:
    """The protocol of a data set: the paper's for CIFAR (A.3.2), with what the data set says otherwise.

    For ImageNet-LT and iNaturalist the paper gives neither weight decay nor warm-up: 5e-4 and 1e-4 are those of Kang et
    al. (2020), without warm-up. Places-LT and folders, which are not in the paper, are trained as ImageNet-LT is.

    Args:
        dataset: as in `Config`.
        imbalance: IF, 50 by default; data that are long-tailed by nature have their own.
    """
    known = facts(dataset)
    own = known.natural if known.natural is not None else 50.0
    settings = {"dataset": dataset, "imbalance": own if imbalance is None else imbalance, **known.settings}
    return Config.from_json({**Config().to_json(), **settings})


def shortened(config: Config) -> Config:
    """The short protocol of CIFAR: 30 epochs instead of 200, ×0.1 at 20; second stages stay as they are.

    For people with a CPU for an evening, or a GPU for ten minutes.
    """
    return replace(config, protocol="short", epochs=SHORT_EPOCHS, milestones=(20,))


def bases(
    request: Request, paper: Columns, digits: Sequence[float] = (50.0,), alike: Sequence[str] = ()
) -> list[Config]:
    """The base configuration of each column of a table.

    By default digits-LT at the table's own imbalance factors for it. A data set that is asked for comes at IF 50, or
    with ``--paper`` at the imbalance factors of the paper's table; imbalance factors that are asked for replace either.
    Data that are long-tailed by nature come as they are. ``--short`` is CIFAR: by default `MAIN`, or, of a table that
    has other columns of CIFAR, the first of those.

    Args:
        request: what the user chose.
        paper: the table's (data set, IF) in the paper.
        digits: the imbalance factors of digits-LT in it.
        alike: what is the same in all replicates of the table, see `varied`.

    Raises:
        Refusal: for digits under the paper's protocol, other data than CIFAR under the short one, both at once, or a
            value that a configuration refuses.
    """
    asked = Asked.of(request)
    _check_protocol(asked)
    columns = paper if asked.paper else (_short_column(paper),) if asked.short else ()
    names = dict.fromkeys(dataset for dataset, _ in columns) or (STAND_IN,)
    found: dict[tuple[str, float], Config] = {}
    for dataset in asked.data or names:
        own: Sequence[float | None] = (None,)
        if facts(dataset).natural is None:
            own = [imbalance for name, imbalance in columns if name == dataset]
            own = own or (digits if dataset == STAND_IN else (50.0,))
        for imbalance in asked.imbalance or own:
            config = base(dataset, imbalance)
            given = {name: getattr(asked, name) for name in ("backbone", "loss") if getattr(asked, name)}
            config = replace(config, **given)
            config = varied(shortened(config) if asked.short else config, asked.vary, alike)
            found[dataset, config.imbalance] = config
    return list(found.values())


def _check_protocol(asked: Asked) -> None:
    """Refuse data that the protocol that was asked for is not of, and two protocols at once."""
    if asked.paper and asked.short:
        raise Refusal("--short", True, "must not stand beside --paper, which is the whole protocol")
    for dataset in asked.data:
        if asked.paper and dataset == STAND_IN:
            raise Refusal("--data", dataset, "must be a data set of the paper, such as cifar10, with --paper")
        if asked.short and dataset not in SHORT:
            raise Refusal("--data", dataset, f"must be {' or '.join(SHORT)} with --short")


def _short_column(paper: Columns) -> tuple[str, float]:
    """The column that a table has by default under the short protocol."""
    cifar = [column for column in paper if column[0] in SHORT]
    return MAIN if MAIN in cifar or not cifar else cifar[0]


def varied(config: Config, vary: Sequence[str], alike: Sequence[str] = ()) -> Config:
    """A configuration whose replicates differ in what the user chose (``--vary``).

    By default that is the training seed alone, on the published subset, which the paper uses; on digits, which have no
    such subset, all that can.

    Args:
        config: of a table's column.
        vary: ``seed``, the training seed: initial weights, sampling, augmentation; ``subset``, which images are kept;
            ``split``, which are for test; ``all`` that can; or ``crossed``, every pair of a subset and a seed.
        alike: what the table wants to be the same in all replicates: split, subset.

    Raises:
        Refusal: if these data, or this table, have nothing of the kind to vary.
    """
    has = [*facts(config.dataset).drawn, "seed"]
    can = [name for name in has if name not in alike]
    if not vary:
        vary = ("all",) if "split" in has else ("seed",)
    wanted = ["subset", "seed"] if CROSSED in vary else can if "all" in vary else list(vary)
    for name in wanted:
        if name not in can:
            more = f", {CROSSED}" if "subset" in can else ""
            why = "this space compares replicates of one" if name in has else f"{config.dataset} has no"
            raise Refusal("--vary", ", ".join(vary), f"must be {', '.join(can)}{more} or all: {why} {name}")
    seeds = [seed for seed in SEEDS if seed.removesuffix("_seed") in wanted]
    return replace(config, varies=tuple(seeds), crossed=CROSSED in vary)


def under_recipe(request: Request, procedure: Method, base: Config) -> tuple[Config, str]:
    """A method's configuration under the recipe that was asked for (``-o recipe=…``), and its name in a table.

    The name says what of it is from the method's source; the paper's own method has no other than the paper.
    """
    made = procedure(base)
    recipe = text(request, "recipe", "common")
    if recipe not in ("common", "source"):
        raise Refusal("-o recipe", recipe, f"must be {RECIPE.help}")
    if recipe == "common":
        return made, made.method
    if Asked.of(request).short:
        raise Refusal("-o recipe", recipe, "must be common with --short: the sources' protocols are longer")
    own, words = method.source(procedure, made) or (made, "common: no source recipe")
    return own, f"{made.method} ({words})" if words else made.method


def found(row: str | Method) -> Method:
    """The method of a table's row: itself, or found by reference."""
    return method.find(row) if isinstance(row, str) else row


def own_rows(request: Request) -> list[tuple[str, tuple[float, ...], str]]:
    """The rows of methods that the user adds (``--method``): no source prints figures of them."""
    return [(reference, (), "") for reference in Asked.of(request).method]


def own_methods(trials: Sequence[Trial], known: Sequence[str]) -> list[str]:
    """What the methods of trials are called that are none of a table's own."""
    return list(dict.fromkeys(str(each.axes["method"]) for each in trials if each.axes["method"] not in known))


def column(config: Config) -> str:
    """A table's column in words: the data, and the protocol if it is the short one."""
    name = column_name(config.dataset, config.imbalance)
    return short_name(name) if config.protocol == "short" else name


def short_name(column: str) -> str:
    """A column of the paper's, under the short protocol."""
    return f"{column}, {SHORT_EPOCHS} of 200 epochs"


def column_name(dataset: str, imbalance: float) -> str:
    """The same, of a data set and an imbalance factor."""
    name = dataset if dataset.startswith(f"{FOLDER}:") else label(dataset)
    return name if facts(dataset).natural is not None else f"{name}-LT IF {imbalance:g}"


def column_names(columns: Columns, *parts: str) -> tuple[str, ...]:
    """Those of a table's columns in the paper; with several for one data set, these end in `parts`."""
    return tuple(column_name(*place) + part for place in columns for part in parts or ("",))


def table(
    request: Request,
    *,
    name: str,
    title: str,
    trials: Sequence[Trial],
    domain: Mapping[str, Domain],
    evidence: str,
    columns: Sequence[str] = (),
    contrasts: Sequence[Contrast] = (),
    options: Sequence[Option] = (),
    objectives: Sequence[str] = ("test/top1",),
    search: OpenSearch | None = None,
    parts: Sequence[Option] = (BACKBONE,),
) -> Space:
    """A table, figure or search: a space, with what all of them share.

    Args:
        request: what the user chose.
        name, title, trials, contrasts, objectives, search: see `Space`.
        domain: its dimensions; those of trials that are listed are data set and imbalance factor, too.
        evidence: what its result on other data can say about the paper's; under ``--short`` the columns say it.
        columns: the names of the paper's columns; none if the paper has no such table.
        options: its own, beside those of every table.
        parts: which parts of a configuration the user may choose; their names are then in the columns'.
    """
    asked = Asked.of(request)
    return Space(
        name=name,
        title=title,
        trials=tuple(named(request, each) for each in trials),
        domain={**(_data_domain(trials) if search is None else {}), **domain},
        work=WORK,
        objectives=tuple(objectives),
        contrasts=tuple(contrasts),
        search=search,
        options=(*OPTIONS, *parts, *options),
        source=replace(PAPER, columns=tuple(columns)),
        evidence="" if asked.short else evidence,
        splits=SHOTS,
        crossed=f"--vary {CROSSED}" if CROSSED in asked.vary else "",
    )


def _data_domain(trials: Sequence[Trial]) -> dict[str, Domain]:
    """The dimensions of every table: our data sets and whatever the trials have."""
    known = [*names(), FOLDER]
    own = dict.fromkeys(str(each.axes["dataset"]) for each in trials if each.axes["dataset"] not in known)
    return {"dataset": Choice((*known, *own)), "imbalance": Real(1.0, 1e6)}


def named(request: Request, made: Trial) -> Trial:
    """A trial whose column says which parts the user chose."""
    asked, column = Asked.of(request), made.column
    for kind, name in ((references.BACKBONE, asked.backbone), (references.LOSS, asked.loss)):
        title = f", {references.title(references.made(kind, name))}" if name else ""
        column += "" if title in column else title
    return replace(made, column=column)


def class_counts(config: Config) -> tuple[int, ...]:
    """The training images of each class, largest first: (C,).

    Raises:
        Refusal: of data of which only their lists, which a plan does without, say that.
    """
    known = facts(config.dataset)
    if known.lists is not None:
        remedy = "must be data whose class counts are declared, such as digits, cifar10, cifar100 or folder:PATH"
        raise Refusal("--data", config.dataset, remedy)
    return known.counts(config.imbalance)


def trial(
    config: Config,
    row: str,
    axes: Mapping[str, str | int | float],
    paper: Mapping[tuple[str, float], float] | None = None,
    *,
    provenance: str = "",
    measure: str = "",
    least: int = 1,
) -> Trial:
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
    if beside == (STAND_IN, 50.0):
        beside = next(iter(figures)) if len(figures) == 1 else MAIN
    figure = figures.get(beside)
    return Trial(
        row=row,
        column=column(config),
        config=config.to_json(),
        axes={
            "dataset": label(config.dataset),
            "imbalance": config.imbalance,
            "combination": config.combination,
            **axes,
        },
        printed=None if figure is None else Printed(figure, provenance, column_name(*beside)),
        measure=measure,
        least=least,
    )


def in_part(made: Trial, part: str, paper_part: str) -> Trial:
    """A trial of a table that has several columns for one data set: the ends of its column's name and the paper's."""
    printed = made.printed and replace(made.printed, of=made.printed.of + paper_part)
    return replace(made, column=made.column + part, printed=printed)


@sourced(paper=True)
def after_the_standard_procedure(base: Config, more: int = 10) -> Config:
    """Switching after all epochs of the base, for so many more (A.3.2: the larger S of ImageNet-LT and iNaturalist)."""
    longer = replace(base, epochs=base.epochs + more, S=base.epochs - base.last_milestone)
    return replace(switching(longer), method=f"Ours, {more} more epochs")


def about(hypotheses: Sequence[Contrast], trials: Sequence[Trial]) -> tuple[Contrast, ...]:
    """The hypotheses whose rows are there: an offset of one data set may be none of another."""
    rows = {each.row for each in trials}
    return tuple(each for each in hypotheses if {each.better, each.worse} <= rows)


def against(trials: Sequence[Trial], better: str, *worse: str, measure: str = "") -> tuple[Contrast, ...]:
    """The hypotheses that a method beats others, in each column under the recipes that they have there."""
    rows = {(str(each.axes["method"]), each.column): each.row for each in trials}
    columns = dict.fromkeys(each.column for each in trials)
    pairs = dict.fromkeys(
        (rows[better, column], rows[method, column])
        for method in worse
        for column in columns
        if (better, column) in rows and (method, column) in rows
    )
    return tuple(Contrast(better=one, worse=other, measure=measure) for one, other in pairs)
