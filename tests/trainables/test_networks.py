import math
from dataclasses import dataclass

import pytest
import torch
from scipy.stats import kstest
from torch import nn

from trainables import references
from trainables.layers import Block
from trainables.network import add_scale, build, initialise, redraw, remove_scale
from trainables.networks.cosine import Cosine
from trainables.networks.linear import Linear
from trainables.networks.rare import Rare
from trainables.networks.resnet8 import ResNet8
from trainables.networks.resnet32 import ResNet32
from trainables.networks.resnet50 import ResNet50
from trainables.networks.two_branches import TwoBranches
from trainables.parts import Backbone, Head
from trainables.references import BACKBONE, HEAD

HEADS = references.names(HEAD)
BACKBONES = references.names(BACKBONE)


def drawn_from(seed):
    return torch.Generator().manual_seed(seed)


def network(backbone="resnet32", head="linear", channels=3, classes=10, seed=0):
    """Return a network of parts or their names."""
    parts = references.construct(BACKBONE, backbone), references.construct(HEAD, head)
    return build(*parts, channels, classes, drawn_from(seed))


def parameters(module):
    return sum(p.numel() for p in module.parameters())


# Sizes


@pytest.mark.parametrize(
    ("head", "classes", "published"),
    [("linear", 10, 464_154), ("linear", 100, 470_004), ("two_branches", 10, 538_778), ("two_branches", 100, 550_388)],
)
def test_resnet32_and_bbn_upon_it_have_the_published_numbers_of_parameters(head, classes, published):
    assert parameters(network(head=head, classes=classes)) == published


LARGE = {  # parameters below the classifier, and those of the last residual block: two or three convolutions and norms
    "resnet50": ("resnet50", 23_508_032, 512 * (2048 + 9 * 512 + 2048) + 2 * (512 + 512 + 2048)),
    "resnext50": ("resnext50_32x4d", 22_979_904, 1024 * (2048 + 9 * 32 + 2048) + 2 * (1024 + 1024 + 2048)),
}


@pytest.mark.parametrize("backbone", LARGE)
def test_a_large_backbone_is_torchvision_s_with_another_classifier(backbone):
    from torchvision.models import resnet

    name, below, _ = LARGE[backbone]
    theirs = getattr(resnet, name)(num_classes=365).eval()
    ours = network(backbone, classes=365).eval()
    assert parameters(ours) == parameters(theirs) == below + 365 * (2048 + 1)
    own, copied = ours.state_dict(), theirs.state_dict()
    for tensor, other in zip(own.values(), copied.values(), strict=True):  # in the same order under other names
        tensor.copy_(other if other.ndim != 1 else other + torch.rand_like(other, dtype=torch.float))
        other.copy_(tensor)
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("backbone", LARGE)
def test_bbn_on_a_large_backbone_has_a_second_last_block_and_a_classifier_of_both(backbone):
    _, below, block = LARGE[backbone]
    with torch.device("meta"):
        made = network(backbone, "two_branches", classes=8142)
    assert parameters(made) == below + block + 8142 * (2 * 2048 + 1)


@pytest.mark.parametrize(
    ("backbone", "layers"), [("resnet8", 8), ("resnext11", 11), ("resnet32", 32), ("resnet50", 50)]
)
def test_a_backbone_has_the_depth_in_its_name(backbone, layers):
    parts = network(backbone).named_modules()
    assert sum(isinstance(part, (nn.Conv2d, nn.Linear)) and "downsample" not in name for name, part in parts) == layers


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("backbone", BACKBONES)
def test_images_in_logits_out(backbone, head):
    channels, side, classes = (1, 8, 10) if backbone in ("resnet8", "resnext11") else (3, 32, 100)
    logits = network(backbone, head, channels, classes).eval()(torch.randn(2, channels, side, side))
    assert logits.shape == (2, classes)
    assert logits.isfinite().all()


# Blocks


