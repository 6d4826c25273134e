import copy
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import safetensors.torch
import torch
from helpers import CUDA, EPOCH, SHORT, digits, learner, moved, snapshot, steps_of, train
from torch import nn

from trainables.data.datasets import facts
from trainables.data.resident import Arrays, LongTailed
from trainables.draws import draws
from trainables.learner import Learner
from trainables.loop import Diverged, advance, train_epoch
from trainables.losses.cross_entropy import CrossEntropy
from trainables.methods.bbn import Bilateral
from trainables.methods.mixup import Mixup
from trainables.network import add_scale
from trainables.parts import Backbone, Head
from trainables.recipe import Epoch, Recipe, first_key
from trainables.samplers import Purpose, epoch_order, generator
from trainables.schedule import epochs

# Stopping and resuming; that of every method is tested in test_every_method


def test_a_replicate_taken_up_after_any_epoch_has_the_same_bits_in_bf16():
    recipe = epochs(SHORT)
    assert len({(epoch.lr, epoch.sampler) for epoch in recipe}) == 4
    states, measures = train(learner(5, "bf16"), recipe)
    for done in range(1, len(recipe)):
        student = learner(5, "bf16")
        student.load(safetensors.torch.load(states[done - 1]))
        assert train(student, recipe, done) == (states[done:], measures[done:])


def test_another_seed_is_another_replicate():
    (states, _), (others, _) = train(learner(0), [EPOCH]), train(learner(1), [EPOCH])
    assert states != others


def test_a_state_is_weights_statistics_and_momentum():
    student = learner()
    state = snapshot(student)
    parameters = {name for name, _ in student.network.named_parameters()}
    assert {name for name in state if name.startswith("momentum.")} == {f"momentum.{name}" for name in parameters}
    stem = {"network.trunk.1.running_mean", "network.trunk.1.running_var", "network.trunk.1.num_batches_tracked"}
    assert stem < state.keys()
    train_epoch(student, digits(), EPOCH, 0)
    assert moved(state, student.state()) == state.keys()


# Names: a learner knows which state it is in


def test_a_learner_s_names_and_numbers_are_its_recipe_s_and_its_epochs_those_of_their_index():
    student, recipe = learner(5), Recipe(learner(5).origin, epochs(SHORT))
    _, expected = train(learner(5), recipe.epochs)
    names, numbers, measures = [student.key], [student.epochs], []
    for epoch in recipe.epochs:
        measures.append(advance(student, epoch, Path(), 1))
        names.append(student.key)
        numbers.append(student.epochs)
    assert tuple(names) == recipe.keys()
    assert len(set(names)) == len(names)
    assert numbers == list(range(len(recipe.epochs) + 1))
    assert measures == expected


def test_a_state_is_taken_up_with_its_name_and_its_number():
    student, again, recipe = learner(), learner(), Recipe(learner().origin, epochs(SHORT))
    for epoch in recipe.epochs[:3]:
        advance(student, epoch, Path(), 1)
    again.load(safetensors.torch.load(safetensors.torch.save(student.state())), student.key, student.epochs)
    following = [advance(each, recipe.epochs[3], Path(), 1) for each in (student, again)]
    assert following[0] == following[1]
    assert not moved(student.state(), again.state())
    assert (again.key, again.epochs) == (student.key, student.epochs) == (recipe.keys()[4], 4)


def test_another_origin_s_state_0_has_its_name():
    student, other = learner(0), learner(1).origin
    advance(student, EPOCH, Path(), 1)
    student.begin(other)
    assert (student.key, student.epochs) == (first_key(other), 0)
    assert advance(student, EPOCH, Path(), 1) == train(learner(1), [EPOCH])[1][0]
    assert student.key == Recipe(other, (EPOCH,)).keys()[1] != Recipe(learner(0).origin, (EPOCH,)).keys()[1]


def test_what_diverges_is_no_state_of_the_recipe():
    student = learner()
    with pytest.raises(Diverged):
        advance(student, replace(EPOCH, lr=1e20), Path(), 1)
    assert (student.key, student.epochs) == (first_key(student.origin), 0)


# One epoch


