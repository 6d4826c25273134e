"""A trial's configuration, validated where it enters. Pure: no torch."""

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
    "common": "the paper's for every method (of digits, their own)",
    "source": "with constants of the method's own code",
    "short": "CIFAR in 30 epochs",
}
_MOST = (1 << 32) - 1


def _same(value: Any) -> Any:
    """A value that is checked with others."""
    return value


def _name(value: Any) -> str:
    if not isinstance(value, str) or not value or not value.isprintable():
        raise ValueError("a name of one line")
    return value


def _dataset(value: Any) -> str:
    found = _name(value)
    facts(found)
    return modules.absolute(found)


def _part(kind: references.Kind) -> parameters.Check:
    return lambda value: references.made(kind, value)


def _mixture(value: Any) -> Any:
    return None if value is None else references.made(references.MIXTURE, value)


def _sampler(value: Any) -> Any:
    return parameters.freeze(value)  # checked once the number of classes is known


def _then(value: Any) -> Any:
    stages = value if isinstance(value, (list, tuple)) else [value]
    if not all(isinstance(each, (list, tuple)) and len(each) == 2 and is_whole(each[0], 1) for each in stages):
        raise ValueError("a list of pairs: a whole number of epochs ≥ 1, and a sampler")
    return parameters.freeze(value)


def _milestones(value: Any) -> Any:
    good = isinstance(value, (list, tuple)) and all(is_whole(each, 0) for each in value)
    if not good or list(value) != sorted(set(value)):
        raise ValueError("increasing whole numbers ≥ 0")
    return tuple(value)


def _share(value: Any) -> float | None:
    found = None if value is None else as_number(value)
    if found is not None and not 0 <= found <= 1:
        raise ValueError("none, or a share of the lr from 0 to 1")
    return found


