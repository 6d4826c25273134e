"""The interface of the trainables to the platform: plain functions that import late."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from study.errors import Refusal, one_line
from study.machine import Machine
from study.space import Json, Resolved, Work
from trainables import references
from trainables.config import Config
from trainables.data import datasets
from trainables.data.datasets import FOLDER, facts, label
from trainables.exponents import resolve_sampler, sampler_name
from trainables.origins import origin, precision, sources
from trainables.recipe import Recipe
from trainables.schedule import epochs

if TYPE_CHECKING:
    import torch


def resolve(config: Json, replicate: int, machine: Machine) -> Resolved:
    """Return a replicate's recipe with the names of its states.

    Raises:
        Refusal: if a batch has fewer images than there are ranks, TF32 is requested on a CPU, or data cannot be read.
    """
    replicated = Config.from_json(config).replicate(replicate)
    with _readable(replicated.dataset):
        recipe = Recipe(origin(replicated, machine), epochs(replicated))
    batch = min(epoch.batch_size for epoch in recipe.epochs)
    if machine.ranks > batch:
        option = "--gpus-per-trial" if machine.device == "cuda" else "--ranks-per-trial"
        raise Refusal(option, machine.ranks, f"must be at most {batch}, the number of images in a batch")
    if recipe.origin.precision == "tf32" and machine.device == "cpu":
        field = "--precision" if replicated.precision == "auto" else "precision"
        raise Refusal(field, "tf32", "must be fp32 or bf16 on a CPU", "TF32 needs a GPU")
    plain = {epoch: epoch.to_json() for epoch in set(recipe.epochs)}
    switch = replicated.last_first
    joints = (replicated.last_milestone, switch) if replicated.last_milestone else (switch,)
    steps = tuple(plain[epoch] for epoch in recipe.epochs)
    return Resolved(recipe.origin.to_json(), steps, recipe.keys(), joints, replicated.seeds(), sources(recipe))


def prepare(configs: Sequence[Json], data_dir: Path, download: bool) -> None:
    """Check that every data set of the configurations is on disk, and that the headers of image files are whole."""
    for dataset in sorted({config["dataset"] for config in configs}):
        with _readable(dataset):
            datasets.prepare(dataset, data_dir, download)


def verify(configs: Sequence[Json], data_dir: Path) -> None:
    """Check that every image file of the configurations' data sets can be decoded completely."""
    for dataset in sorted({config["dataset"] for config in configs}):
        with _readable(dataset):
            datasets.verify(dataset, data_dir)


def changes(source: str, planned: str) -> str:
    """Return how a source differs from that of a plan, if it is a folder of images; else ""."""
    return datasets.changes(source, planned)


@contextmanager
def _readable(dataset: str) -> Iterator[None]:
    """Within this context, name the data set if one of its files cannot be read."""
    try:
        yield
    except OSError as error:
        words = f"data set {dataset!r} cannot be read ({one_line(error)})"
        raise Refusal("dataset", dataset, words) from error


def trainable() -> type:
    """Return the class that executes a stage."""
    from trainables.trainable import StageTrainable

    return StageTrainable


def parameters(config: Json, replicate: int, machine: Machine) -> Mapping[str, Any]:
    """Return a replicate's parameters for MLflow: the schedule piece by piece, the protocol, and each seed."""
    replicated = Config.from_json(config).replicate(replicate)
    values = replicated.to_json()
    for stage in ("first", "switch"):
        values[stage] = sampler_name(getattr(replicated, stage))
        exponent = resolve_sampler(getattr(replicated, stage))
        if isinstance(exponent, float):
            values[f"{stage}_q"] = exponent
    is_folder = replicated.dataset.startswith(f"{FOLDER}:")
    values["dataset"] = replicated.dataset if is_folder else label(replicated.dataset)
    for kind in ("backbone", "head", "loss", "mixture"):
        part = getattr(replicated, kind)
        if part is not None:
            values[kind] = references.label(part)
            values |= {f"{kind}.{name}": value for name, value in references.values(part).items()}
    return {**values, "combination": replicated.combination, "precision": precision(replicated, machine)}


def exporter(config: Json) -> Callable[[bytes, Path, Any], None]:
    """Return a function that writes a state's network as an MLflow model.

    The model maps pixels from 0 to 1, (B, channels, side, side), to logits (B, C).
    """
    from trainables.export import Exporter

    return Exporter(Config.from_json(config)).save


def model(config: Json, payload: bytes) -> torch.nn.Module:
    """Return the network of a state: pixels from 0 to 1, (B, channels, side, side), to logits (B, C); in eval mode."""
    from trainables.classifier import classifier

    return classifier(Config.from_json(config), payload)


def state_bytes(config: Json) -> int:
    """Return the size of a stored state: weights, buffers and momentum in 32 bits, without the measures."""
    import torch

    from trainables.network import build

    read = Config.from_json(config)
    dataset = facts(read.dataset)
    with torch.device("meta"):
        network = build(read.backbone, read.head, dataset.channels, dataset.classes, torch.Generator("cpu"))
    momentum = sum(weight.numel() for weight in network.parameters())
    stored: int = momentum + sum(tensor.numel() for tensor in network.state_dict().values())
    return 4 * stored


def wants_gpu(config: Json) -> bool:
    """Return whether a GPU trains a configuration faster than a few CPU cores do.

    It does not if steps are short: on digits, one seed of Table 9 took 39 s with four trials on an H100, and 24.6 s
    on two cores.
    """
    return not facts(config["dataset"]).short_steps


WORK = Work(
    resolve=resolve,
    prepare=prepare,
    verify=verify,
    changes=changes,
    state_bytes=state_bytes,
    trainable=trainable,
    parameters=parameters,
    exporter=exporter,
    wants_gpu=wants_gpu,
    curves=("lr", "train/", "test/loss", "test/top1", "test/many", "test/medium", "test/few", "val/top1", "fit/"),
    lists={"test/class_accuracy": "test/class"},
    headline=("test/top1", "test/many", "test/medium", "test/few"),
    group_by="combination",
    libraries=("torch", "torchvision", "numpy"),
    model=model,
)