def random_data():
    """Return fifty random images of ten classes in the shape of digits, and the raw training images."""
    rng, counts = np.random.default_rng(), np.asarray([12, 9, 7, 6, 5, 4, 3, 2, 1, 1])
    images, test = (rng.integers(0, 17, (n, 1, 8, 8), dtype=np.uint8) for n in (50, 20))
    halves = np.arange(20) % 2 == 0
    arrays = Arrays(counts, images, test, np.repeat(np.arange(10), 2), halves)
    return LongTailed(facts("digits"), arrays, 1, torch.device("cpu")), images


def config_of(epoch):
    """Return a configuration of the network that an instruction trains."""
    return replace(SHORT, first="IB", switch="IB", mixture=epoch.mixture)


def slow_batches(data, images, epoch, sampler, replacement, seed, streams):
    """Yield the batches of an epoch, made image by image: lists of images, and of their labels."""
    order = epoch_order(data.counts, sampler, replacement, generator(seed, 3, streams[0])).tolist()
    while epoch.drop_last and len(order) % epoch.batch_size:
        order.pop()
    rng = generator(seed, 3, streams[1])
    top, left = rng.integers(0, 3, (2, len(order))).tolist()
    mirrored = (rng.random(len(order)) < 0.5).tolist() if epoch.flip else [False] * len(order)
    for start in range(0, len(order), epoch.batch_size):
        batch, places = [], range(len(order))[start : start + epoch.batch_size]
        for k in places:
            canvas = np.zeros((10, 10), dtype=np.float32)
            canvas[1:9, 1:9] = images[order[k], 0]
            image = canvas[top[k] : top[k] + 8, left[k] : left[k] + 8]
            image = image[:, ::-1] if mirrored[k] else image
            batch.append((image / 16 - 0.3053) / 0.3761)
        yield batch, [int(data.labels[order[k]]) for k in places]


def slow_loss(logits, labels, epoch, counts):
    """Return cross-entropy by its formula, weighted by the classes' effective numbers."""
    beta = epoch.effective_number
    weights = [(1 - beta) / (1 - beta**n) if beta else 1.0 for n in counts]
    logs = [row[label] - row.exp().sum().log() for row, label in zip(logits, labels, strict=True)]
    own = [weights[label] for label in labels]
    return -sum(w * log for w, log in zip(own, logs, strict=True)) / sum(own)


def count(norm, *_):
    norm.num_batches_tracked += 1


def slow_epoch(network, data, images, epoch, seed):
    """Train the epoch with index 3 in the simplest form, with torch's plain SGD."""
    if epoch.reinitialise == "scale":
        add_scale(network)
    trained = {
        "all": list(network.parameters()),
        "classifier": list(network.classifier.parameters()),
        "scale": [getattr(network.classifier, "scale", None)],
    }[epoch.trains]
    spared = [] if epoch.decay_bias else [network.classifier.bias]
    groups = [{"params": [p for p in trained if all(p is not bias for bias in spared)]}]
    groups += [{"params": spared, "weight_decay": 0.0}] if spared else []
    sgd = torch.optim.SGD(
        groups,
        lr=epoch.lr,
        momentum=epoch.momentum,
        nesterov=epoch.nesterov,
        weight_decay=epoch.weight_decay,
        foreach=False,
        fused=False,
    )
    network.train()
    for part in network.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.register_forward_hook(count)
    tensor = lambda batch: torch.tensor(np.stack(batch)[:, None])  # noqa: E731
    own = slow_batches(
        data, images, epoch, epoch.sampler, epoch.replacement, seed, (Purpose.ORDER, Purpose.AUGMENTATION)
    )
    other = slow_batches(data, images, epoch, -1.0, True, seed, (Purpose.REVERSED_ORDER, Purpose.REVERSED_AUGMENTATION))
    shares = generator(seed, 3, Purpose.MIXTURE)
    losses, hits = [], []
    for batch, labels in own:
        inputs, share, others = (tensor(batch),), 1.0, labels
        if isinstance(epoch.mixture, Bilateral):
            reversed_, others = next(other)
            share = epoch.mixture.alpha
            inputs = (tensor(batch), tensor(reversed_), (share, 1 - share))
        if isinstance(epoch.mixture, Mixup):
            share, others = shares.beta(epoch.mixture.a, epoch.mixture.a), labels[::-1]
            mixed = [share * one + (1 - share) * two for one, two in zip(batch, batch[::-1], strict=True)]
            inputs = (tensor(mixed).float(),)
        logits = network(*inputs)
        loss = share * slow_loss(logits, labels, epoch, data.counts.tolist())
        loss = loss + (1 - share) * slow_loss(logits, others, epoch, data.counts.tolist())
        sgd.zero_grad()
        loss.backward()
        sgd.step()
        losses += [loss.item()] * len(labels)
        told = [row.argmax().item() for row in logits]
        hits += [share * (a == b) + (1 - share) * (a == c) for a, b, c in zip(told, labels, others, strict=True)]
    return {"train/loss": np.mean(losses), "train/top1": 100 * np.mean(hits), "lr": epoch.lr}


