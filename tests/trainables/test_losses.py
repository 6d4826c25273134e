import math
from dataclasses import dataclass
from decimal import Decimal, localcontext
from typing import ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trainables import references
from trainables.losses.cross_entropy import CrossEntropy
from trainables.losses.focal import Focal
from trainables.losses.label_aware_smoothing import LabelAwareSmoothing
from trainables.losses.ldam import LDAM
from trainables.losses.logit_adjusted import LogitAdjusted
from trainables.losses.sigmoid_focal import SigmoidFocal
from trainables.networks.cosine import Cosine
from trainables.recipe import Epoch
from trainables.steps import effective_number_weights, loss_of

CPU = torch.device("cpu")
CIFAR10 = (5000, 3237, 2096, 1357, 878, 568, 368, 238, 154, 100)  # at IF 50

seeds = st.integers(0, 2**32 - 1)
sizes = st.lists(st.integers(1, 5000), min_size=2, max_size=12).map(lambda n: sorted(n, reverse=True))


# The formulae, for one image: z its logits, y its label, n the classes' sizes.


def cross_entropy(z, y, n):
    return math.log(sum(math.exp(each) for each in z)) - z[y]


def focal(z, y, n, gamma):
    p = math.exp(-cross_entropy(z, y, n))
    return (1 - p) ** gamma * -math.log(p)


def sigmoid_focal(z, y, n, gamma):
    total = 0.0
    for j, each in enumerate(z):
        p = 1 / (1 + math.exp(-each))
        true = p if j == y else 1 - p
        total += (1 - true) ** gamma * -math.log(true)
    return total


def ldam(z, y, n, max_margin, scale=30.0):
    margin = max_margin * n[y] ** -0.25 / min(n) ** -0.25
    return cross_entropy([each - scale * margin * (j == y) for j, each in enumerate(z)], y, n)


def logit_adjusted(z, y, n, tau):
    return cross_entropy([each + tau * math.log(size / sum(n)) for each, size in zip(z, n, strict=True)], y, n)


def label_aware_smoothing(z, y, n, largest, smallest, share):
    place = (n[y] - n[-1]) / (n[0] - n[-1]) if n[0] > n[-1] else 1.0
    epsilon = smallest + (largest - smallest) * math.sin(math.pi / 2 * place)
    if share == "all":  # MiSLAS, methods.py: every class has ε / C, and the label 1 - ε more
        wanted = [(1 - epsilon) * (j == y) + epsilon / len(z) for j in range(len(z))]
    else:  # its paper's eq. 4
        wanted = [1 - epsilon if j == y else epsilon / (len(z) - 1) for j in range(len(z))]
    assert sum(wanted) == pytest.approx(1)
    return sum(q * cross_entropy(z, j, n) for j, q in enumerate(wanted))


FORMULAE = {
    CrossEntropy: cross_entropy,
    Focal: focal,
    SigmoidFocal: sigmoid_focal,
    LDAM: ldam,
    LogitAdjusted: logit_adjusted,
    LabelAwareSmoothing: label_aware_smoothing,
}
EACH = [
    CrossEntropy(),
    *(kind(gamma=gamma) for kind in (Focal, SigmoidFocal) for gamma in (0.0, 0.5, 1.0, 2.0)),
    *(LDAM(max_margin=largest) for largest in (0.5, 0.3)),
    *(LogitAdjusted(tau=tau) for tau in (1.0, -0.5)),
    *(LabelAwareSmoothing(*epsilon) for epsilon in ((0.4, 0.1), (0.0, 0.3), (0.4, 0.1, "all"))),
]
every = pytest.mark.parametrize("part", EACH, ids=references.title)


def weights_of(n, beta):
    """Return the weights exact to 50 digits, normalised to sum C."""
    with localcontext(prec=50):
        raw = [(1 - Decimal(beta)) / (1 - Decimal(beta) ** size) for size in n]
        return [float(weight / sum(raw) * len(n)) for weight in raw]


def slow(part, beta, z, labels, n):
    """Return the loss of a batch, image by image."""
    formula, parameters = FORMULAE[type(part)], references.values(part)
    weights = weights_of(n, beta) if beta else [1.0] * len(n)
    losses = [weights[y] * formula(row, y, n, **parameters) for row, y in zip(z, labels, strict=True)]
    return sum(losses) / (len(losses) if isinstance(part, (Focal, SigmoidFocal)) else sum(weights[y] for y in labels))