@dataclass(frozen=True, kw_only=True)
class Config:
    """One trial: everything that its recipe follows from. The defaults are the paper's for CIFAR (A.3.2).

    Each method of the paper is a point of this space: `trainables.methods` says which, `trainables.schedule` what its
    epochs are. The help of each field says what it means.

    Raises:
        Refusal: if a value is wrong, naming the field, the value and what it must be.
    """

    method: str = parameter("switching", "what tables call it; the fields below say what it is", _name)
    protocol: str = choice("common", "what tables call the settings below; see PROTOCOLS", tuple(PROTOCOLS))
    dataset: str = parameter("cifar10", "a data set of ours, folder:PATH, or a reference to one", _dataset)
    imbalance: float = number(
        50.0, "imbalance factor IF = n_max / n_min; data long-tailed by nature have one", least=1.0
    )
    backbone: Backbone = parameter("resnet32", "the network, without its head", _part(references.BACKBONE))

    first: Sampler = parameter(
        "IB", "the sampler before the switch: IB, CB, CR, an exponent q, or class weights", _sampler
    )
    switch: Sampler = parameter("CR", "the sampler after it", _sampler)
    S: int = whole(1, "the first sampler is used for exactly m + S epochs, m the last milestone (Algorithm 1)", least=0)
    switch_epoch: int | None = parameter(None, "where a method's source says it: the epochs before the switch", _same)
    then: tuple[tuple[int, Sampler], ...] = parameter(
        (), "further stages (Table 7): (epochs of the one before, sampler)", _then
    )
    joint: bool = flag(True, "whether the backbone is trained on after the switch (Table 11)")
    reinitialise: bool = flag(False, "whether the classifier is drawn anew at the switch (Table 11)")

    loss: Loss = parameter("cross_entropy", "a loss, which brings its own head and parameters", _part(references.LOSS))
    beta: float = number(0.0, "β of the loss's effective-number weights; 0 for none", least=0.0, below=1.0)
    switch_beta: float = number(0.0, "β after the switch; 0 for that of before", least=0.0, below=1.0)
    mixture: Mixture | None = parameter(None, "what a step before the switch is made of, if not of one batch", _mixture)

    epochs: int = whole(200, "T; m + S and the lengths in `then` leave at least one epoch to the last sampler", least=1)
    batch_size: int = whole(64, "images of a step", least=1)
    lr: float = number(0.1, "the learning rate of SGD", least=0.0)
    milestones: tuple[int, ...] = parameter(
        (100,), "epochs, from 0, from which on the lr is multiplied by gamma", _milestones
    )
    gamma: float = number(0.1, "what the lr is multiplied by", least=0.0)
    warmup: int = whole(5, "epochs of linear warm-up, lr · (e + 1) / warmup", least=0)
    warmup_from: float | None = parameter(
        None, "a share f, of BBN's code: warm-up as lr · (f + (1 - f) · e / warmup)", _share
    )
    momentum: float = number(0.9, "of SGD", least=0.0, below=1.0)
    nesterov: bool = flag(False, "whether it is Nesterov's")
    weight_decay: float = number(2e-4, "of SGD", least=0.0)
    drop_last: bool = flag(False, "leave out the last, smaller batch of an epoch")
    replacement: bool = flag(
        False, "draw images inside a class with replacement (BBN's habit); Algorithm 1 draws without"
    )

    retrain: Sampler | None = parameter(
        None, "the sampler of a second stage upon a fixed backbone (Table 12, cRT, LWS)", _sampler
    )
    retrains: str = choice(
        "classifier", "the classifier, drawn anew (cRT), or a factor a class (LWS)", ("classifier", "scale")
    )
    retrain_epochs: int = whole(30, "its epochs", least=1)
    retrain_lr: float = number(0.1, "its learning rate", least=0.0)
    retrain_weight_decay: float = number(5e-4, "its weight decay", least=0.0)
    retrain_batch: int = whole(0, "its batch size; 0 for batch_size", least=0)
    retrain_schedule: str = choice("step", "step: warm-up, ×0.1 at 1/3 and 2/3; or cosine to 0", ("step", "cosine"))
    fixed_batch_norm: str = choice("train", "whether statistics of a fixed backbone move", ("train", "frozen"))

    measures: tuple[str, ...] = some((), "beyond the fixed set; see `recipe.Epoch`", ("fit", "events"))
    precision: str = choice("auto", "auto: as the machine has it; see `origins.precision`", PRECISIONS)
    split_seed: int = whole(
        0, "on digits: which images are for test, and which digit is the n-th largest class", least=0, most=_MOST
    )
    subset_seed: int = whole(
        0, "which images the long-tailed subset keeps; on CIFAR 0 is LDAM's and BBN's", least=0, most=_MOST
    )
    seed: int = whole(0, "initial weights, sampling and augmentation", least=0, most=_MOST)
    varies: tuple[str, ...] = some(("seed",), "the seeds that a replicate's number is added to", SEEDS)
    crossed: bool = flag(False, "whether replicates are the pairs of a subset and a training seed; see `crossing`")

    def __post_init__(self) -> None:
        parameters.check(self)
        self._require("nesterov", not self.nesterov or self.momentum > 0, "false, unless momentum is above 0")
        self._check_counts()
        self._check_schedule()
        self._check_parts()

    def _require(self, field: str, good: bool, remedy: str) -> None:
        if not good:
            raise Refusal(field, getattr(self, field), f"must be {remedy}")

    def _check_counts(self) -> None:
        known = facts(self.dataset)
        if known.natural is None:
            counts = known.counts(self.imbalance)
            most = f"at most {counts[0]}: {self.dataset} has so many training images in a class, and keeps one of each"
            self._require("imbalance", counts[-1] >= 1, most)
        else:
            own = f"{known.natural:g}, its own: {self.dataset} is long-tailed by nature"
            self._require("imbalance", self.imbalance == known.natural, own)
        images = known.images(self.imbalance)
        remedy = f"at most {images}, the images of an epoch, with drop_last"
        for field in ("batch_size", "retrain_batch"):
            self._require(field, not self.drop_last or getattr(self, field) <= images, remedy)

    def _check_schedule(self) -> None:
        stones = self.milestones
        self._require(
            "milestones",
            all(m < self.epochs for m in stones),
            f"increasing whole numbers below epochs = {self.epochs}",
        )
        highest = math.log(max(self.gamma, 1.0)) * len(stones) + math.log(self.lr or 1.0)
        self._require("gamma", highest < 700, "less: the lr must stay finite through the milestones")
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
            self._require("switch_epoch", good, f"a whole number from 0 to {self.epochs - length - 1}")
        fixed = self.last_milestone + length
        if self.switch_epoch is None and fixed + self.S >= self.epochs:
            room = self.epochs - 1 - fixed
            remedy = f"must be at most {room}" if room >= 0 else "use more epochs or an earlier milestone"
            raise Refusal(
                "S",
                self.S,
                f"the last sampler would start at epoch {fixed + self.S}, beyond the {self.epochs} epochs: {remedy}",
            )

    def _check_parts(self) -> None:
        """What goes together."""
        good = not self.crossed or self.varies == ("subset_seed", "seed")
        self._require("crossed", good, "false, unless varies = subset_seed, seed")
        own = self.mixture is not None and self.mixture.head is not None
        good = not own or references.head(self.loss).linear
        self._require("loss", good, "one whose head is linear: the mixture has a head of its own")
        scaled = self.retrain is not None and self.retrains == "scale"
        self._require("retrains", not scaled or self.head.linear, "classifier, unless the network's head is linear")
        two = self.mixture is not None and self.mixture.second is not None
        branches = self.head.branches
        self._require("mixture", branches == 2 or not two, "one of one sampler: the network's head has one branch")
        self._require("mixture", two or branches == 1, "one of two samplers: the network's head has two branches")
        if self.mixture is not None:
            self.mixture.at(self.epochs - 1, self.epochs)
        for field, value in (
            ("then", ()),
            ("retrain", None),
            ("joint", True),
            ("reinitialise", False),
            ("switch_beta", 0.0),
            ("switch", self.first),
        ):
            good = not two or getattr(self, field) == value
            self._require(field, good, f"{value!r}: a mixture of two samplers has no switch and one stage")

    @property
    def head(self) -> Head:
        """The end of the network, for which the mixture or else the loss asks."""
        own = self.mixture if self.mixture is not None and self.mixture.head is not None else self.loss
        return references.head(own)  # type: ignore[no-any-return]

    @property
    def bilateral(self) -> bool:
        """Whether each step has batches of two samplers, so that nothing is switched."""
        return self.mixture is not None and self.mixture.second is not None

    @property
    def last_first(self) -> int:
        """The epochs before the switch: m + S, unless `switch_epoch` says otherwise."""
        return self.last_milestone + self.S if self.switch_epoch is None else self.switch_epoch

    @property
    def last_milestone(self) -> int:
        """m, from which the switch is counted; 0 if the lr has no milestone."""
        return self.milestones[-1] if self.milestones else 0

    @property
    def combination(self) -> str:
        """The schedule in one word: ``IB⇒CR``; for further stages ``IB⇒CB×5⇒CR``; BBN's is ``IB+CR``.

        With a second stage ``IB⇒IB, classifier CB``.
        """
        words = [sampler_name(self.first)]
        if self.mixture is not None and self.mixture.second is not None:
            return f"{words[0]}+{sampler_name(self.mixture.second[0])}"
        sampler = self.switch
        for length, following in self.then:
            words.append(f"{sampler_name(sampler)}×{length}")
            sampler = following
        words.append(sampler_name(sampler))
        again = "" if self.retrain is None else f", {self.retrains} {sampler_name(self.retrain)}"
        return "⇒".join(words) + again

    def replicate(self, number: int) -> Config:
        """The same trial under replicate `number`'s seeds: each that `varies` is counted on from its own value."""
        more = crossing(number) if self.crossed else (number,) * len(self.varies)
        return replace(self, **{name: getattr(self, name) + n for name, n in zip(self.varies, more, strict=True)})

    def seeds(self) -> dict[str, str]:
        """What a replicate is drawn by, in words: its split and its subset, if the data have these, its training seed.

        The public subset of CIFAR, which the paper uses, is called published.
        """
        drawn, found = facts(self.dataset).drawn, {}
        if "split" in drawn:
            found["split"] = str(self.split_seed)
        if "subset" in drawn:
            published = " (published)" if self.subset_seed == 0 and "split" not in drawn and self.imbalance > 1 else ""
            found["subset"] = f"{self.subset_seed}{published}"
        return {**found, "training seed": str(self.seed)}

    def to_json(self) -> dict[str, Any]:
        """A dictionary that JSON holds and `from_json` takes back."""
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        parts = (Backbone, Loss, Mixture)
        return {
            name: references.plain(value) if isinstance(value, parts) else thaw(value) for name, value in found.items()
        }

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Config:
        """The configuration of a dictionary, every value checked; unknown fields are refused."""
        plain = earlier.upgraded(plain)
        known = {field.name for field in fields(cls)}
        for field in plain:
            if field not in known:
                raise Refusal("config", field, f"must be one of {', '.join(sorted(known))}")
        return cls(**plain)


def crossing(number: int) -> tuple[int, int]:
    """The pair that a number stands for: the first k² numbers are all pairs below k (Rosenberg and Strong, 1972)."""
    k = math.isqrt(number)
    rest = number - k * k
    return (rest, k) if rest < k else (k, rest - k)