@pytest.mark.parametrize(
    "setting",
    [
        {},
        {"sampler": -1.0},
        {"sampler": 0.0, "replacement": True},
        {"sampler": (0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0)},
        {"flip": True},
        {"momentum": 0.0},
        {"nesterov": True, "weight_decay": 0.1},
        {"weight_decay": 0.5, "decay_bias": False},
        {"drop_last": True},
        {"batch_size": 50},
        {"effective_number": 0.9},
        {"trains": "classifier"},
        {"trains": "scale", "reinitialise": "scale"},
        {"mixture": Mixup(0.2)},
        {"mixture": Mixup(1.0), "drop_last": True, "effective_number": 0.99},
        {"mixture": Bilateral(0.7)},
        {"mixture": Bilateral(0.2), "drop_last": True, "flip": True},
    ],
    ids=str,
)
def test_an_epoch_agrees_with_a_slow_one(setting, monkeypatch):
    # Rounding may turn a ReLU on or off, a jump of the gradient; in a smooth network it stays small.
    monkeypatch.setattr(torch.nn.functional, "relu", lambda x, inplace=False: torch.nn.functional.softplus(x))
    epoch = replace(EPOCH, **{"batch_size": 16, **setting})
    student, (data, images) = learner(int(torch.randint(1000, ())), config=config_of(epoch)), random_data()
    network = copy.deepcopy(student.network)
    measures = train_epoch(student, data, epoch, 3)
    expected = slow_epoch(network, data, images, epoch, student.origin.seed)
    assert measures == pytest.approx(expected, rel=1e-3)
    for name, tensor in network.state_dict().items():
        torch.testing.assert_close(student.network.state_dict()[name], tensor, rtol=1e-3, atol=1e-4, msg=name)


# The steps of an epoch


def steps(epoch, index=0):
    return steps_of(learner(config=config_of(epoch)), digits(), epoch, index)


def test_every_epoch_has_an_order_and_an_augmentation_of_its_own():
    first = [next(iter(steps(EPOCH, index)))[0][0] for index in range(20)]
    assert all(not torch.equal(one, other) for k, one in enumerate(first) for other in first[:k])


def test_mixup_moves_no_other_stream():
    for ((plain,), [(_, labels)]), ((mixed,), [(share, own), (rest, others)]) in zip(
        steps(EPOCH), steps(replace(EPOCH, mixture=Mixup(0.2))), strict=True
    ):
        assert torch.equal(own, labels)
        assert torch.equal(others, labels.flip(0))
        torch.testing.assert_close(mixed, share * plain + rest * plain.flip(0))
        assert share + rest == pytest.approx(1)


def test_batches_are_mixed_by_beta_distributed_shares():
    mixed, own = replace(EPOCH, mixture=Mixup(0.2)), learner().origin
    shares = [share for index in range(40) for share in draws(digits().counts, mixed, own, index).shares[0]]
    assert len(set(shares)) == len(shares) == 40 * 6
    assert np.mean(shares) == pytest.approx(0.5, abs=6 * 0.42 / math.sqrt(240))  # of Beta(.2, .2) std is .42
    assert np.std(shares) == pytest.approx(0.42, abs=0.08)


def test_bbn_s_first_branch_sees_what_a_plain_epoch_does_and_the_second_other_draws():
    # Even where both branches have one sampler: streams of their own.
    reversed_ = replace(EPOCH, sampler=-1.0, replacement=True)
    for ((plain,), [(_, labels)]), ((images, others, weights), targets) in zip(
        steps(reversed_), steps(replace(reversed_, mixture=Bilateral(0.7))), strict=True
    ):
        assert torch.equal(images, plain)
        (share, own), (rest, theirs) = targets
        assert torch.equal(own, labels)
        assert (*weights, share, rest) == pytest.approx((0.7, 0.3, 0.7, 0.3))
        assert not torch.equal(theirs, labels)
        assert not torch.equal(others, images)