def batch(n, seed):
    """Return random logits of 16 images with labels of some classes; the other classes are absent from the batch."""
    rng = np.random.default_rng(seed)
    present = rng.choice(len(n), size=rng.integers(1, len(n) + 1), replace=False)
    return rng.normal(scale=3.0, size=(16, len(n))), rng.choice(present, size=16)


def both(part, n=CIFAR10, beta=0.0, dtype=torch.float64):
    """Return a loss over classes of these sizes, and the divisor of its mean."""
    return loss_of(Epoch(lr=0.1, loss=part, effective_number=beta), np.asarray(n), CPU, dtype)


def loss(*given, **others):
    return both(*given, **others)[0]


def test_every_loss_has_a_formula_above():
    assert {references.reference(kind()) for kind in FORMULAE} == set(references.names(references.LOSS))
    assert {type(part) for part in EACH} == set(FORMULAE)


@pytest.mark.parametrize("beta", [0.0, 0.9, 0.9999])
@every
@settings(deadline=None, max_examples=10)
@given(n=sizes, seed=seeds)
def test_a_loss_agrees_with_its_formula(part, beta, n, seed):
    z, labels = batch(n, seed)
    found = loss(part, n, beta)(torch.from_numpy(z), torch.from_numpy(labels))
    assert found.dtype == torch.float64
    assert found.item() == pytest.approx(slow(part, beta, z.tolist(), labels.tolist(), n), rel=1e-9)


@every
def test_the_slope_is_that_of_the_value(part):
    n = (40, 9, 3, 1, 1)
    z, labels = batch(n, seed=None)
    function = loss(part, n, beta=0.99)
    own = torch.from_numpy(z).requires_grad_()
    assert torch.autograd.gradcheck(lambda logits: function(logits, torch.from_numpy(labels)), own)


@pytest.mark.parametrize("beta", [0.0, 0.9999])
@every
def test_in_single_precision_it_is_the_same_but_for_rounding(part, beta):
    z, labels = batch(CIFAR10, seed=None)
    expected = slow(part, beta, z.tolist(), labels.tolist(), CIFAR10)
    found = loss(part, CIFAR10, beta, torch.float32)(torch.from_numpy(z).float(), torch.from_numpy(labels))
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("beta", [0.0, 0.9999])
@every
def test_sure_predictions_have_finite_losses_and_slopes(part, beta):
    # In single precision the softmax of 200 against -200 is 1 exactly, and so is the sigmoid of 200.
    sure = 200 * (2 * torch.eye(10) - 1)
    for labels in (torch.arange(10), torch.arange(10).roll(1)):
        z = sure.clone().requires_grad_()
        found = loss(part, CIFAR10, beta, torch.float32)(z, labels)
        found.backward()
        assert found.isfinite()
        assert z.grad.isfinite().all()


# The mean


@pytest.mark.parametrize("beta", [0.0, 0.99])
@every
@settings(deadline=None, max_examples=10)
@given(seed=seeds, cut=st.integers(1, 15))
def test_a_batch_s_loss_is_that_of_its_parts_by_what_they_divide_by(part, beta, seed, cut):
    z, labels = map(torch.from_numpy, batch(CIFAR10, seed))
    function, normaliser = both(part, beta=beta)
    whole = function(z, labels) * normaliser(labels)
    parts = [function(z[own], labels[own]) * normaliser(labels[own]) for own in (slice(cut), slice(cut, None))]
    torch.testing.assert_close(sum(parts), whole, rtol=1e-12, atol=1e-12)


def test_what_a_mean_divides_by_is_the_number_of_images_or_the_sum_of_their_weights():
    labels = torch.tensor([0, 9, 9])
    weights = weights_of(CIFAR10, 0.99)
    for part, beta, expected in (
        (CrossEntropy(), 0.0, 3.0),
        (CrossEntropy(), 0.99, weights[0] + 2 * weights[9]),
        (Focal(), 0.99, 3.0),
    ):
        found = both(part, beta=beta)[1](labels)
        assert found.dtype == torch.float64
        assert found.item() == pytest.approx(expected)


# Identities


