import math
from decimal import Decimal, localcontext

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trainables import recipe
from trainables.losses import effective_number_weights, label_aware_smoothing, ldam_margins, loss_of
from trainables.recipe import Epoch

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


def ldam(z, y, n, largest):
    scale = 30.0
    margin = largest * n[y] ** -0.25 / min(n) ** -0.25
    return cross_entropy([each - scale * margin * (j == y) for j, each in enumerate(z)], y, n)


def logit_adjusted(z, y, n, tau):
    return cross_entropy([each + tau * math.log(size / sum(n)) for each, size in zip(z, n, strict=True)], y, n)


def smoothed(z, y, n, head, tail, own_share):
    share = (n[y] - n[-1]) / (n[0] - n[-1]) if n[0] > n[-1] else 1.0
    epsilon = tail + (head - tail) * math.sin(math.pi / 2 * share)
    if own_share:  # MiSLAS, methods.py: every class has ε / C, and the label 1 - ε more
        wanted = [(1 - epsilon) * (j == y) + epsilon / len(z) for j in range(len(z))]
    else:  # its paper's eq. 4
        wanted = [1 - epsilon if j == y else epsilon / (len(z) - 1) for j in range(len(z))]
    assert sum(wanted) == pytest.approx(1)
    return sum(q * cross_entropy(z, j, n) for j, q in enumerate(wanted))


LOSSES = {
    "cross_entropy": (cross_entropy, [()]),
    "focal": (focal, [(0.0,), (0.5,), (1.0,), (2.0,)]),
    "sigmoid_focal": (sigmoid_focal, [(0.0,), (0.5,), (1.0,), (2.0,)]),
    "ldam": (ldam, [(0.5,), (0.3,)]),
    "logit_adjusted": (logit_adjusted, [(1.0,), (-0.5,)]),
    "label_aware_smoothing": (smoothed, [(0.4, 0.1, 0.0), (0.0, 0.3, 0.0), (0.4, 0.1, 1.0)]),
}
EACH = [pytest.param(name, args, id=f"{name}{args}") for name, (_, choices) in LOSSES.items() for args in choices]


def weights_of(n, beta):
    """Exact to 50 digits, normalised to sum C."""
    with localcontext(prec=50):
        raw = [(1 - Decimal(beta)) / (1 - Decimal(beta) ** size) for size in n]
        return [float(weight / sum(raw) * len(n)) for weight in raw]


def slow(name, args, beta, z, labels, n):
    """The loss of a batch, image by image."""
    weights = weights_of(n, beta) if beta else [1.0] * len(n)
    losses = [weights[y] * LOSSES[name][0](row, y, n, *args) for row, y in zip(z, labels, strict=True)]
    return sum(losses) / (len(losses) if "focal" in name else sum(weights[y] for y in labels))


def batch(n, seed):
    """Random logits of 16 images, whose labels are of some of the classes: the others are absent from the batch."""
    rng = np.random.default_rng(seed)
    present = rng.choice(len(n), size=rng.integers(1, len(n) + 1), replace=False)
    return rng.normal(scale=3.0, size=(16, len(n))), rng.choice(present, size=16)


def loss(name, args=(), n=CIFAR10, beta=0.0, dtype=torch.float64):
    return loss_of(Epoch(lr=0.1, loss=name, loss_args=args, effective_number=beta), np.asarray(n), CPU, dtype)


def test_every_loss_has_a_formula_above():
    assert LOSSES.keys() == set(recipe._CHOICES["loss"])


@pytest.mark.parametrize("beta", [0.0, 0.9, 0.9999])
@pytest.mark.parametrize(("name", "args"), EACH)
@settings(deadline=None, max_examples=10)
@given(n=sizes, seed=seeds)
def test_a_loss_agrees_with_its_formula(name, args, beta, n, seed):
    z, labels = batch(n, seed)
    found = loss(name, args, n, beta)(torch.from_numpy(z), torch.from_numpy(labels))
    assert found.dtype == torch.float64
    assert found.item() == pytest.approx(slow(name, args, beta, z.tolist(), labels.tolist(), n), rel=1e-9)


@pytest.mark.parametrize(("name", "args"), EACH)
def test_the_slope_is_that_of_the_value(name, args):
    n = (40, 9, 3, 1, 1)
    z, labels = batch(n, seed=None)
    function = loss(name, args, n, beta=0.99)
    own = torch.from_numpy(z).requires_grad_()
    assert torch.autograd.gradcheck(lambda logits: function(logits, torch.from_numpy(labels)), own)