def test_bbn_s_second_branch_sees_mostly_the_tail():
    seen = torch.cat(
        [theirs for index in range(20) for _, [_, (_, theirs)] in steps(replace(EPOCH, mixture=Bilateral(0.5)), index)]
    )
    counts = digits().counts
    wanted = (1 / counts) / (1 / counts).sum()
    assert (seen.bincount(minlength=10) / len(seen)).tolist() == pytest.approx(wanted.tolist(), abs=0.04)


@pytest.mark.parametrize("parts", [{}, {"sampler": 0.0}, {"mixture": Mixup(0.2)}, {"mixture": Bilateral(0.5)}])
def test_a_smaller_last_batch_is_trained_on_or_left_out(parts):
    sizes = {
        drop: [[len(labels) for _, labels in targets] for _, targets in steps(replace(EPOCH, drop_last=drop, **parts))]
        for drop in (True, False)
    }
    copies = 2 if "mixture" in parts else 1
    assert sizes[True] == [[64] * copies] * 5  # digits-LT at IF 50 has 342 training images
    assert sizes[False] == [[64] * copies] * 5 + [[22] * copies]


# What an instruction may ask for


def backbone_weights(student):
    names = {f"network.{name}" for name, _ in student.network.named_parameters()}
    return {name for name in names if not name.startswith("network.classifier")}


def statistics(state):
    return {name for name in state if "running_" in name}


def test_the_whole_network_is_trained_again_after_a_second_stage():
    student = learner()
    train_epoch(student, digits(), replace(EPOCH, trains="classifier", batch_norm="frozen"), 0)
    before = snapshot(student)
    train_epoch(student, digits(), EPOCH, 1)
    assert backbone_weights(student) | statistics(before) < moved(before, student.state())


def test_frozen_batch_norm_keeps_its_statistics_while_weights_are_trained():
    student = learner()
    before = snapshot(student)
    train_epoch(student, digits(), replace(EPOCH, batch_norm="frozen"), 0)
    changed = moved(before, student.state())
    assert not changed & statistics(before)
    assert backbone_weights(student) < changed


@pytest.mark.parametrize("device", ["cpu", CUDA])
def test_reinitialising_draws_a_classifier_from_seed_and_index_before_the_epoch(device):
    def second_stage(history, index):
        student = learner(device=device)
        train(student, history)
        before = snapshot(student)
        idle = Epoch(lr=0.0, crop=1, flip=False, reinitialise="classifier", batch_norm="frozen")
        train_epoch(student, digits(device), idle, index)
        changed = {name for name in moved(before, student.state()) if name.startswith("network.")}
        return changed, student.network.classifier.weight.detach().clone()

    changed, weight = second_stage([EPOCH], 1)
    assert changed == {"network.classifier.weight", "network.classifier.bias"}
    assert weight.std().item() == pytest.approx(math.sqrt(2 / 32), rel=0.3)
    assert torch.equal(weight, second_stage([EPOCH, EPOCH], 1)[1])
    assert not torch.equal(weight, second_stage([EPOCH], 2)[1])


def test_a_scale_survives_a_state_and_is_1_again_when_asked_for_anew():
    student = learner()
    train_epoch(student, digits(), replace(EPOCH, trains="scale", reinitialise="scale"), 0)
    assert (student.network.classifier.scale != 1).all()
    again = learner()
    again.load(safetensors.torch.load(safetensors.torch.save(student.state())))
    assert again.state().keys() == student.state().keys()
    assert not moved(student.state(), again.state())
    images, _, _ = next(digits().test_batches())
    student.network.eval(), again.network.eval()
    assert torch.equal(again.logits(images), student.logits(images))
    train_epoch(again, digits(), replace(EPOCH, lr=0.0, trains="scale", reinitialise="scale"), 1)
    assert (again.network.classifier.scale == 1).all()


