"""What determines state 0 of a configuration on a kind of machine, and the code that its states depend on. Pure."""

from __future__ import annotations

from study.errors import Refusal
from study.machine import Machine
from trainables import digests
from trainables.config import Config
from trainables.data.datasets import facts
from trainables.recipe import CORE, Origin, Recipe, settled


def origin(config: Config, machine: Machine) -> Origin:
    """The origin of a configuration on a kind of machine."""
    known = facts(config.dataset)
    return Origin(
        dataset=config.dataset,
        data=_data_digest(config.dataset),
        fingerprint=known.fingerprint,
        imbalance=config.imbalance,
        split_seed=config.split_seed if "split" in known.drawn else 0,
        subset_seed=config.subset_seed if "subset" in known.drawn else 0,
        backbone=config.backbone,
        head=config.head,
        seed=config.seed,
        precision=precision(config, machine),
        device=machine.device,
        threads=machine.threads,
        ranks=machine.ranks,
        **settled(),
    )


def verify(origin: Origin) -> None:
    """Refuse to train with other code or arithmetic than the plan's: states would be others under its names.

    Raises:
        Refusal: naming what differs.
    """
    for name, here in {**settled(), "data": _data_digest(origin.dataset)}.items():
        planned = getattr(origin, name)
        if planned != here:
            raise Refusal(f"{name} of the worker", here, f"must be {planned}, as in the plan")


def sources(recipe: Recipe) -> dict[str, str]:
    """The digest of each definition that a recipe's states depend on, by ``file: name``."""
    parts: set[object] = {recipe.origin.backbone, recipe.origin.head}
    parts |= {part for epoch in set(recipe.epochs) for part in (epoch.loss, epoch.mixture) if part is not None}
    roots = {(type(part).__module__, type(part).__qualname__) for part in parts}
    roots |= {*CORE, _data(recipe.origin.dataset)}
    return {name: digest for root in sorted(roots) for name, digest in digests.reached(*root).items()}


def _data_digest(dataset: str) -> str:
    """The digest of a data set's code and of its facts, some of which it may have found on disk."""
    return digests.digest(digests.code_digest(*_data(dataset)) + facts(dataset).told())


def _data(dataset: str) -> tuple[str, str]:
    kind = type(facts(dataset))
    return kind.__module__, kind.__qualname__


def precision(config: Config, machine: Machine) -> str:
    """fp32, tf32 or bf16: as the configuration says, or else the machine; of auto, what is faster of fp32 and bf16.

    That is bf16 on a machine that has arithmetic for it, but fp32 where steps are short: on digits, images of 8 × 8, it
    makes the steps of the eight-layer network no shorter (tests/benchmarks/results/epoch.json), and so digits are
    trained alike anywhere.
    """
    asked = machine.precision if config.precision == "auto" else config.precision
    if asked == "auto":
        return "bf16" if machine.bf16 and not facts(config.dataset).short_steps else "fp32"
    return asked
