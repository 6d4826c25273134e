"""A trial's configuration, validated where it enters. Pure: no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from study.errors import Refusal
from trainables.data.datasets import facts
from trainables.exponents import Sampler, number, resolve_sampler, sampler_name
from trainables.recipe import LOSSES

BACKBONES = ("resnet8", "resnext11", "resnet32", "resnet50", "resnext50")
PRECISIONS = ("auto", "fp32", "tf32", "bf16")
SEEDS = ("split_seed", "subset_seed", "seed")
PROTOCOLS = ("common", "source", "short")


@dataclass(frozen=True, kw_only=True)
class Config:
    """One trial: everything that its recipe follows from. The defaults are the paper's for CIFAR (A.3.2).

    Each method of the paper is a point of this space; `trainables.methods` says which, `trainables.schedule` what its
    epochs are.

    Attributes:
        method: what tables call it; the fields below say what it is.
        protocol: what tables call the settings below: common, the paper's for every method (of digits, their own);
            source, with constants of the method's own code; short, CIFAR in 30 epochs.
        dataset: digits, cifar10, cifar100, imagenet-lt, inaturalist2018, places-lt, or folder:PATH.
        imbalance: imbalance factor IF = n_max / n_min, at least 1; of data that are long-tailed by nature, their own.
        backbone: resnet32 (the paper's for CIFAR), resnet50 or resnext50; resnet8 or resnext11 for digits.
        first, switch: the samplers before and after the switch: IB, CB, CR, an exponent q, or class weights.
        S: the first sampler is used for exactly m + S epochs, m the last milestone (Algorithm 1).
        switch_epoch: where a method's source says it: the epochs before the switch, instead of m + S.
        then: further stages (Table 7): pairs of (epochs that the sampler before is used for, next sampler).
        joint: whether the backbone is trained on after the switch (Table 11).
        reinitialise: whether the classifier is drawn anew at the switch (Table 11).
        bilateral: BBN's two branches: `first` in one, the reversed sampler in the other, instead of a switch.
        alpha_epochs: what BBN's α = 1 - (e / alpha_epochs)² divides by; None for all epochs, T.
        loss: of `losses`; its constants are the next four.
        focal_gamma: γ of focal and sigmoid_focal.
        max_margin: the largest margin of ldam.
        tau: τ of logit_adjusted, ``z + τ log π``; 1 is balanced softmax.
        smoothing: of label_aware_smoothing, for the largest class and the smallest.
        smoothing_share: which classes it gives ε to: others, all but the label (its paper's eq. 4), or all, the label
            among them (its code).
        beta: β of the loss's effective-number weights; 0 for none.
        switch_beta: β after the switch; 0 for that of before.
        mixup: a of the Beta(a, a) that batches before the switch are mixed by; 0 for none.
        epochs: T; m + S and the lengths in `then` must leave at least one epoch to the last sampler.
        batch_size, lr, momentum, nesterov, weight_decay: of SGD.
        milestones, gamma: from each milestone's epoch on (counted from 0) the lr is multiplied by gamma.
        warmup: epochs of linear warm-up, ``lr · (e + 1) / warmup``.
        warmup_from: with a share f of the lr, from which BBN's code begins, it is ``lr · (f + (1 - f) · e / warmup)``.
        drop_last: leave out the last, smaller batch of an epoch.
        replacement: draw images inside a class with replacement (BBN's habit; Algorithm 1 draws without).
        retrain: the sampler of a second stage after all epochs (Table 12, cRT, LWS), in which the backbone is fixed;
            None for no such stage.
        retrains: classifier, which is drawn anew (cRT), or scale, a factor a class (LWS).
        retrain_epochs, retrain_lr, retrain_weight_decay, retrain_batch: of that stage; a batch of 0 is `batch_size`.
        fixed_batch_norm: whether the batch-norm statistics of a fixed backbone move (train) or not (frozen).
        retrain_schedule: step, after a warm-up as before ×0.1 at a third and at two thirds; or cosine to 0.
        measures: beyond the fixed set: fit, events; see `recipe.Epoch`.
        precision: fp32 (without TF32), tf32 (fp32, but for matrix products and convolutions on a GPU), bf16
            (autocast), or auto, as the machine has it; see `recipe.precision`.
        split_seed: on digits, which images are for test and which digit is the n-th largest class.
        subset_seed: which images the long-tailed subset keeps; 0 is LDAM's and BBN's on CIFAR.
        seed: initial weights, sampling and augmentation.
        varies: the seeds that a replicate's number is added to; the others are the same in all of them.
        crossed: whether the replicates are instead the pairs of a subset and a training seed; see `crossing`.

    Raises:
        Refusal: if a value is wrong, naming the field, the value and what would do.
    """

    method: str = "switching"
    protocol: str = "common"
    dataset: str = "cifar10"
    imbalance: float = 50.0
    backbone: str = "resnet32"
    first: Sampler = "IB"
    switch: Sampler = "CR"
    S: int = 1
    switch_epoch: int | None = None
    then: tuple[tuple[int, Sampler], ...] = ()
    joint: bool = True
    reinitialise: bool = False
    bilateral: bool = False
    alpha_epochs: int | None = None
    loss: str = "cross_entropy"
    focal_gamma: float = 1.0
    max_margin: float = 0.5
    tau: float = 1.0
    smoothing: tuple[float, float] = (0.4, 0.1)
    smoothing_share: str = "others"
    beta: float = 0.0
    switch_beta: float = 0.0
    mixup: float = 0.0
    epochs: int = 200
    batch_size: int = 64
    lr: float = 0.1
    milestones: tuple[int, ...] = (100,)
    gamma: float = 0.1
    warmup: int = 5
    warmup_from: float | None = None
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 2e-4
    drop_last: bool = False
    replacement: bool = False
    retrain: Sampler | None = None
    retrains: str = "classifier"
    retrain_epochs: int = 30
    retrain_lr: float = 0.1
    retrain_weight_decay: float = 5e-4
    retrain_batch: int = 0
    retrain_schedule: str = "step"
    fixed_batch_norm: str = "train"
    measures: tuple[str, ...] = ()
    precision: str = "auto"
    split_seed: int = 0
    subset_seed: int = 0
    seed: int = 0
    varies: tuple[str, ...] = ("seed",)
    crossed: bool = False

    def __post_init__(self) -> None:
        self._require("method", isinstance(self.method, str) and self.method != "", "a name would do")
        self._require("dataset", isinstance(self.dataset, str), "a name would do")
        facts(self.dataset)
        for field, choices in (
            ("backbone", BACKBONES),
            ("loss", LOSSES),
            ("precision", PRECISIONS),
            ("retrains", ("classifier", "scale")),
            ("retrain_schedule", ("step", "cosine")),
            ("fixed_batch_norm", ("train", "frozen")),
            ("protocol", PROTOCOLS),
            ("smoothing_share", ("others", "all")),
        ):
            self._require(field, getattr(self, field) in choices, f"one of {', '.join(choices)} would do")
        for field, some in (("measures", ("fit", "events")), ("varies", SEEDS)):
            value = getattr(self, field)
            good = isinstance(value, (list, tuple)) and all(each in some for each in value)
            self._require(field, good, f"some of {', '.join(some)} would do")
            object.__setattr__(self, field, tuple(each for each in some if each in value))
        for field, low in (
            ("epochs", 1),
            ("batch_size", 1),
            ("warmup", 0),
            ("S", 0),
            ("retrain_epochs", 1),
            ("retrain_batch", 0),
        ):
            self._require(field, _is_int(getattr(self, field), low), f"a whole number ≥ {low} would do")
        for field in SEEDS:
            value = getattr(self, field)
            self._require(field, _is_int(value, 0) and value < 1 << 32, "a whole number from 0 to 2³² - 1 would do")
        for field, least, limit in (
            ("imbalance", 1.0, math.inf),
            ("lr", 0.0, math.inf),
            ("gamma", 0.0, math.inf),
            ("momentum", 0.0, 1.0),
            ("weight_decay", 0.0, math.inf),
            ("focal_gamma", 0.0, math.inf),
            ("max_margin", 0.0, math.inf),
            ("tau", -math.inf, math.inf),
            ("beta", 0.0, 1.0),
            ("switch_beta", 0.0, 1.0),
            ("mixup", 0.0, math.inf),
            ("retrain_lr", 0.0, math.inf),
            ("retrain_weight_decay", 0.0, math.inf),
        ):
            value = number(getattr(self, field))
            above = (f" ≥ {least:g}" if least > -math.inf else "") + (f" and < {limit:g}" if limit < math.inf else "")
            self._require(field, math.isfinite(value) and least <= value < limit, f"a finite number{above} would do")
            object.__setattr__(self, field, value)
        for field in ("joint", "reinitialise", "bilateral", "nesterov", "drop_last", "replacement", "crossed"):
            self._require(field, isinstance(getattr(self, field), bool), "true or false would do")
        self._require("nesterov", not self.nesterov or self.momentum > 0, "Nesterov needs a momentum above 0")
        pair = self.smoothing if isinstance(self.smoothing, (list, tuple)) else ()
        good = len(pair) == 2 and all(0 <= number(share) < 1 for share in pair)
        self._require("smoothing", good, "two shares ≥ 0 and < 1, of the largest class and the smallest, would do")
        object.__setattr__(self, "smoothing", tuple(map(number, self.smoothing)))
        self._check_counts()
        self._check_schedule()
        self._check_parts()

    def _require(self, field: str, good: bool, remedy: str) -> None:
        if not good:
            raise Refusal(field, getattr(self, field), remedy)

    def _check_counts(self) -> None:
        known = facts(self.dataset)
        if known.natural is None:
            counts = known.counts(self.imbalance)
            self._require(
                "imbalance",
                counts[-1] >= 1,
                f"{self.dataset} has at most {counts[0]} training images a class: "
                f"at most {counts[0]} would leave one to the smallest",
            )
        else:
            own = f"{known.natural:g}, its own, would do: {self.dataset} is long-tailed by nature"
            self._require("imbalance", self.imbalance == known.natural, own)
        images = known.images(self.imbalance)
        remedy = f"with drop_last, at most {images}, the images of an epoch, would do"
        for field in ("batch_size", "retrain_batch"):
            self._require(field, not self.drop_last or getattr(self, field) <= images, remedy)

    def _check_schedule(self) -> None:
        stones = self.milestones
        good = isinstance(stones, (list, tuple)) and all(_is_int(m, 0) for m in stones)
        self._require(
            "milestones",
            good and list(stones) == sorted(set(stones)) and all(m < self.epochs for m in stones),
            f"increasing whole numbers below epochs = {self.epochs} would do",
        )
        object.__setattr__(self, "milestones", tuple(stones))
        if self.warmup_from is not None:
            share = number(self.warmup_from)
            self._require("warmup_from", 0 <= share <= 1, "must be none, or a share of the lr from 0 to 1")
            object.__setattr__(self, "warmup_from", share)
        highest = math.log(max(self.gamma, 1.0)) * len(stones) + math.log(self.lr or 1.0)
        self._require("gamma", highest < 700, "an lr that stays finite through the milestones would do")
        stages = []
        self._require("then", isinstance(self.then, (list, tuple)), "a list of (epochs, sampler) would do")
        for stage in self.then:
            good = isinstance(stage, (list, tuple)) and len(stage) == 2 and _is_int(stage[0], 1)
            self._require("then", good, "pairs of (a whole number of epochs ≥ 1, a sampler) would do")
            stages.append((stage[0], _freeze(stage[1])))
        object.__setattr__(self, "then", tuple(stages))
        for field in ("first", "switch", "retrain"):
            object.__setattr__(self, field, _freeze(getattr(self, field)))
        classes = facts(self.dataset).classes
        own = [("first", self.first), ("switch", self.switch), *(("then", s) for _, s in stages)]
        for field, sampler in own if self.retrain is None else [*own, ("retrain", self.retrain)]:
            resolve_sampler(sampler, field, classes)
        length = sum(length for length, _ in stages)
        if self.switch_epoch is not None:
            good = _is_int(self.switch_epoch, 0) and self.switch_epoch + length < self.epochs
            self._require("switch_epoch", good, f"a whole number from 0 to {self.epochs - length - 1} would do")
        fixed = self.last_milestone + length
        if self.switch_epoch is None and fixed + self.S >= self.epochs:
            room = self.epochs - 1 - fixed
            remedy = f"at most {room} would do" if room >= 0 else "more epochs or an earlier milestone would do"
            raise Refusal(
                "S",
                self.S,
                f"the last sampler would start at epoch {fixed + self.S}, beyond the {self.epochs} epochs: {remedy}",
            )

    def _check_parts(self) -> None:
        """What goes together."""
        good = not self.crossed or self.varies == ("subset_seed", "seed")
        self._require("crossed", good, "must be false, unless varies = subset_seed, seed")
        good = self.alpha_epochs is None or (self.bilateral and _is_int(self.alpha_epochs, self.epochs))
        remedy = f"must be none, or, of a bilateral network, a whole number ≥ epochs = {self.epochs}"
        self._require("alpha_epochs", good, remedy)
        linear = "a linear classifier would do: no ldam, no bilateral"
        scaled = self.retrain is not None and self.retrains == "scale"
        self._require("retrains", not scaled or self.head in ("linear", "rare"), linear)
        for field, plain in (
            ("then", ()),
            ("retrain", None),
            ("mixup", 0.0),
            ("joint", True),
            ("reinitialise", False),
            ("switch_beta", 0.0),
            ("switch", self.first),
        ):
            good = not self.bilateral or getattr(self, field) == plain
            self._require(field, good, f"{plain!r} would do: a bilateral network has no switch and one stage")
        self._require(
            "loss", not self.bilateral or self.loss != "ldam", "another would do: bilateral has a head of its own"
        )

    @property
    def head(self) -> str:
        """The end of the network that the loss asks for; see `networks.build`."""
        if self.bilateral:
            return "bilateral"
        return {"ldam": "cosine", "sigmoid_focal": "rare"}.get(self.loss, "linear")

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
        if self.bilateral:
            return f"{words[0]}+CR"
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
        plain = asdict(self)
        return {field: _thaw(value) for field, value in plain.items()}

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Config:
        """The configuration of a dictionary, every value checked; unknown fields are refused."""
        known = {field.name for field in fields(cls)}
        for field in plain:
            if field not in known:
                raise Refusal("config", field, f"no such field; one of {', '.join(sorted(known))} would do")
        return cls(**plain)


def crossing(number: int) -> tuple[int, int]:
    """The pair that a number stands for: the first k² numbers are all pairs below k (Rosenberg and Strong, 1972)."""
    k = math.isqrt(number)
    rest = number - k * k
    return (rest, k) if rest < k else (k, rest - k)


def _is_int(value: object, low: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= low


def _freeze(value: Any) -> Any:
    return tuple(map(_freeze, value)) if isinstance(value, (list, tuple)) else value


def _thaw(value: Any) -> Any:
    return list(map(_thaw, value)) if isinstance(value, (list, tuple)) else value