def test_a_fresh_optimizer_forgets_the_momentum():
    fresh, emptied, kept = learner(), learner(), learner()
    states, _ = train(learner(), [EPOCH])
    for student in (fresh, emptied, kept):
        student.load(safetensors.torch.load(states[0]))
    for buffer in emptied.momentum.values():
        buffer.zero_()
    train_epoch(fresh, digits(), replace(EPOCH, fresh_optimizer=True), 1)
    train_epoch(emptied, digits(), EPOCH, 1)
    train_epoch(kept, digits(), EPOCH, 1)
    assert not moved(fresh.state(), emptied.state())
    assert backbone_weights(kept) < moved(fresh.state(), kept.state())


def test_a_network_learns():
    _, measures = train(learner(), [EPOCH] * 8)
    assert measures[-1]["train/loss"] < 0.5 * measures[0]["train/loss"]
    assert measures[-1]["test/top1"] > 40


# Networks of the user's own


@dataclass(frozen=True)
class Vectors(Backbone):
    """A fully connected network with dropout."""

    def layers(self, channels):
        return [nn.Flatten(), nn.Linear(64 * channels, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout()], 32


class Scaled(nn.Linear):
    """A linear map with a factor that is trained with it."""

    def __init__(self, features, classes):
        super().__init__(features, classes)
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x):
        return self.scale * super().forward(x)


@dataclass(frozen=True)
class OwnHead(Head):
    def build(self, features, classes):
        return Scaled(features, classes)


@dataclass(frozen=True)
class OwnLoss(CrossEntropy):
    head: ClassVar[OwnHead] = OwnHead()


@pytest.mark.parametrize("own", [{"backbone": Vectors()}, {"loss": OwnLoss()}], ids=["dropout", "scale"])
def test_a_network_of_one_s_own_has_the_same_bits_taken_up_after_any_epoch(own):
    config = replace(SHORT, **own)
    states, measures = train(learner(5, config=config), [EPOCH] * 3)
    for done in range(3):
        student = learner(5, config=config)
        if done:
            student.load(safetensors.torch.load(states[done - 1]))
        assert train(student, [EPOCH] * 3, done) == (states[done:], measures[done:]), done


def test_another_stage_begins_with_the_parameters_of_one_s_own_head():
    config = replace(SHORT, loss=OwnLoss())
    student, fresh = learner(0, config=config), learner(1, config=config)
    train(student, [EPOCH])
    student.begin(fresh.origin)
    assert "network.classifier.scale" in student.state()
    assert train(student, [EPOCH]) == train(fresh, [EPOCH])


def test_batch_norm_of_vectors_is_frozen_too():
    student = learner(config=replace(SHORT, backbone=Vectors()))
    before = snapshot(student)
    train_epoch(student, digits(), replace(EPOCH, batch_norm="frozen"), 0)
    assert not moved(before, student.state()) & statistics(before)


# Divergence, precision, devices


def test_the_origin_settles_the_arithmetic():
    torch.set_num_threads(2)
    torch.backends.cudnn.allow_tf32 = True
    student, backends = learner(), torch.backends
    assert torch.get_num_threads() == 1
    assert (backends.cudnn.allow_tf32, backends.cuda.matmul.allow_tf32, backends.cudnn.deterministic) == (0, 0, 1)
    backends.cudnn.deterministic = False
    student.begin(replace(student.origin, seed=1))  # another learner of the process may have settled its own
    assert backends.cudnn.deterministic


def test_tf32_is_allowed_where_the_origin_says_so():
    Learner(replace(learner().origin, precision="tf32"))
    try:
        assert torch.backends.cudnn.allow_tf32
        assert torch.backends.cuda.matmul.allow_tf32
    finally:
        learner()


def test_a_loss_that_is_no_number_is_an_error_that_says_where():
    with pytest.raises(Diverged, match=r"epoch 4 \(lr = 1e\+20\)"):
        train_epoch(learner(), digits(), replace(EPOCH, lr=1e20), 4)


def test_bf16_trains_other_bits_to_about_the_same_loss():
    (full, [exact]), (half, [rounded]) = (train(learner(0, precision), [EPOCH]) for precision in ("fp32", "bf16"))
    assert full != half
    assert rounded["train/loss"] == pytest.approx(exact["train/loss"], rel=0.1)
    assert {tensor.dtype for name, tensor in safetensors.torch.load(half[0]).items() if "weight" in name} == {
        torch.float32
    }
