"""From a request to a table of the paper: base configurations, and configurations as trials. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from search_spaces.shared.options import BACKBONE, CROSSED, OPTIONS, Chosen, text
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
    "recipe", "common (the paper's protocol for every method) or source (the constants of a method's own code, if any)"
)

PAPER = Source(
    "paper", marks={"†": "copied by the paper from its source", "*": "run again by the paper"}, runs="n = 1 or unstated"
)

READ_OUT_TAUS = (0.0, 2.0)  # the range from which read-outs choose τ; see `readouts`

Columns = Sequence[tuple[str, float]]

STAND_IN = "digits"  # the default data: trained in minutes on a CPU
MAIN = ("cifar10", 50.0)  # most of the paper's analysis is on these data, and digits-LT at IF 50 are compared with them
SHORT = ("cifar10", "cifar100")  # the data that have a short protocol
SHORT_EPOCHS = 30
CIFAR: Columns = tuple((dataset, imbalance) for dataset in ("cifar10", "cifar100") for imbalance in (100.0, 50.0, 10.0))


def base(dataset: str, imbalance: float | None = None) -> Config:
    """Return the protocol of a data set: the paper's for CIFAR (A.3.2), with the data set's own settings.

    For ImageNet-LT and iNaturalist the paper gives neither weight decay nor warm-up. Their weight decay, 5e-4 and 1e-4,
    is that of Kang et al. (2020), without warm-up. Places-LT and folders are not in the paper, and are trained like
    ImageNet-LT.

    Args:
        dataset: see `Config`.
        imbalance: IF. The default is 50, or the data's own IF if they are long-tailed by nature.
    """
    known = facts(dataset)
    default = known.natural if known.natural is not None else 50.0
    settings = {"dataset": dataset, "imbalance": default if imbalance is None else imbalance, **known.settings}
    return Config.from_json({**Config().to_json(), **settings})


def shortened(config: Config) -> Config:
    """Return the short protocol of CIFAR: 30 epochs instead of 200, lr ×0.1 at 20. Second stages stay as they are.

    It takes an evening on a CPU, or ten minutes on a GPU.
    """
    return replace(config, protocol="short", epochs=SHORT_EPOCHS, milestones=(20,))


def bases(
    request: Request, paper: Columns, digits: Sequence[float] = (50.0,), alike: Sequence[str] = ()
) -> list[Config]:
    """Return the base configuration of each column of a table.

    The default is digits-LT at the table's imbalance factors for digits. Data sets that the user chose have IF 50 or,
    with ``--paper``, the imbalance factors of the paper's table. Imbalance factors that the user chose replace both.
    Data that are long-tailed by nature have one imbalance factor. The data of ``--short`` are `MAIN` by default; if the
    table has CIFAR columns but not `MAIN`, they are the first CIFAR column.

    Args:
        request: the user's choices.
        paper: the table's (data set, IF) in the paper.
        digits: the table's imbalance factors for digits-LT.
        alike: the seeds that are the same in all replicates of the table, such as split; see `varied`.

    Raises:
        Refusal: for digits under the paper's protocol, for data other than CIFAR under the short protocol, for both
            protocols at once, or for a value that a configuration refuses.
    """
    chosen = Chosen.of(request)
    _check_protocol(chosen)
    columns = paper if chosen.paper else (_short_column(paper),) if chosen.short else ()
    names = dict.fromkeys(dataset for dataset, _ in columns) or (STAND_IN,)
    configs: dict[tuple[str, float], Config] = {}
    for dataset in chosen.data or names:
        defaults: Sequence[float | None] = (None,)
        if facts(dataset).natural is None:
            defaults = [imbalance for name, imbalance in columns if name == dataset]
            defaults = defaults or (digits if dataset == STAND_IN else (50.0,))
        for imbalance in chosen.imbalance or defaults:
            config = base(dataset, imbalance)
            parts = {name: getattr(chosen, name) for name in ("backbone", "loss") if getattr(chosen, name)}
            config = replace(config, **parts)
            config = varied(shortened(config) if chosen.short else config, chosen.vary, alike)
            configs[dataset, config.imbalance] = config
    return list(configs.values())


def _check_protocol(chosen: Chosen) -> None:
    """Check that at most one protocol is chosen, and that it covers the data."""
    if chosen.paper and chosen.short:
        raise Refusal("--short", True, "must be left out with --paper", hint="--paper is the whole protocol")
    for dataset in chosen.data:
        if chosen.paper and dataset == STAND_IN:
            raise Refusal("--data", dataset, "must be a data set of the paper, such as cifar10, with --paper")
        if chosen.short and dataset not in SHORT:
            raise Refusal("--data", dataset, f"must be {' or '.join(SHORT)} with --short")


def _short_column(paper: Columns) -> tuple[str, float]:
    """Return the default column of a table under the short protocol."""
    cifar = [column for column in paper if column[0] in SHORT]
    return MAIN if MAIN in cifar or not cifar else cifar[0]


def varied(config: Config, vary: Sequence[str], alike: Sequence[str] = ()) -> Config:
    """Return a configuration whose replicates differ as the user chose (``--vary``).

    By default, replicates differ only in the training seed. They use the published subset, as the paper does. Digits
    have no published subset, so their replicates differ in all seeds.

    Args:
        config: the configuration of a table's column.
        vary: ``seed`` is the training seed (initial weights, sampling, augmentation); ``subset``, the images that are
            kept; ``split``, the images for test; ``all``, all of these that the data have; ``crossed``, every pair of a
            subset and a seed.
        alike: the seeds that the table keeps the same in all replicates: split, subset.

    Raises:
        Refusal: if the data do not have a chosen seed, or the table keeps this seed the same.
    """
    has = [*facts(config.dataset).drawn, "seed"]
    can = [name for name in has if name not in alike]
    if not vary:
        vary = ("all",) if "split" in has else ("seed",)
    wanted = ["subset", "seed"] if CROSSED in vary else can if "all" in vary else list(vary)
    for name in wanted:
        if name not in can:
            more = f", {CROSSED}" if "subset" in can else ""
            hint = f"This space compares replicates of one {name}" if name in has else f"{config.dataset} has no {name}"
            raise Refusal("--vary", ", ".join(vary), f"must be {', '.join(can)}{more} or all", hint)
    seeds = [seed for seed in SEEDS if seed.removesuffix("_seed") in wanted]
    return replace(config, varies=tuple(seeds), crossed=CROSSED in vary)


def under_recipe(request: Request, procedure: Method, base: Config) -> tuple[Config, str]:
    """Return a method's configuration under the chosen recipe (``-o recipe=…``), and the name of its row in a table.

    The name says which constants come from the method's source. The source of the paper's own method is the paper.
    """
    config = procedure(base)
    recipe = text(request, "recipe", "common")
    if recipe not in ("common", "source"):
        raise Refusal("-o recipe", recipe, f"must be {RECIPE.help}")
    if recipe == "common":
        return config, config.method
    if Chosen.of(request).short:
        hint = "The protocols of the methods' sources are longer"
        raise Refusal("-o recipe", recipe, "must be common with --short", hint)
    source_config, words = method.source(procedure, config) or (config, "common: no source recipe")
    return source_config, f"{config.method} ({words})" if words else config.method


def method_of(row: str | Method) -> Method:
    """Return the method of a table's row, which is a method or a reference to one."""
    return method.find(row) if isinstance(row, str) else row


