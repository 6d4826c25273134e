"""What a configuration's epochs are: one instruction each. Pure: no torch."""

from __future__ import annotations

import math
from dataclasses import replace

from trainables.config import Config
from trainables.data.datasets import facts
from trainables.exponents import resolve_sampler
from trainables.losses.cross_entropy import CrossEntropy
from trainables.recipe import Epoch


def epochs(config: Config) -> tuple[Epoch, ...]:
    """A configuration's recipe: its epochs before and after the switch, and the second stage, if there is one.

    Epochs are counted from 0, so the first sampler is used at indices 0 … m + S - 1 (Algorithm 1). The momentum is kept
    at a switch, unless something is frozen or drawn anew there. Since a recipe holds samplers and not the schedule they
    came from, IB⇒IB is one recipe at every S, and CB for 5 epochs followed by CB is CB.
    """
    known = facts(config.dataset)
    plain = Epoch(
        lr=config.lr,
        batch_size=config.batch_size,
        drop_last=config.drop_last,
        crop=known.crop,
        flip=known.flip,
        loss=config.loss,
        momentum=config.momentum,
        nesterov=config.nesterov,
        weight_decay=config.weight_decay,
        decay_bias=config.head.decay_bias,
        measures=config.measures,
    )
    before = replace(plain, effective_number=config.beta, mixture=config.mixture)
    after = replace(
        plain,
        effective_number=config.switch_beta or config.beta,
        trains="all" if config.joint else "classifier",
        batch_norm="train" if config.joint else config.fixed_batch_norm,
    )
    made = []
    for index, sampler in enumerate(_samplers(config)):
        instruction = before if index < config.last_first or config.bilateral else after
        if index == config.last_first and not config.bilateral:
            anew = "classifier" if config.reinitialise else "nothing"
            instruction = replace(
                after, reinitialise=anew, fresh_optimizer=config.reinitialise or not config.joint
            )  # the optimiser of other parameters, or of other values, is another
        mixture = instruction.mixture and instruction.mixture.at(index, config.epochs)
        lr, replacement = learning_rate(config, index), config.replacement
        made.append(replace(instruction, lr=lr, sampler=sampler, replacement=replacement, mixture=mixture))
    return (*made, *_second_stage(config, plain))


def _samplers(config: Config) -> list[float | tuple[float, ...]]:
    """The sampler of each epoch of the first stage: (T,)."""
    if config.bilateral:
        return [resolve_sampler(config.first)] * config.epochs
    lengths = [config.last_first, *(length for length, _ in config.then)]
    samplers = [config.first, config.switch, *(sampler for _, sampler in config.then)]
    lengths.append(config.epochs - sum(lengths))
    return [resolve_sampler(s) for s, length in zip(samplers, lengths, strict=True) for _ in range(length)]


def _second_stage(config: Config, plain: Epoch) -> list[Epoch]:
    """The epochs after all others in which the backbone is fixed: of cRT, LWS and Table 12.

    The network stays in training mode, so its batch-norm statistics keep moving, as in the code of Kang et al. (2020).
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
    found = [replace(instruction, lr=_second_lr(config, index)) for index in range(config.retrain_epochs)]
    found[0] = replace(found[0], reinitialise=config.retrains, fresh_optimizer=True)
    return found


def learning_rate(config: Config, index: int) -> float:
    """The lr of an epoch: linear warm-up, then ×γ from each milestone's index on (A.3.2)."""
    if index < config.warmup:
        return _warm(config, config.lr, index)
    return config.lr * config.gamma ** sum(index >= milestone for milestone in config.milestones)


def _warm(config: Config, lr: float, index: int) -> float:
    share = config.warmup_from
    if share is None:
        return lr * (index + 1) / config.warmup
    return lr * (share + (1 - share) * index / config.warmup)


def _second_lr(config: Config, index: int) -> float:
    """The lr of an epoch of the second stage, counted from its start."""
    total, lr = config.retrain_epochs, config.retrain_lr
    if config.retrain_schedule == "cosine":
        return lr * (1 + math.cos(math.pi * index / total)) / 2
    if index < config.warmup:
        return _warm(config, lr, index)
    return lr * 0.1 ** sum(index >= milestone for milestone in (total // 3, 2 * total // 3))
