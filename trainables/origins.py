"""Origins, which determine state 0 of a configuration on a kind of machine, and the code of a recipe. Pure."""

from __future__ import annotations

from study.errors import Refusal
from study.machine import Machine
from trainables import digests
from trainables.config import Config
from trainables.data.datasets import FOLDER, facts
from trainables.recipe import CORE, Origin, Recipe, settled


def origin(config: Config, machine: Machine) -> Origin:
    """Return the origin of a configuration on a kind of machine."""
    dataset = facts(config.dataset)
    return Origin(
        dataset=config.dataset,
        data=_data_digest(config.dataset),
        fingerprint=dataset.fingerprint,
        imbalance=config.imbalance,
        split_seed=config.split_seed if "split" in dataset.drawn else 0,
        subset_seed=config.subset_seed if "subset" in dataset.drawn else 0,
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
    """Check that this process has the code and the arithmetic of the plan, which the names of states stand for.

    Raises:
        Refusal: if a package or a code digest differs.
    """
    for name, installed in {**settled(), "data": _data_digest(origin.dataset)}.items():
        planned = getattr(origin, name)
        if planned != installed:
            hint = "Install the code and the packages of the plan on every machine"
            raise Refusal(f"{name} of the worker", installed, f"must be {planned}, as in the plan", hint)


def sources(recipe: Recipe) -> dict[str, str]:
    """Return the digest of each definition that a recipe's states depend on, by ``file: name``.

    A folder of images has no version that a plan holds elsewhere, so it is a source, too: its name and fingerprint.
    """
    parts: set[object] = {recipe.origin.backbone, recipe.origin.head}
    parts |= {part for epoch in set(recipe.epochs) for part in (epoch.loss, epoch.mixture) if part is not None}
    roots = {(type(part).__module__, type(part).__qualname__) for part in parts}
    roots |= {*CORE, _data(recipe.origin.dataset)}
    code = {name: digest for root in sorted(roots) for name, digest in digests.reached(*root).items()}
    dataset = recipe.origin.dataset
    return {**code, dataset: recipe.origin.fingerprint} if dataset.startswith(f"{FOLDER}:") else code


def _data_digest(dataset: str) -> str:
    """Return the digest of a data set's code and of its facts, some of which may be read from disk."""
    return digests.digest(digests.code_digest(*_data(dataset)) + facts(dataset).described())


def _data(dataset: str) -> tuple[str, str]:
    kind = type(facts(dataset))
    return kind.__module__, kind.__qualname__


def precision(config: Config, machine: Machine) -> str:
    """Return fp32, tf32 or bf16.

    The configuration decides, or else the machine. If both say auto, the faster of fp32 and bf16 is used: bf16 on a
    machine with bf16 arithmetic, but fp32 where steps are short. On digits, with images of 8 × 8, bf16 does not shorten
    the steps of the eight-layer network (tests/benchmarks/results/epoch.json), so digits train alike on all machines.
    """
    requested = machine.precision if config.precision == "auto" else config.precision
    if requested == "auto":
        return "bf16" if machine.bf16 and not facts(config.dataset).short_steps else "fp32"
    return requested