def own_rows(request: Request) -> list[tuple[str, tuple[float, ...], str]]:
    """Return the rows of methods that the user adds (``--method``). The paper has no figures for them."""
    return [(reference, (), "") for reference in Chosen.of(request).method]


def own_methods(trials: Sequence[Trial], known: Sequence[str]) -> list[str]:
    """Return the names of the trials' methods that are not methods of the table itself."""
    return list(dict.fromkeys(str(trial.axes["method"]) for trial in trials if trial.axes["method"] not in known))


def column(config: Config) -> str:
    """Return the name of a table's column: the data and, if it is the short protocol, the protocol."""
    name = column_name(config.dataset, config.imbalance)
    return short_name(name) if config.protocol == "short" else name


def short_name(column: str) -> str:
    """Return the name of a column of the paper under the short protocol."""
    return f"{column}, {SHORT_EPOCHS} of 200 epochs"


def column_name(dataset: str, imbalance: float) -> str:
    """Return the name of the column of a data set and an imbalance factor."""
    name = dataset if dataset.startswith(f"{FOLDER}:") else label(dataset)
    return name if facts(dataset).natural is not None else f"{name}-LT IF {imbalance:g}"


def column_names(columns: Columns, *parts: str) -> tuple[str, ...]:
    """Return the names of a table's columns in the paper. Several columns of one data set end in `parts`."""
    return tuple(column_name(*data) + part for data in columns for part in parts or ("",))


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
    """Return the space of a table, figure or search, with the fields that all tables share.

    Args:
        request: the user's choices.
        name, title, trials, contrasts, objectives, search: see `Space`.
        domain: its own dimensions. Listed trials also have the dimensions data set and imbalance factor.
        evidence: what results on other data can say about the paper's results; under ``--short`` the names of the
            columns say it.
        columns: the names of the paper's columns; none if the paper has no such table.
        options: its own options, in addition to those of every table.
        parts: the parts of a configuration that the user may choose. The names of the columns then include their names.
    """
    chosen = Chosen.of(request)
    return Space(
        name=name,
        title=title,
        trials=tuple(named(request, trial) for trial in trials),
        domain={**(_data_domain(trials) if search is None else {}), **domain},
        work=WORK,
        objectives=tuple(objectives),
        contrasts=tuple(contrasts),
        search=search,
        options=(*OPTIONS, *parts, *options),
        source=replace(PAPER, columns=tuple(columns)),
        evidence="" if chosen.short else evidence,
        splits=SHOTS,
        crossed=f"--vary {CROSSED}" if CROSSED in chosen.vary else "",
    )