@pytest.mark.parametrize("beta", [0.0, 0.9999])
@pytest.mark.parametrize(("name", "args"), EACH)
def test_in_single_precision_it_is_the_same_but_for_rounding(name, args, beta):
    z, labels = batch(CIFAR10, seed=None)
    expected = slow(name, args, beta, z.tolist(), labels.tolist(), CIFAR10)
    found = loss(name, args, CIFAR10, beta, torch.float32)(torch.from_numpy(z).float(), torch.from_numpy(labels))
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("beta", [0.0, 0.9999])
@pytest.mark.parametrize(("name", "args"), EACH)
def test_sure_predictions_have_finite_losses_and_slopes(name, args, beta):
    # In single precision the softmax of 200 against -200 is 1 exactly, and so is the sigmoid of 200.
    sure = 200 * (2 * torch.eye(10) - 1)
    for labels in (torch.arange(10), torch.arange(10).roll(1)):
        z = sure.clone().requires_grad_()
        found = loss(name, args, CIFAR10, beta, torch.float32)(z, labels)
        found.backward()
        assert found.isfinite()
        assert z.grad.isfinite().all()


# Identities


def same(one, other):
    z, labels = map(torch.from_numpy, batch(CIFAR10, seed=None))
    torch.testing.assert_close(one(z, labels), other(z, labels), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "other",
    [
        loss("focal", (0.0,)),
        loss("ldam", (0.0,)),
        loss("logit_adjusted", (0.0,)),
        loss("logit_adjusted", (1.7,), n=(30,) * 10),
        loss("label_aware_smoothing", (0.0, 0.0, 0.0)),
        loss("label_aware_smoothing", (0.0, 0.0, 1.0)),
        loss("cross_entropy", beta=0.9999, n=(30,) * 10),
        loss("cross_entropy", beta=1e-9),
    ],
)
def test_without_its_constant_or_with_equal_classes_a_loss_is_cross_entropy(other):
    same(other, torch.nn.functional.cross_entropy)


def test_logit_adjustment_with_tau_1_is_balanced_softmax():
    log_n = torch.tensor(CIFAR10, dtype=torch.float64).log()  # Ren et al. (2020): the softmax of z + log n
    same(loss("logit_adjusted", (1.0,)), lambda z, labels: torch.nn.functional.cross_entropy(z + log_n, labels))


def test_equal_smoothing_of_all_classes_is_label_smoothing():
    # torch spreads ε over all C classes, this loss over the C - 1 others.
    usual = torch.nn.CrossEntropyLoss(label_smoothing=0.1 * 10 / 9)
    same(loss("label_aware_smoothing", (0.1, 0.1, 0.0)), usual)


def test_sigmoid_focal_with_gamma_0_is_the_sum_of_binary_cross_entropies():
    def binary(z, labels):
        target = torch.nn.functional.one_hot(labels, 10).double()
        return torch.nn.functional.binary_cross_entropy_with_logits(z, target) * 10

    same(loss("sigmoid_focal", (0.0,)), binary)


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
    assert ldam_margins(torch.tensor([1296.0, 256.0, 16.0, 1.0]), 0.6).tolist() == pytest.approx([0.1, 0.15, 0.3, 0.6])
    assert ldam_margins(torch.tensor([500.0, 16.0, 16.0]), 0.5).tolist()[1:] == [0.5, 0.5]


def test_smoothing_runs_from_the_largest_class_s_to_the_smallest_one_s():
    epsilon = label_aware_smoothing(torch.tensor(CIFAR10, dtype=torch.float64), 0.4, 0.1)
    assert epsilon[[0, -1]].tolist() == pytest.approx([0.4, 0.1])
    assert (epsilon.diff() < 0).all()
    between = (epsilon[0] + epsilon[-1]) / 2  # at a third of the sizes' range, for sin 30° = ½
    third = label_aware_smoothing(torch.tensor([4.0, 2.0, 1.0], dtype=torch.float64), 0.4, 0.1)[1]
    torch.testing.assert_close(third, between)


def test_equal_classes_have_equal_smoothing():
    assert label_aware_smoothing(torch.full((3,), 7.0), 0.4, 0.1).tolist() == pytest.approx([0.4] * 3)
