"""The losses of the paper's methods: one function a paper, from logits to one number. Class counts come largest first.

Each takes logits (B, C), labels (B,), class weights (C,) or None for ones, and returns a scalar. With weights, losses
of the softmax family are the weighted mean ``Σ_i w_{y_i} l_i / Σ_i w_{y_i}``, as ``torch.nn.CrossEntropyLoss`` and
LDAM's code have it; focal losses are ``Σ_i w_{y_i} l_i / B``, as CB-Focal's code has it. (LDAM's own CB-Focal has the
weight inside the focal factor too; here it is a factor of the loss, as Cui et al. define it.)
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from torch import Tensor

from trainables.networks import SCALE
from trainables.recipe import Epoch

Loss = Callable[[Tensor, Tensor], Tensor]  # (B, C), (B,) → ()


def loss_of(epoch: Epoch, counts: NDArray[np.int64], device: torch.device, dtype: torch.dtype = torch.float32) -> Loss:
    """The loss of an instruction over classes of these sizes, for logits of this type.

    Its constants are made on the host in float64, rounded once, and kept on the device.
    """
    n, args = torch.tensor(counts, dtype=torch.float64), epoch.loss_args
    weights = effective_number_weights(n, epoch.effective_number).to(device, dtype) if epoch.effective_number else None
    if epoch.loss == "focal":
        return lambda logits, labels: focal(logits, labels, weights, *args)
    if epoch.loss == "sigmoid_focal":
        return lambda logits, labels: sigmoid_focal(logits, labels, weights, *args)
    if epoch.loss == "ldam":
        margins = ldam_margins(n, *args).to(device, dtype)
        return lambda logits, labels: ldam(logits, labels, weights, margins, SCALE)
    if epoch.loss == "logit_adjusted":
        shift = (args[0] * (n / n.sum()).log()).to(device, dtype)
        return lambda logits, labels: F.cross_entropy(logits + shift, labels, weights)
    if epoch.loss == "label_aware_smoothing":
        smoothing, own_share = label_aware_smoothing(n, *args[:2]).to(device, dtype), bool(args[2])
        return lambda logits, labels: smoothed(logits, labels, weights, smoothing, own_share)
    assert epoch.loss == "cross_entropy", epoch.loss
    return lambda logits, labels: F.cross_entropy(logits, labels, weights)


def normaliser_of(
    epoch: Epoch, counts: NDArray[np.int64], device: torch.device, dtype: torch.dtype = torch.float32
) -> Callable[[Tensor], Tensor]:
    """What the mean of an instruction's loss divides by: labels (B,) → (), their number or their weights' sum."""
    if not epoch.effective_number or epoch.loss in ("focal", "sigmoid_focal"):
        return lambda labels: labels.new_full((), len(labels), dtype=dtype)
    weights = effective_number_weights(torch.tensor(counts, dtype=torch.float64), epoch.effective_number)
    weights = weights.to(device, dtype)
    return lambda labels: weights[labels].sum()


def effective_number_weights(n: Tensor, beta: float) -> Tensor:
    """Weights inverse to the effective number of samples: ``(1 - β) / (1 - β^n_j)``, normalised to sum C: (C,).

    Cui et al. (2019), eq. 2. β is close to 1: n is in float64, and `expm1` keeps what 1 - β^n would cancel.
    """
    weights = (1 - beta) / -torch.expm1(n * math.log(beta))
    return weights / weights.sum() * len(n)


def focal(logits: Tensor, labels: Tensor, weights: Tensor | None, gamma: float) -> Tensor:
    """Softmax focal loss ``(1 - p_y)^γ · -log p_y`` (Lin et al., 2017, as LDAM's code uses it)."""
    losses = F.cross_entropy(logits, labels, reduction="none")
    wrong = (-torch.expm1(-losses)).clamp(min=torch.finfo(losses.dtype).tiny)  # 0^γ has no slope where γ < 1
    losses = wrong**gamma * losses
    return (losses if weights is None else weights[labels] * losses).mean()


def sigmoid_focal(logits: Tensor, labels: Tensor, weights: Tensor | None, gamma: float) -> Tensor:
    """Focal loss of C binary problems, summed over the classes (Lin et al., 2017, as Cui et al., 2019, use it)."""
    right = logits * (2 * F.one_hot(labels, logits.shape[1]) - 1)  # of each class, the logit of what is true of it
    losses = ((gamma * F.logsigmoid(-right)).exp() * -F.logsigmoid(right)).sum(1)
    return (losses if weights is None else weights[labels] * losses).mean()


def ldam_margins(n: Tensor, largest: float) -> Tensor:
    """Margins ``m_j ∝ n_j^(-1/4)``, of which the largest is `largest` (Cao et al., 2019, eq. 13): (C,)."""
    return largest * (n.min() / n) ** 0.25


def ldam(logits: Tensor, labels: Tensor, weights: Tensor | None, margins: Tensor, scale: float) -> Tensor:
    """Label-distribution-aware margin loss: ``CE(s · (cos - m_y · 1_y))`` (Cao et al., 2019).

    Args:
        logits: of a cosine classifier, ``s · cos``: (B, C).
        labels: (B,).
        weights: (C,), or None.
        margins: m_j: (C,).
        scale: s.
    """
    shift = F.one_hot(labels, logits.shape[1]) * (scale * margins)
    return F.cross_entropy(logits - shift, labels, weights)


def label_aware_smoothing(n: Tensor, head: float, tail: float) -> Tensor:
    """ε_j between that of the largest and that of the smallest class: (C,). Zhong et al. (2021), eq. 5, concave form.

    ``ε_j = ε_C + (ε_1 - ε_C) · sin(π (n_j - n_C) / (2 (n_1 - n_C)))``; of equal classes each has the largest one's.
    """
    spread = n.max() - n.min()
    share = (n - n.min()) / spread if spread > 0 else torch.ones_like(n)
    return tail + (head - tail) * torch.sin(share * (math.pi / 2))


def smoothed(
    logits: Tensor, labels: Tensor, weights: Tensor | None, smoothing: Tensor, own_share: bool = False
) -> Tensor:
    """Cross-entropy to ``1 - ε_y`` on the label, ``ε_y / (C - 1)`` on each other class (Zhong et al., 2021, eq. 4).

    Their code gives each class, the label too, ``ε_y / C``, and the label ``1 - ε_y`` more; that is `own_share`.

    Args:
        logits: (B, C).
        labels: (B,).
        weights: (C,), or None.
        smoothing: ε_j: (C,).
        own_share: whether the label has its share of ε.
    """
    log_p = logits.log_softmax(1)
    own = log_p.gather(1, labels[:, None]).squeeze(1)
    epsilon = smoothing[labels]
    spread = log_p.mean(1) if own_share else (log_p.sum(1) - own) / (logits.shape[1] - 1)
    losses = -(1 - epsilon) * own - epsilon * spread
    if weights is None:
        return losses.mean()
    return (weights[labels] * losses).sum() / weights[labels].sum()