def _data_domain(trials: Sequence[Trial]) -> dict[str, Domain]:
    """Return the dimensions of every table: data set (ours and those of the trials), and any imbalance factor."""
    known = [*names(), FOLDER]
    further = dict.fromkeys(str(trial.axes["dataset"]) for trial in trials if trial.axes["dataset"] not in known)
    return {"dataset": Choice((*known, *further)), "imbalance": Real(1.0, 1e6)}


def named(request: Request, trial: Trial) -> Trial:
    """Return a trial whose column names the parts that the user chose."""
    chosen, column = Chosen.of(request), trial.column
    for kind, name in ((references.BACKBONE, chosen.backbone), (references.LOSS, chosen.loss)):
        title = f", {references.title(references.construct(kind, name))}" if name else ""
        column += "" if title in column else title
    return replace(trial, column=column)


def class_counts(config: Config) -> tuple[int, ...]:
    """Return the number of training images of each class, largest first: (C,).

    Raises:
        Refusal: for data whose counts are only in their lists, because a plan does not read lists.
    """
    known = facts(config.dataset)
    if known.lists is not None:
        words = "must be data whose class counts are declared, such as digits, cifar10, cifar100 or folder:PATH"
        raise Refusal("--data", config.dataset, words)
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
    """Return a configuration as a trial, with the paper's figure for its column.

    Args:
        config: the configuration.
        row: the name of the table's row.
        axes: the values that distinguish the trial from the table's other rows.
        paper: the row's figures in the paper, by (data set, IF). Digits at IF 50 get the only figure or, if there are
            several, that of `MAIN`.
        provenance: the mark of the paper's figures: † copied by the paper from their source, * run again by it.
        measure: the measure that the row shows; "" for the space's first objective.
        least: the least number of replicates.
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


def in_part(trial: Trial, part: str, paper_part: str) -> Trial:
    """Return a trial in one of a data set's columns. The column's name ends in `part`, or in the paper's part."""
    printed = trial.printed and replace(trial.printed, of=trial.printed.of + paper_part)
    return replace(trial, column=trial.column + part, printed=printed)


@sourced(paper=True)
def after_the_standard_procedure(base: Config, more: int = 10) -> Config:
    """Return switching for `more` epochs after all of the base (A.3.2: the larger S of ImageNet-LT and iNaturalist)."""
    longer = replace(base, epochs=base.epochs + more, S=base.epochs - base.last_milestone)
    return replace(switching(longer), method=f"Ours, {more} more epochs")


def about(hypotheses: Sequence[Contrast], trials: Sequence[Trial]) -> tuple[Contrast, ...]:
    """Return the hypotheses whose rows exist. An offset S of one data set may not exist for another."""
    rows = {trial.row for trial in trials}
    return tuple(contrast for contrast in hypotheses if {contrast.better, contrast.worse} <= rows)


def against(trials: Sequence[Trial], better: str, *worse: str, measure: str = "") -> tuple[Contrast, ...]:
    """Return the hypotheses that a method beats others, in each column under the recipes of that column."""
    rows = {(str(trial.axes["method"]), trial.column): trial.row for trial in trials}
    columns = dict.fromkeys(trial.column for trial in trials)
    pairs = dict.fromkeys(
        (rows[better, column], rows[method, column])
        for method in worse
        for column in columns
        if (better, column) in rows and (method, column) in rows
    )
    return tuple(Contrast(better=one, worse=other, measure=measure) for one, other in pairs)
