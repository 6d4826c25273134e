"""What the platform needs of the trainables, as plain functions that import late."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from study.errors import Refusal
from study.machine import Machine
from study.space import Json, Resolved, Work
from trainables import references
from trainables.config import Config
from trainables.data.datasets import FOLDER, facts, label
from trainables.exponents import resolve_sampler, sampler_name
from trainables.origins import origin, precision, sources
from trainables.recipe import Recipe
from trainables.schedule import epochs

if TYPE_CHECKING:
    import torch


def resolve(config: Json, replicate: int, machine: Machine) -> Resolved:
    """A replicate's recipe, with the names of its states.

    Raises:
        Refusal: if a batch has fewer images than there are ranks, or TF32 is asked for on a CPU.
    """
    checked = Config.from_json(config).replicate(replicate)
    recipe = Recipe(origin(checked, machine), epochs(checked))
    batch = min(epoch.batch_size for epoch in recipe.epochs)
    if machine.ranks > batch:
        option = "--gpus-per-trial" if machine.device == "cuda" else "--ranks-per-trial"
        raise Refusal(option, machine.ranks, f"must be at most {batch}, the images of a batch")
    if recipe.origin.precision == "tf32" and machine.device == "cpu":
        asked = "--precision" if checked.precision == "auto" else "precision"
        raise Refusal(asked, "tf32", "must be fp32 or bf16 on a CPU: TF32 is for GPUs")
    plain = {epoch: epoch.to_json() for epoch in set(recipe.epochs)}
    switch = checked.last_first
    joints = (checked.last_milestone, switch) if checked.last_milestone else (switch,)
    steps = tuple(plain[epoch] for epoch in recipe.epochs)
    return Resolved(recipe.origin.to_json(), steps, recipe.keys(), joints, checked.seeds(), sources(recipe))


def prepare(configs: Sequence[Json], data_dir: Path, download: bool) -> None:
    """See that every data set of the configurations is on disk."""
    for dataset in sorted({config["dataset"] for config in configs}):
        facts(dataset).prepare(data_dir, download)


def trainable() -> type:
    """The class that executes a stage."""
    from trainables.trainable import StageTrainable

    return StageTrainable


def parameters(config: Json, replicate: int, machine: Machine) -> Mapping[str, Any]:
    """What MLflow shows of a replicate: the schedule piece by piece, the protocol, and each seed."""
    checked = Config.from_json(config).replicate(replicate)
    shown = checked.to_json()
    for stage in ("first", "switch"):
        shown[stage] = sampler_name(getattr(checked, stage))
        exponent = resolve_sampler(getattr(checked, stage))
        if isinstance(exponent, float):
            shown[f"{stage}_q"] = exponent
    shown["dataset"] = checked.dataset if checked.dataset.startswith(f"{FOLDER}:") else label(checked.dataset)
    for kind in ("backbone", "head", "loss", "mixture"):
        part = getattr(checked, kind)
        if part is not None:
            shown[kind] = references.label(part)
            shown |= {f"{kind}.{name}": value for name, value in references.values(part).items()}
    return {**shown, "combination": checked.combination, "precision": precision(checked, machine)}


def exporter(config: Json) -> Callable[[bytes, Path, Any], None]:
    """Writes the network of a state as an MLflow model: pixels from 0 to 1, (B, channels, side, side), to logits."""
    from trainables.export import Exporter

    return Exporter(Config.from_json(config)).save


def model(config: Json, payload: bytes) -> torch.nn.Module:
    """Return the network of a state: pixels from 0 to 1, (B, channels, side, side), to logits (B, C); in eval mode."""
    from trainables.export import classifier

    return classifier(Config.from_json(config), payload)


def wants_gpu(config: Json) -> bool:
    """Whether a GPU trains it sooner than a few CPU cores do.

    Not where steps are short: of digits, Table 9, one seed, took 39 s with four trials on an H100, and 24.6 s on two
    cores.
    """
    return not facts(config["dataset"]).short_steps


WORK = Work(
    resolve=resolve,
    prepare=prepare,
    trainable=trainable,
    parameters=parameters,
    exporter=exporter,
    wants_gpu=wants_gpu,
    curves=("lr", "train/", "test/loss", "test/top1", "test/many", "test/medium", "test/few", "val/top1", "fit/"),
    lists={"test/class_accuracy": "test/class"},
    headline=("test/top1", "test/many", "test/medium", "test/few"),
    group_by="combination",
    libraries=("torch", "numpy"),
    model=model,
)
