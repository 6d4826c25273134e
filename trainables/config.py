"""The configuration of a trial, validated when it is made. Pure: no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from study import modules
from study.errors import Refusal
from trainables import earlier, parameters, references
from trainables.data.datasets import facts
from trainables.exponents import Sampler, resolve_sampler, sampler_name
from trainables.parameters import as_number, choice, flag, is_whole, number, parameter, some, thaw, whole
from trainables.parts import Backbone, Head, Loss, Mixture

PRECISIONS = ("auto", "fp32", "tf32", "bf16")
SEEDS = ("split_seed", "subset_seed", "seed")
PROTOCOLS = {
    "common": "the paper's settings for every method; digits have their own",
    "source": "the constants of the method's published code",
    "short": "CIFAR in 30 epochs",
}
_MOST = (1 << 32) - 1


def _same(value: Any) -> Any:
    """Return the value unchanged: it is checked later, together with other fields."""
    return value


def _name(value: Any) -> str:
    if not isinstance(value, str) or not value or not value.isprintable():
        raise ValueError("a name on one line")
    return value


def _dataset(value: Any) -> str:
    name = _name(value)
    facts(name)
    return modules.absolute(name)


def _part(kind: references.Kind) -> parameters.Check:
    return lambda value: references.construct(kind, value)


def _mixture(value: Any) -> Any:
    return None if value is None else references.construct(references.MIXTURE, value)


def _sampler(value: Any) -> Any:
    return parameters.freeze(value)  # checked later, when the number of classes is known


def _then(value: Any) -> Any:
    stages = value if isinstance(value, (list, tuple)) else [value]
    if not all(isinstance(stage, (list, tuple)) and len(stage) == 2 and is_whole(stage[0], 1) for stage in stages):
        raise ValueError("a list of pairs (whole number of epochs ≥ 1, sampler)")
    return parameters.freeze(value)


def _milestones(value: Any) -> Any:
    good = isinstance(value, (list, tuple)) and all(is_whole(each, 0) for each in value)
    if not good or list(value) != sorted(set(value)):
        raise ValueError("increasing whole numbers ≥ 0")
    return tuple(value)


def _share(value: Any) -> float | None:
    share = None if value is None else as_number(value)
    if share is not None and not 0 <= share <= 1:
        raise ValueError("none or a number from 0 to 1")
    return share


@dataclass(frozen=True, kw_only=True)
class Config:
    """One trial: all values that determine its recipe. The defaults are the paper's for CIFAR (A.3.2).

    Each method of the paper is a point of this space. `trainables.methods` defines these points, `trainables.schedule`
    turns a configuration into epochs. The help of each field says what the field means.

    Raises:
        Refusal: if a value is wrong. It names the field, the value and the allowed values.
    """

    method: str = parameter("switching", "the method's name in tables; the fields below define the method", _name)
    protocol: str = choice("common", "the name of the settings below in tables; see PROTOCOLS", tuple(PROTOCOLS))
    dataset: str = parameter(
        "cifar10", "the name of a built-in data set, folder:PATH, or a reference to a class", _dataset
    )
    imbalance: float = number(
        50.0, "imbalance factor IF = n_max / n_min; fixed for data that are long-tailed by nature", least=1.0
    )
    backbone: Backbone = parameter("resnet32", "the network, without its head", _part(references.BACKBONE))

    first: Sampler = parameter(
        "IB", "the sampler before the switch: IB, CB, CR, an exponent q, or class weights", _sampler
    )
    switch: Sampler = parameter("CR", "the sampler after the switch", _sampler)
    S: int = whole(
        1, "the first sampler is used for m + S epochs, where m is the last milestone (Algorithm 1)", least=0
    )
    switch_epoch: int | None = parameter(None, "the epochs before the switch in place of m + S; none for m + S", _same)
    then: tuple[tuple[int, Sampler], ...] = parameter(
        (), "further stages (Table 7) as pairs (epochs of the stage before, sampler)", _then
    )
    joint: bool = flag(True, "train the backbone after the switch, too (Table 11)")
    reinitialise: bool = flag(False, "draw new weights of the classifier at the switch (Table 11)")

    loss: Loss = parameter(
        "cross_entropy", "a loss with its parameters; it determines the head", _part(references.LOSS)
    )
    beta: float = number(0.0, "β of the loss's effective-number weights; 0 for none", least=0.0, below=1.0)
    switch_beta: float = number(0.0, "β after the switch; 0 keeps beta", least=0.0, below=1.0)
    mixture: Mixture | None = parameter(
        None, "how a step before the switch mixes batches; none for one batch", _mixture
    )

    epochs: int = whole(200, "T; m + S and the lengths in `then` leave the last sampler at least one epoch", least=1)
    batch_size: int = whole(64, "images per step", least=1)
    lr: float = number(0.1, "the learning rate of SGD", least=0.0)
    milestones: tuple[int, ...] = parameter(
        (100,), "epochs, counted from 0, at which the lr is multiplied by gamma", _milestones
    )
    gamma: float = number(0.1, "the factor on the lr at each milestone", least=0.0)
    warmup: int = whole(5, "epochs of linear warm-up, lr · (e + 1) / warmup", least=0)
    warmup_from: float | None = parameter(
        None, "the share f in BBN's warm-up, lr · (f + (1 - f) · e / warmup); none for the formula of warmup", _share
    )
    momentum: float = number(0.9, "momentum of SGD", least=0.0, below=1.0)
    nesterov: bool = flag(False, "use Nesterov momentum")
    weight_decay: float = number(2e-4, "weight decay of SGD", least=0.0)
    drop_last: bool = flag(False, "leave out the last, smaller batch of an epoch")
    replacement: bool = flag(
        False, "draw images inside a class with replacement, as BBN does; Algorithm 1 draws without"
    )

    retrain: Sampler | None = parameter(
        None, "the sampler of a second stage on a fixed backbone (Table 12, cRT, LWS); none for one stage", _sampler
    )
    retrains: str = choice(
        "classifier",
        "what the second stage trains: a new classifier (cRT) or a factor per class (LWS)",
        ("classifier", "scale"),
    )
    retrain_epochs: int = whole(30, "epochs of the second stage", least=1)
    retrain_lr: float = number(0.1, "learning rate of the second stage", least=0.0)
    retrain_weight_decay: float = number(5e-4, "weight decay of the second stage", least=0.0)
    retrain_batch: int = whole(0, "batch size of the second stage; 0 for batch_size", least=0)
    retrain_schedule: str = choice("step", "step (warm-up, ×0.1 at 1/3 and 2/3) or cosine to 0", ("step", "cosine"))
    fixed_batch_norm: str = choice(
        "train", "train updates the statistics of a fixed backbone; frozen keeps them", ("train", "frozen")
    )

    measures: tuple[str, ...] = some((), "measures beyond the fixed set; see `recipe.Epoch`", ("fit", "events"))
    precision: str = choice("auto", "auto follows the machine; see `origins.precision`", PRECISIONS)
    split_seed: int = whole(
        0, "seed of the test images and of the order of the classes, on digits only", least=0, most=_MOST
    )
    subset_seed: int = whole(
        0, "seed of the long-tailed subset; on CIFAR, 0 gives the subset of LDAM and BBN", least=0, most=_MOST
    )
    seed: int = whole(0, "seed of initial weights, sampling and augmentation", least=0, most=_MOST)
    varies: tuple[str, ...] = some(("seed",), "the seeds to which a replicate's number is added", SEEDS)
    crossed: bool = flag(False, "make replicates the pairs of a subset seed and a training seed; see `crossing`")

    def __post_init__(self) -> None:
        parameters.check(self)
        self._require("nesterov", not self.nesterov or self.momentum > 0, "false unless momentum is above 0")
        self._check_counts()
        self._check_schedule()
        self._check_parts()

    def _require(self, field: str, good: bool, allowed: str, hint: str = "") -> None:
        """Check a condition on a field.

        Args:
            field: the field's name.
            good: whether the condition holds.
            allowed: the allowed values, as the rest of a sentence that begins with ``must be``.
            hint: the reason or the remedy.

        Raises:
            Refusal: if the condition does not hold.
        """
        if not good:
            value = getattr(self, field)
            printed = references.title(value) if isinstance(value, (Backbone, Loss, Mixture)) else value
            raise Refusal(field, printed, f"must be {allowed}", hint)

    def _check_counts(self) -> None:
        dataset = facts(self.dataset)
        if dataset.natural is None:
            counts = dataset.counts(self.imbalance)
            hint = f"{self.dataset} has {counts[0]} training images per class, and each class keeps at least one"
            self._require("imbalance", counts[-1] >= 1, f"at most {counts[0]}", hint)
        else:
            hint = f"{self.dataset} is long-tailed by nature"
            self._require("imbalance", self.imbalance == dataset.natural, f"{dataset.natural:g}", hint)
        images = dataset.images(self.imbalance)
        for field in ("batch_size", "retrain_batch"):
            good = not self.drop_last or getattr(self, field) <= images
            self._require(field, good, f"at most {images} with drop_last", f"An epoch has {images} images")

    def _check_schedule(self) -> None:
        good = all(milestone < self.epochs for milestone in self.milestones)
        self._require("milestones", good, f"increasing whole numbers below {self.epochs}, the number of epochs")
        highest = math.log(max(self.gamma, 1.0)) * len(self.milestones) + math.log(self.lr or 1.0)
        self._require("gamma", highest < 700, "smaller", "The lr must stay finite after all milestones")
        classes = facts(self.dataset).classes
        for field, sampler in (
            ("first", self.first),
            ("switch", self.switch),
            *(("then", sampler) for _, sampler in self.then),
            ("retrain", 1.0 if self.retrain is None else self.retrain),
        ):
            resolve_sampler(sampler, field, classes)
        length = sum(length for length, _ in self.then)
        if self.switch_epoch is not None:
            good = is_whole(self.switch_epoch, 0) and self.switch_epoch + length < self.epochs
            self._require("switch_epoch", good, f"none or a whole number from 0 to {self.epochs - length - 1}")
        fixed = self.last_milestone + length
        if self.switch_epoch is None and fixed + self.S >= self.epochs:
            most = self.epochs - 1 - fixed
            reason = (
                f"The last sampler would start at epoch {fixed + self.S}, but the number of epochs is {self.epochs}"
            )
            if most >= 0:
                raise Refusal("S", self.S, f"must be at most {most}", reason)
            remedy = "Use more epochs or an earlier milestone"
            raise Refusal("S", self.S, "must leave the last sampler at least one epoch", f"{reason}. {remedy}")

    def _check_parts(self) -> None:
        """Check that the parts go together."""
        good = not self.crossed or self.varies == ("subset_seed", "seed")
        self._require("crossed", good, "false unless varies is subset_seed, seed")
        mixture_has_head = self.mixture is not None and self.mixture.head is not None
        good = not mixture_has_head or references.head(self.loss).linear
        self._require("loss", good, "a loss with a linear head", "The mixture determines the head")
        scaled = self.retrain is not None and self.retrains == "scale"
        self._require("retrains", not scaled or self.head.linear, "classifier", "Only a linear head can be scaled")
        two = self.mixture is not None and self.mixture.second is not None
        branches = self.head.branches
        reason = "The network's head has one branch"
        self._require("mixture", branches == 2 or not two, "none or a mixture of one sampler", reason)
        reason = "The network's head has two branches"
        self._require("mixture", two or branches == 1, "a mixture of two samplers", reason)
        if self.mixture is not None:
            self.mixture.at(self.epochs - 1, self.epochs)
        for field, value, allowed in (
            ("then", (), "empty"),
            ("retrain", None, "none"),
            ("joint", True, "true"),
            ("reinitialise", False, "false"),
            ("switch_beta", 0.0, "0"),
            ("switch", self.first, "the same sampler as first"),
        ):
            good = not two or getattr(self, field) == value
            self._require(field, good, allowed, "A mixture of two samplers has one stage and no switch")

    @property
    def head(self) -> Head:
        """The head of the network: the mixture's if it has one, else the loss's."""
        part = self.mixture if self.mixture is not None and self.mixture.head is not None else self.loss
        return references.head(part)  # type: ignore[no-any-return]

    @property
    def bilateral(self) -> bool:
        """Whether each step has batches of two samplers; then there is no switch."""
        return self.mixture is not None and self.mixture.second is not None

    @property
    def last_first(self) -> int:
        """The number of epochs before the switch: `switch_epoch` if given, else m + S."""
        return self.last_milestone + self.S if self.switch_epoch is None else self.switch_epoch

    @property
    def last_milestone(self) -> int:
        """The last milestone m, from which the switch is counted; 0 without milestones."""
        return self.milestones[-1] if self.milestones else 0

    @property
    def combination(self) -> str:
        """The schedule in short: ``IB⇒CR``.

        With further stages ``IB⇒CB×5⇒CR``, for BBN ``IB+CR``, with a second stage ``IB⇒IB, classifier CB``.
        """
        words = [sampler_name(self.first)]
        if self.mixture is not None and self.mixture.second is not None:
            return f"{words[0]}+{sampler_name(self.mixture.second[0])}"
        sampler = self.switch
        for length, following in self.then:
            words.append(f"{sampler_name(sampler)}×{length}")
            sampler = following
        words.append(sampler_name(sampler))
        second = "" if self.retrain is None else f", {self.retrains} {sampler_name(self.retrain)}"
        return "⇒".join(words) + second

    def replicate(self, number: int) -> Config:
        """Return the trial with the seeds of replicate `number`, which is added to each seed in `varies`."""
        added = crossing(number) if self.crossed else (number,) * len(self.varies)
        return replace(self, **{name: getattr(self, name) + n for name, n in zip(self.varies, added, strict=True)})

    def seeds(self) -> dict[str, str]:
        """Return the seeds of a replicate, by name: split and subset, if the data have these, and the training seed.

        The public subset of CIFAR, which the paper uses, is marked as published.
        """
        random_parts, seeds = facts(self.dataset).drawn, {}
        if "split" in random_parts:
            seeds["split"] = str(self.split_seed)
        if "subset" in random_parts:
            public = self.subset_seed == 0 and "split" not in random_parts and self.imbalance > 1
            seeds["subset"] = f"{self.subset_seed}{' (published)' if public else ''}"
        return {**seeds, "training seed": str(self.seed)}

    def to_json(self) -> dict[str, Any]:
        """Return the configuration as a dictionary for JSON; `from_json` reverses this."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        parts = (Backbone, Loss, Mixture)
        return {
            name: references.plain(value) if isinstance(value, parts) else thaw(value) for name, value in values.items()
        }

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Config:
        """Return the configuration of a dictionary; all values are checked.

        Raises:
            Refusal: if a field is unknown or a value is wrong.
        """
        plain = earlier.upgraded(plain)
        known = {field.name for field in fields(cls)}
        for field in plain:
            if field not in known:
                words = f"unknown configuration field {field!r}. Known fields are {', '.join(sorted(known))}"
                raise Refusal("config", field, words)
        return cls(**plain)


def crossing(number: int) -> tuple[int, int]:
    """Return the pair of a number: the first k² numbers give all pairs below k (Rosenberg and Strong, 1972)."""
    k = math.isqrt(number)
    remainder = number - k * k
    return (remainder, k) if remainder < k else (k, remainder - k)