def same(one, other):
    z, labels = map(torch.from_numpy, batch(CIFAR10, seed=None))
    torch.testing.assert_close(one(z, labels), other(z, labels), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "other",
    [
        loss("focal(gamma=0)"),
        loss("ldam(max_margin=0)"),
        loss("logit_adjusted(tau=0)"),
        loss("logit_adjusted(tau=1.7)", n=(30,) * 10),
        loss(LabelAwareSmoothing(0.0, 0.0)),
        loss(LabelAwareSmoothing(0.0, 0.0, share="all")),
        loss("cross_entropy", beta=0.9999, n=(30,) * 10),
        loss("cross_entropy", beta=1e-9),
    ],
)
def test_without_its_constant_or_with_equal_classes_a_loss_is_cross_entropy(other):
    same(other, torch.nn.functional.cross_entropy)


def test_logit_adjustment_with_tau_1_is_balanced_softmax():
    log_n = torch.tensor(CIFAR10, dtype=torch.float64).log()  # Ren et al. (2020): the softmax of z + log n
    same(loss(LogitAdjusted(tau=1.0)), lambda z, labels: torch.nn.functional.cross_entropy(z + log_n, labels))


def test_equal_smoothing_of_all_classes_is_label_smoothing():
    # torch spreads ε over all C classes, this loss over the C - 1 others.
    usual = torch.nn.CrossEntropyLoss(label_smoothing=0.1 * 10 / 9)
    same(loss(LabelAwareSmoothing(0.1, 0.1)), usual)


def test_sigmoid_focal_with_gamma_0_is_the_sum_of_binary_cross_entropies():
    def binary(z, labels):
        target = torch.nn.functional.one_hot(labels, 10).double()
        return torch.nn.functional.binary_cross_entropy_with_logits(z, target) * 10

    same(loss(SigmoidFocal(gamma=0.0)), binary)


# Constants of classes


@pytest.mark.parametrize("beta", [0.5, 0.99, 0.9999, 0.999999, 1 - 2**-52])
@settings(deadline=None)
@given(n=sizes)
def test_effective_number_weights_are_exact(beta, n):
    found = effective_number_weights(torch.tensor(n, dtype=torch.float64), beta)
    assert found.tolist() == pytest.approx(weights_of(n, beta), rel=1e-12)
    assert found.sum().item() == pytest.approx(len(n))


def test_the_effective_number_lies_between_one_and_all():
    n = torch.tensor([1000.0, 10.0], dtype=torch.float64)
    for beta, ratio in ((1e-9, 1.0), (1 - 1e-9, 100.0)):  # of the small class's weight to the large one's
        large, small = effective_number_weights(n, beta).tolist()
        assert small / large == pytest.approx(ratio, rel=1e-5)


def test_margins_fall_with_the_fourth_root_of_the_size():
    assert LDAM(max_margin=0.6).margins(torch.tensor([1296.0, 256.0, 16.0, 1.0])).tolist() == pytest.approx(
        [0.1, 0.15, 0.3, 0.6]
    )
    assert LDAM().margins(torch.tensor([500.0, 16.0, 16.0])).tolist()[1:] == [0.5, 0.5]


def test_smoothing_runs_from_the_largest_class_s_to_the_smallest_one_s():
    epsilon = LabelAwareSmoothing(0.4, 0.1).epsilon(torch.tensor(CIFAR10, dtype=torch.float64))
    assert epsilon[[0, -1]].tolist() == pytest.approx([0.4, 0.1])
    assert (epsilon.diff() < 0).all()
    between = (epsilon[0] + epsilon[-1]) / 2  # at a third of the sizes' range, for sin 30° = ½
    third = LabelAwareSmoothing(0.4, 0.1).epsilon(torch.tensor([4.0, 2.0, 1.0], dtype=torch.float64))[1]
    torch.testing.assert_close(third, between)


def test_equal_classes_have_equal_smoothing():
    assert LabelAwareSmoothing(0.4, 0.1).epsilon(torch.full((3,), 7.0)).tolist() == pytest.approx([0.4] * 3)


@dataclass(frozen=True)
class Gentle(LDAM):
    head: ClassVar[Cosine] = Cosine(scale=10.0)


def test_ldam_s_margins_count_by_the_scale_of_its_head():
    z, labels = batch(CIFAR10, seed=None)
    expected = [ldam(row, y, CIFAR10, 0.5, scale=10.0) for row, y in zip(z.tolist(), labels.tolist(), strict=True)]
    found = loss(Gentle())(torch.from_numpy(z), torch.from_numpy(labels))
    assert found.item() == pytest.approx(sum(expected) / len(expected), rel=1e-9)