@pytest.mark.parametrize(("channels", "width", "stride"), [(4, 8, 2), (16, 32, 2), (8, 8, 1)])
def test_shortcut_a_subsamples_and_pads_channels_with_zeros(channels, width, stride):
    block = Block(channels, width, stride).eval()
    nn.init.zeros_(block.conv2.weight)  # of the block, the shortcut remains
    x = torch.randn(2, channels, 6, 6)
    with torch.no_grad():
        y = block(x)
    expected = torch.zeros(2, width, 6 // stride, 6 // stride)
    for c in range(channels):
        for i in range(6 // stride):
            for j in range(6 // stride):
                expected[:, (width - channels) // 2 + c, i, j] = x[:, c, stride * i, stride * j].clamp(min=0)
    assert torch.equal(y, expected)


def test_a_block_adds_its_convolutions_to_the_shortcut():
    block = Block(8, 8, 1).eval()
    x = torch.randn(2, 8, 6, 6)
    inner = nn.functional.conv2d(x, block.conv1.weight, padding=1) / math.sqrt(1 + 1e-5)
    inner = nn.functional.conv2d(inner.relu(), block.conv2.weight, padding=1) / math.sqrt(1 + 1e-5)
    torch.testing.assert_close(block(x), (x + inner).relu())


# Heads


def test_a_cosine_classifier_says_30_times_the_cosine():
    made = network(head="cosine").classifier
    assert made.weight.norm(dim=1).tolist() == pytest.approx([1.0] * 10)
    x = torch.randn(4, 64)
    made.weight.data.mul_(torch.rand(10, 1) + 0.5)  # lengths say nothing
    expected = [[30 * float(w @ f) / (float(w.norm()) * float(f.norm())) for w in made.weight.data] for f in x]
    torch.testing.assert_close(made(x), torch.tensor(expected), rtol=1e-4, atol=1e-4)


def test_a_rare_classifier_expects_one_class_in_c():
    bias = network(head="rare", classes=100).classifier.bias
    assert bias.sigmoid().tolist() == pytest.approx([0.01] * 100)


def test_a_scale_multiplies_each_class_s_logit_with_its_bias_and_begins_at_1():
    made = network("resnet8", channels=1).eval()
    x = torch.randn(3, 1, 8, 8)
    names = [name for name, _ in made.named_parameters()]
    plain = made(x)
    add_scale(made)
    assert torch.equal(made(x), plain)
    assert [name for name, _ in made.named_parameters() if name not in names] == ["classifier.scale"]
    factors = torch.rand(10)
    made.classifier.scale.data.copy_(factors)
    assert torch.equal(made(x), plain * factors)


# BBN


def branches(x, other, alpha):
    """Return BBN's logits by their formula, and by the network."""
    made = network("resnet8", "two_branches", channels=1, seed=int(torch.randint(1000, ()))).eval()
    uniform, reversed_ = made.last(made.trunk(x)).mean((2, 3)), made.reversed(made.trunk(other)).mean((2, 3))
    w_c, w_r = made.classifier.weight.split(32, dim=1)
    expected = 2 * (alpha * uniform @ w_c.T + (1 - alpha) * reversed_ @ w_r.T) + made.classifier.bias
    return made, expected


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_bbn_mixes_the_features_of_its_branches(alpha):
    x, other = torch.randn(2, 5, 1, 8, 8)
    made, expected = branches(x, other, alpha)
    torch.testing.assert_close(made(x, other, (alpha, 1 - alpha)), expected)


def test_bbn_infers_from_the_same_images_at_half():
    x = torch.randn(5, 1, 8, 8)
    made, expected = branches(x, x, 0.5)
    torch.testing.assert_close(made(x), expected)
    assert torch.equal(made(x), made(x, x, (0.5, 0.5)))


def test_with_alpha_1_the_reversed_branch_s_images_do_not_matter_and_with_0_the_others_do_not():
    x, one, another = torch.randn(3, 5, 1, 8, 8)
    made, _ = branches(x, one, 1.0)
    assert torch.equal(made(x, one, (1.0, 0.0)), made(x, another, (1.0, 0.0)))
    assert torch.equal(made(one, x, (0.0, 1.0)), made(another, x, (0.0, 1.0)))
    assert not torch.equal(made(x, one, (0.5, 0.5)), made(x, another, (0.5, 0.5)))


def test_the_branches_start_from_weights_of_their_own():
    made = network("resnet8", "two_branches", channels=1)
    one, other = made.last.state_dict(), made.reversed.state_dict()
    assert one.keys() == other.keys()
    assert not torch.equal(one["conv1.weight"], other["conv1.weight"])


# Weights


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("backbone", ["resnet8", "resnext11"])
def test_the_weights_follow_from_the_seed_alone(backbone, head):
    one = network(backbone, head, seed=3).state_dict()
    torch.rand(1)  # the global stream moves on
    again, other = network(backbone, head, seed=3).state_dict(), network(backbone, head, seed=4).state_dict()
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not torch.equal(one["trunk.0.weight"], other["trunk.0.weight"])
    assert not torch.equal(one["classifier.weight"], other["classifier.weight"])


def test_a_head_does_not_change_the_weights_below_it():
    linear, cosine, rare = (network("resnet8", head, seed=3).state_dict() for head in ("linear", "cosine", "rare"))
    for name in linear:
        assert name.startswith("classifier") or torch.equal(linear[name], cosine[name]), name
        assert name == "classifier.bias" or torch.equal(linear[name], rare[name]), name


@pytest.mark.parametrize("backbone", ["resnet32", "resnext11"])
def test_weights_are_kaiming_normal(backbone):
    drawn = network(backbone, seed=int(torch.randint(2**31, ())))
    for part in drawn.modules():
        if isinstance(part, (nn.Conv2d, nn.Linear)):
            fan_in = part.weight[0].numel()
            tolerance = 6 / math.sqrt(2 * part.weight.numel())  # six standard errors
            assert part.weight.std().item() == pytest.approx(math.sqrt(2 / fan_in), rel=tolerance)
            assert kstest(part.weight.detach().flatten() / math.sqrt(2 / fan_in), "norm").pvalue > 1e-8
    assert drawn.classifier.bias.abs().max() <= 1 / math.sqrt(drawn.classifier.in_features)


@pytest.mark.parametrize("backbone", LARGE)
def test_the_weights_of_large_networks_are_drawn_as_torchvision_s(backbone):
    """Check layer by layer the spread of convolutions and the range of the classifier; norms are 1 and 0."""
    from torchvision.models import resnet

    ours, theirs = network(backbone, classes=365), getattr(resnet, LARGE[backbone][0])(num_classes=365)
    pairs = zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True)
    for own, other in pairs:
        if own.ndim == 4:
            assert own.std().item() == pytest.approx(other.std().item(), rel=12 / math.sqrt(2 * own.numel()))
        elif own.ndim == 2:
            bound = 1 / math.sqrt(2048)
            assert other.abs().max() <= bound
            assert kstest(own.flatten(), "uniform", (-bound, 2 * bound)).pvalue > 1e-8
        else:
            assert torch.equal(own, other) or own.numel() == 365  # norms; the classifier's bias is random
    stem = ours.trunk[0].weight
    assert stem.std().item() == pytest.approx(math.sqrt(2 / (64 * 7 * 7)), rel=0.05), "by the fan-out, not the fan-in"


def test_linear_maps_are_drawn_as_the_backbone_says():
    for backbone, largest in ((ResNet32(), None), (ResNet50(), 1 / math.sqrt(64))):
        fresh = nn.Linear(64, 100)
        initialise(fresh, drawn_from(1), backbone)
        if largest is None:
            assert kstest(fresh.weight.detach().flatten() / math.sqrt(2 / 64), "norm").pvalue > 1e-8
        else:
            assert fresh.weight.abs().max() <= largest
            assert kstest(fresh.weight.detach().flatten(), "uniform", (-largest, 2 * largest)).pvalue > 1e-8


@pytest.mark.parametrize("head", [Linear(), Cosine(), Rare(), TwoBranches()], ids=references.title)
def test_a_classifier_is_drawn_anew_from_its_stream_alone(head):
    networks = [build(ResNet8(), head, 1, 10, drawn_from(seed)) for seed in (1, 2)]
    classifiers = [each.classifier for each in networks]
    before = [[tensor.clone() for tensor in each.state_dict().values()] for each in classifiers]
    for own in networks:
        redraw(own, ResNet8(), head, drawn_from(3))
        torch.rand(1)  # the global stream moves on
    after = [list(each.state_dict().values()) for each in classifiers]
    assert all(map(torch.equal, *after))
    for old, new in zip(before, after, strict=True):
        assert [(a.shape, torch.equal(a, b)) for a, b in zip(old, new, strict=True)] == [(b.shape, False) for b in new]


def test_a_classifier_that_is_drawn_anew_keeps_its_scale():
    own = network("resnet8", channels=1)
    add_scale(own)
    factors = torch.rand(10)
    own.classifier.scale.data.copy_(factors)
    weight = own.classifier.weight.detach().clone()
    redraw(own, ResNet8(), Linear(), drawn_from(1))
    assert torch.equal(own.classifier.scale, factors)
    assert not torch.equal(own.classifier.weight, weight)
    remove_scale(own)
    assert "classifier.scale" not in own.state_dict()


# Parts of the user's own


@dataclass(frozen=True)
class Flat(Backbone):
    """Features (B, d) by weights that the constructor draws."""

    width: int = 12

    def layers(self, channels):
        """Return features of images of 8 × 8 pixels."""
        return [nn.Flatten(), Projection(channels * 64, self.width)], self.width


class Projection(nn.Module):
    def __init__(self, pixels, features):
        super().__init__()
        self.matrix = nn.Parameter(torch.randn(features, pixels))

    def forward(self, x):
        return x @ self.matrix.T


@dataclass(frozen=True)
class Deep(Head):
    """A hidden layer between features and logits; initially the logit of a class is its rank."""

    hidden: int = 7

    def build(self, features, classes):
        return nn.Sequential(nn.Linear(features, self.hidden), nn.ReLU(), nn.Linear(self.hidden, classes))

    def start(self, classifier, classes):
        classifier[2].bias.data.copy_(torch.arange(classes))


def test_a_backbone_may_give_features_and_what_its_constructor_draws_follows_from_the_seed():
    one = network(Flat(width=9), channels=1, seed=3)
    torch.rand(1)
    again, other = network(Flat(width=9), channels=1, seed=3), network(Flat(width=9), channels=1, seed=4)
    assert torch.equal(one.last.matrix, again.last.matrix)
    assert not torch.equal(one.last.matrix, other.last.matrix)
    x = torch.randn(2, 1, 8, 8)
    expected = x.flatten(1) @ one.last.matrix.T @ one.classifier.weight.T + one.classifier.bias
    torch.testing.assert_close(one(x), expected)


def test_building_and_drawing_anew_leave_the_process_s_own_random_numbers_alone():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    own = network(Flat(), channels=1)
    redraw(own, Flat(), Linear(), drawn_from(1))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_head_decides_what_its_classifier_starts_from():
    assert network(Flat(), Deep(), channels=1).classifier[2].bias.tolist() == list(range(10))


def test_a_head_of_several_layers_is_drawn_anew():
    own = network(Flat(), Deep(), channels=1)
    before = {name: tensor.clone() for name, tensor in own.classifier.state_dict().items()}
    redraw(own, Flat(), Deep(), drawn_from(1))
    after = own.classifier.state_dict()
    assert not any(torch.equal(before[name], after[name]) for name in before)


def test_a_narrower_and_shallower_resnet32_is_resnet8():
    own, other = network(ResNet32(blocks=1, width=8), seed=3), network(ResNet8(), seed=3)
    assert all(map(torch.equal, own.state_dict().values(), other.state_dict().values()))


@pytest.mark.parametrize("width", [2, 3])
def test_resnet32_may_be_as_narrow_as_it_says(width):
    assert network(ResNet32(blocks=1, width=width)).eval()(torch.randn(2, 3, 8, 8)).shape == (2, 10)
