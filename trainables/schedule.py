"""The epochs of a configuration, one instruction each. Pure: no torch."""

from __future__ import annotations

import math
from dataclasses import replace

from trainables.config import Config
from trainables.data.datasets import facts
from trainables.exponents import resolve_sampler
from trainables.losses.cross_entropy import CrossEntropy
from trainables.recipe import Epoch


def epochs(config: Config) -> tuple[Epoch, ...]:
    """Return a configuration's epochs: those before and after the switch, and those of a second stage, if any.

    Epochs are counted from 0, so the first sampler is used at indices 0 … m + S - 1 (Algorithm 1). The momentum is kept
    at a switch, unless weights are frozen or drawn anew there. Since a recipe has samplers and not their schedule,
    IB⇒IB is one recipe for every S, and CB for 5 epochs followed by CB is CB.
    """
    dataset = facts(config.dataset)
    plain = Epoch(
        lr=config.lr,
        batch_size=config.batch_size,
        drop_last=config.drop_last,
        crop=dataset.crop,
        flip=dataset.flip,
        loss=config.loss,
        momentum=config.momentum,
        nesterov=config.nesterov,
        weight_decay=config.weight_decay,
        decay_bias=config.head.decay_bias,
        measures=config.measures,
    )
    before_switch = replace(plain, effective_number=config.beta, mixture=config.mixture)
    after_switch = replace(
        plain,
        effective_number=config.switch_beta or config.beta,
        trains="all" if config.joint else "classifier",
        batch_norm="train" if config.joint else config.fixed_batch_norm,
    )
    instructions = []
    for index, sampler in enumerate(_samplers(config)):
        instruction = before_switch if index < config.last_first or config.bilateral else after_switch
        if index == config.last_first and not config.bilateral:
            anew = "classifier" if config.reinitialise else "nothing"
            instruction = replace(
                after_switch, reinitialise=anew, fresh_optimizer=config.reinitialise or not config.joint
            )  # other parameters, or new values of them, need a new optimiser
        mixture = instruction.mixture and instruction.mixture.at(index, config.epochs)
        lr, replacement = learning_rate(config, index), config.replacement
        instructions.append(replace(instruction, lr=lr, sampler=sampler, replacement=replacement, mixture=mixture))
    return (*instructions, *_second_stage(config, plain))


def _samplers(config: Config) -> list[float | tuple[float, ...]]:
    """Return the sampler of each epoch of the first stage: (T,)."""
    if config.bilateral:
        return [resolve_sampler(config.first)] * config.epochs
    lengths = [config.last_first, *(length for length, _ in config.then)]
    samplers = [config.first, config.switch, *(sampler for _, sampler in config.then)]
    lengths.append(config.epochs - sum(lengths))
    return [resolve_sampler(s) for s, length in zip(samplers, lengths, strict=True) for _ in range(length)]


def _second_stage(config: Config, plain: Epoch) -> list[Epoch]:
    """Return the epochs of a second stage on a fixed backbone, as in cRT, LWS and Table 12.

    The network stays in training mode, so batch norm still updates its statistics, as in the code of Kang et al.
    (2020).
    """
    if config.retrain is None:
        return []
    instruction = replace(
        plain,
        sampler=resolve_sampler(config.retrain),
        replacement=config.replacement,
        trains=config.retrains,
        loss=CrossEntropy(),
        weight_decay=config.retrain_weight_decay,
        batch_size=config.retrain_batch or config.batch_size,
        batch_norm=config.fixed_batch_norm,
    )
    instructions = [replace(instruction, lr=_second_lr(config, index)) for index in range(config.retrain_epochs)]
    instructions[0] = replace(instructions[0], reinitialise=config.retrains, fresh_optimizer=True)
    return instructions


def learning_rate(config: Config, index: int) -> float:
    """Return the lr of an epoch: linear warm-up, then ×γ from each milestone on (A.3.2)."""
    if index < config.warmup:
        return _warm(config, config.lr, index)
    return config.lr * config.gamma ** sum(index >= milestone for milestone in config.milestones)


def _warm(config: Config, lr: float, index: int) -> float:
    share = config.warmup_from
    if share is None:
        return lr * (index + 1) / config.warmup
    return lr * (share + (1 - share) * index / config.warmup)


def _second_lr(config: Config, index: int) -> float:
    """Return the lr of an epoch of the second stage, counted from the start of the stage."""
    total, lr = config.retrain_epochs, config.retrain_lr
    if config.retrain_schedule == "cosine":
        return lr * (1 + math.cos(math.pi * index / total)) / 2
    if index < config.warmup:
        return _warm(config, lr, index)
    return lr * 0.1 ** sum(index >= milestone for milestone in (total // 3, 2 * total // 3))
