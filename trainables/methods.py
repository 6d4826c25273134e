"""The methods of the paper's tables, and those that a practitioner expects beside them. Pure: no torch.

A method is a point of the space of configurations: a function from a base configuration, which says data and protocol,
to the method's own. So MLflow shows of every method what it does, and each of its parts is a search dimension.

By default all follow the base's protocol, the paper's (``recipe = common``), and share the cross-entropy trunk wherever
they begin like it: deferral begins at m + S, second stages have 30 epochs. `sources` has the constants of each method's
own code instead.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

from trainables.config import Config
from trainables.data.datasets import facts
from trainables.exponents import Sampler

Method = Callable[[Config], Config]


def cross_entropy(base: Config) -> Config:
    """Cross-entropy under instance-balanced sampling throughout: the paper's baseline."""
    return replace(base, method="Cross Entropy", first="IB", switch="IB")


def focal(base: Config) -> Config:
    """Focal loss (Lin et al., 2017); softmax form, γ = 1 as LDAM's code has it on CIFAR."""
    return replace(cross_entropy(base), method="Focal", loss="focal", focal_gamma=1.0)


def cb_focal(base: Config) -> Config:
    """Class-balanced focal loss (Cui et al., 2019): effective-number weights from the first epoch on, β = 0.9999.

    Deviation: softmax form, as in LDAM's code, but the weight is a factor of the loss alone, where that code has it in
    the focal factor as well. The sigmoid form of its authors is the `source` recipe.
    """
    return replace(focal(base), method="CB-Focal", beta=0.9999)


def ce_drw(base: Config) -> Config:
    """Deferred re-weighting (Cao et al., 2019): unit weights, then effective-number weights, β = 0.9999.

    Deviation: deferred until m + S, where the paper's method switches, instead of epoch 160.
    """
    return replace(cross_entropy(base), method="CE-DRW", switch_beta=0.9999)


def ce_drs(base: Config) -> Config:
    """Deferred re-sampling (Cao et al., 2019): instance-balanced, then class-balanced sampling from m + S on."""
    return replace(base, method="CE-DRS", first="IB", switch="CB")


def ldam_drw(base: Config) -> Config:
    """LDAM with deferred re-weighting (Cao et al., 2019): cosine classifier, s = 30, margins ∝ n_j^(-1/4).

    Deviation: deferred until m + S instead of epoch 160.
    """
    return replace(
        ce_drw(base), method="LDAM-DRW", loss="ldam", max_margin=0.3 if base.dataset == "inaturalist2018" else 0.5
    )


def crt(base: Config) -> Config:
    """Classifier re-training (Kang et al., 2020): a new classifier on the fixed features, class-balanced sampling.

    Deviations: class-balanced sampling draws classes independently, where its authors cycle through them; 30 epochs, in
    steps from lr 0.1 at weight decay 5e-4 (Zhang et al., 2021, on CIFAR), not 10 on a cosine from 0.2 at batch 512.
    """
    return replace(cross_entropy(base), method="Decouple-cRT", retrain="CB")


def lws(base: Config) -> Config:
    """Learnable weight scaling (Kang et al., 2020): a factor a class on the fixed classifier's logits, from 1 on.

    Deviations: cRT's, with 5 epochs in its authors' code.
    """
    return replace(crt(base), method="Decouple-LWS", retrains="scale")


def tau_normalised(base: Config) -> Config:
    """τ-normalised classifier (Kang et al., 2020): cross-entropy, and a read-out; see `trainables.readouts`."""
    return replace(cross_entropy(base), method="τ-normalised")


def bbn(base: Config) -> Config:
    """Bilateral-branch network (Zhou et al., 2020): uniform and reversed sampler in one step, α = 1 - (e/T)².

    Deviations: warm-up from a fifth instead of a third of the lr; weights are drawn as for every other network here; on
    iNaturalist, its code divides by 100 and 200 where 90 and 180 are trained, here it is T. The `source` recipe has the
    warm-up and the division.
    """
    return replace(base, method="BBN", first="IB", switch="IB", bilateral=True)


def switching(base: Config) -> Config:
    """The paper's method (Algorithm 1): instance-balanced, then class-reversed sampling from m + S on."""
    return replace(base, method=f"Ours (S = {base.S})", first="IB", switch="CR")


def weighted_switching(base: Config, weights: Sampler, name: str) -> Config:
    """Switching to given class probabilities, such as irregularities (Table 10): p_j = I_j / Σ I."""
    return replace(base, method=f"switching by {name}", first="IB", switch=weights)


def balanced_softmax(base: Config) -> Config:
    """Balanced softmax (Ren et al., 2020): cross-entropy of z + log n, which is logit adjustment with τ = 1."""
    return replace(logit_adjusted(base), method="Balanced softmax")


def logit_adjusted(base: Config, tau: float = 1.0) -> Config:
    """Logit-adjusted loss (Menon et al., 2021, eq. 10): cross-entropy of z + τ log π."""
    return replace(cross_entropy(base), method=f"Logit adjustment (τ = {tau:g})", loss="logit_adjusted", tau=tau)


def post_hoc(base: Config) -> Config:
    """Post-hoc logit adjustment (Menon et al., 2021, eq. 9): cross-entropy, and a read-out."""
    return replace(cross_entropy(base), method="Post-hoc logit adjustment")


# ε of the largest and of the smallest class in MiSLAS's configurations, by data set and, on CIFAR, by IF.
_SMOOTHING: Mapping[str, Mapping[float, tuple[float, float]]] = {
    "cifar10": {100.0: (0.3, 0.0), 50.0: (0.2, 0.0), 10.0: (0.1, 0.0)},
    "cifar100": {100.0: (0.4, 0.1), 50.0: (0.3, 0.0), 10.0: (0.2, 0.0)},
    "imagenet-lt": {1.0: (0.3, 0.0)},
    "inaturalist2018": {1.0: (0.3, 0.0)},
    "places-lt": {1.0: (0.4, 0.1)},
}


def label_aware_smoothing(base: Config) -> Config:
    """Label-aware smoothing (Zhong et al., 2021), with a class-balanced switch.

    ε is that of its authors' configurations: for the data set, and on CIFAR for the nearest of their imbalance factors
    (by ratio). Digits have CIFAR-10's, folders ImageNet-LT's. `smoothing_share` says which classes get it: by default
    all but the label, as in eq. 4; in the authors' code all.

    Deviation: its authors smooth in a second stage with fixed features; here the loss is the same from the first epoch
    on, and the whole network is trained on.
    """
    other = "cifar10" if facts(base.dataset).natural is None else "imagenet-lt"
    by_imbalance = _SMOOTHING.get(base.dataset, _SMOOTHING[other])
    nearest = min(by_imbalance, key=lambda imbalance: abs(math.log(imbalance / base.imbalance)))
    made = replace(ce_drs(base), method="Label-aware smoothing", loss="label_aware_smoothing")
    return replace(made, smoothing=by_imbalance[nearest])


def mixup_switching(base: Config) -> Config:
    """Mixup (Zhang et al., 2018, as Zhong et al., 2021, use it) before the paper's switch, none after it.

    a is 1 on small images and 0.2 on large ones, as in the configurations of the latter.

    Deviation: a batch is mixed with its own reverse, not with a permutation: it is in random order already.
    """
    small = facts(base.dataset).natural is None
    return replace(switching(base), method="Mixup, then ours", mixup=1.0 if small else 0.2)
