"""Each method as a function from a configuration to its recipe's epochs. Pure: no torch."""

from __future__ import annotations

from trainables.config import Config, resolve_sampler
from trainables.datasets import DATASETS
from trainables.recipe import Epoch


def switching(config: Config) -> tuple[Epoch, ...]:
    """The paper's method (Algorithm 1): `first` for m + S epochs, then `switch`, then any further stages.

    Epochs are counted from 0, so the first sampler is used at indices 0 … m + S - 1. The momentum is kept at a switch.
    Since a recipe holds samplers and not the schedule they came from, IB⇒IB is one recipe at every S, and CB for 5
    epochs followed by CB is CB.
    """
    lengths = [config.last_milestone + config.S, *(length for length, _ in config.then)]
    samplers = [config.first, config.switch, *(sampler for _, sampler in config.then)]
    lengths.append(config.epochs - sum(lengths))
    resolved = [resolve_sampler(sampler) for sampler in samplers]
    schedule = [sampler for sampler, length in zip(resolved, lengths, strict=True) for _ in range(length)]
    facts = DATASETS[config.dataset]
    return tuple(
        Epoch(
            lr=learning_rate(config, index),
            sampler=sampler,
            replacement=config.replacement,
            batch_size=config.batch_size,
            drop_last=config.drop_last,
            crop=facts.crop,
            flip=facts.flip,
            momentum=config.momentum,
            nesterov=config.nesterov,
            weight_decay=config.weight_decay,
        )
        for index, sampler in enumerate(schedule)
    )


def learning_rate(config: Config, index: int) -> float:
    """The lr of an epoch: linear warm-up, then ×γ from each milestone's index on (A.3.2)."""
    if index < config.warmup:
        return config.lr * (index + 1) / config.warmup
    return config.lr * config.gamma ** sum(index >= milestone for milestone in config.milestones)
