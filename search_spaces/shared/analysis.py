"""The paper's analyses of recorded runs: regularity, bias and variance, the terms of its bound. No torch."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainables.samplers import class_probabilities

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Regularity:
    """Table 8's columns, with a value for each class: (C,).

    Attributes:
        counts: n_j, the images of the class.
        learned, forgotten: the mean events of its images.
        covariance: the population covariance of its images' (learned, forgotten): (C, 2, 2) (eq. 19).
        f_norm: the covariance's Frobenius norm (eq. 20).
        irregularity: the norm over n_j (eq. 21).
    """

    counts: Ints
    learned: Floats
    forgotten: Floats
    covariance: Floats
    f_norm: Floats
    irregularity: Floats


def regularity(learned: Floats, forgotten: Floats, counts: Ints) -> Regularity:
    """Return the regularity of classes from each image's events, averaged over runs (A.4).

    Args:
        learned, forgotten: L and F of each image, sorted by class: (N,).
        counts: n_j: (C,), Σ n_j = N. A class of one image has no spread, so its irregularity is 0.
    """
    events = np.stack((learned, forgotten)).astype(np.float64)
    assert events.shape[1] == counts.sum()
    parts = np.split(events, np.cumsum(counts)[:-1], axis=1)
    covariance = np.stack([np.cov(part, bias=True) for part in parts])
    f_norm = np.sqrt((covariance**2).sum((1, 2)))
    means = np.stack([part.mean(1) for part in parts])
    return Regularity(counts, means[:, 0], means[:, 1], covariance, f_norm, f_norm / counts)


def pearson(x: Floats | Ints, y: Floats | Ints) -> float:
    """Return the correlation coefficient of two columns (eq. 22); NaN if one of them does not vary."""
    a, b = x - np.mean(x), y - np.mean(y)
    norm = math.sqrt(float((a**2).sum() * (b**2).sum()))
    return float((a * b).sum() / norm) if norm > 0 else math.nan


def spearman(x: Floats | Ints, y: Floats | Ints) -> float:
    """Return the rank correlation of two columns. Ties get their mean rank."""
    return pearson(_ranks(np.asarray(x, dtype=np.float64)), _ranks(np.asarray(y, dtype=np.float64)))


def _ranks(values: Floats) -> Floats:
    below = (values[:, None] > values[None]).sum(1)
    equal = (values[:, None] == values[None]).sum(1)
    ranks: Floats = below + (equal - 1) / 2.0
    return ranks


@dataclass(frozen=True)
class Decomposition:
    """The 0-1 error of runs and its parts, as means over test images: bias² + variance = error."""

    error: float
    bias2: float
    variance: float


def kohavi_wolpert(predictions: Ints, labels: Ints, classes: int) -> Decomposition:
    """Return the decomposition of Kohavi and Wolpert (1996) over R ≥ 2 runs on one split (Table 13).

    With p̂_k the share of runs that predict k: bias² = ½ Σ_k (1[k=y] - p̂_k)², variance = ½ (1 - Σ_k p̂_k²). The
    variance is corrected by R/(R - 1), and bias² is reduced by the same amount, so that the sum stays the mean error.

    Args:
        predictions: the class that each run predicts for each test image: (R, M).
        labels: (M,).
        classes: C.
    """
    runs = len(predictions)
    share = np.stack([(predictions == k).mean(0) for k in range(classes)])  # (C, M)
    truth = labels[None] == np.arange(classes)[:, None]
    bias2 = float((0.5 * ((truth - share) ** 2).sum(0)).mean())
    variance = float((0.5 * (1 - (share**2).sum(0))).mean())
    added = variance / (runs - 1)
    return Decomposition(float((predictions != labels).mean()), bias2 - added, variance + added)


@dataclass(frozen=True)
class Bound:
    """Section 3.3's terms of one replicate, after each epoch since the switch: (E,) each.

    Attributes:
        standard: L_S(θ_IB), eq. 3 without its regular terms.
        general: L(θ_CR), eq. 4 without its regular terms.
        q: the running minimum of Σ_j (p_j - n_j/n) · L̄_j(θ) over all θ that either branch has passed through.
        ordered_standard, ordered_general: the rank correlation of the classes' losses with their rank by size, largest
            first. It is 1 if smaller classes have larger losses, which is the theorem's assumption 3.
    """

    standard: Floats
    general: Floats
    q: Floats
    ordered_standard: Floats
    ordered_general: Floats

    @property
    def gap(self) -> Floats:
        """Q̂ + L_S(θ_IB) - L(θ_CR): the theorem holds where it is above 0."""
        return self.q + self.standard - self.general


def bound(standard: Floats, general: Floats, counts: Ints, q: float = -1.0) -> Bound:
    """Return the theorem's terms from the class losses of two branches of one trunk.

    Args:
        standard, general: the mean training loss of each class after each epoch since the switch, in the branch under
            IB and in the branch under the exponent `q`: (E, C).
        counts: n_j: (C,).
        q: the sampler's exponent.
    """
    p, share = class_probabilities(np.asarray(counts), q), counts / counts.sum()
    both = np.minimum(standard @ (p - share), general @ (p - share))
    ranks = np.arange(len(counts))
    return Bound(
        standard=standard @ share,
        general=general @ p,
        q=np.minimum.accumulate(both),
        ordered_standard=np.array([spearman(losses, ranks) for losses in standard]),
        ordered_general=np.array([spearman(losses, ranks) for losses in general]),
    )


def confidence_factor(counts: Ints, q: float) -> float:
    """Return √(n · Σ p_j² / n_j), the factor of the bound's confidence term under p_j ∝ n_j^q. IB: 1."""
    # Eq. 7 drops this factor.
    p = class_probabilities(np.asarray(counts), q)
    return math.sqrt(float(counts.sum() * (p**2 / counts).sum()))


def epochs_to_within(curve: Floats, switch: int, points: float = 0.5) -> int:
    """Return how many epochs after the switch a curve is first within `points` of its highest value since then."""
    after = curve[switch:]
    return int(np.argmax(after >= after.max() - points)) + 1
