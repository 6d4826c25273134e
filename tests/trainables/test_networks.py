import math

import pytest
import torch
from scipy.stats import kstest
from torch import nn

from trainables.networks import SHAPES, Block, build


def network(backbone="resnet32", channels=3, classes=10, seed=0):
    return build(backbone, channels, classes, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("classes", "parameters"), [(10, 464_154), (100, 470_004)])
def test_resnet32_has_the_published_number_of_parameters(classes, parameters):
    assert sum(p.numel() for p in network(classes=classes).parameters()) == parameters


@pytest.mark.parametrize(("backbone", "layers"), [("resnet8", 8), ("resnet32", 32)])
def test_a_backbone_has_the_depth_in_its_name(backbone, layers):
    assert sum(isinstance(part, (nn.Conv2d, nn.Linear)) for part in network(backbone).modules()) == layers


@pytest.mark.parametrize("backbone", SHAPES)
@pytest.mark.parametrize(("channels", "side", "classes"), [(1, 8, 10), (3, 32, 100)])
def test_images_in_logits_out(backbone, channels, side, classes):
    logits = network(backbone, channels, classes)(torch.randn(2, channels, side, side))
    assert logits.shape == (2, classes)
    assert logits.isfinite().all()


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


def test_the_weights_follow_from_the_seed_alone():
    one = network(seed=3).state_dict()
    torch.rand(1)  # the global stream moves on
    again, other = network(seed=3).state_dict(), network(seed=4).state_dict()
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not torch.equal(one["conv.weight"], other["conv.weight"])
    assert not torch.equal(one["classifier.bias"], other["classifier.bias"])


def test_weights_are_kaiming_normal():
    drawn = network(seed=int(torch.randint(2**31, ())))
    for part in drawn.modules():
        if isinstance(part, (nn.Conv2d, nn.Linear)):
            fan_in = part.weight[0].numel()
            tolerance = 6 / math.sqrt(2 * part.weight.numel())  # six standard errors
            assert part.weight.std().item() == pytest.approx(math.sqrt(2 / fan_in), rel=tolerance)
            assert kstest(part.weight.detach().flatten() / math.sqrt(2 / fan_in), "norm").pvalue > 1e-8
    assert drawn.classifier.bias.abs().max() <= 1 / 8
