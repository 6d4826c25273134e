import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import safetensors.torch
import torch

from trainables import loop
from trainables.config import base
from trainables.data import LongTailed, load
from trainables.datasets import DATASETS
from trainables.loop import Diverged, Learner, evaluate, train_epoch
from trainables.methods import switching
from trainables.recipe import Epoch, origin

CUDA = pytest.param(
    "cuda",
    marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")],
)
SHORT = replace(base("digits"), epochs=6, milestones=(3,), S=1, warmup=2)  # warm-up, decay at 3, CR from 4
EPOCH = Epoch(lr=0.05, crop=1, flip=False)


def learner(seed=0, precision="fp32", device="cpu"):
    return Learner(origin(replace(SHORT, seed=seed, precision=precision), device, 1))


def digits(device="cpu"):
    return load("digits", 50.0, 0, 0, 1, device, None)


def train(student, epochs, first=0, data=None):
    """Train from index `first` on; the state after each epoch as a file's bytes, and its measures."""
    data = digits() if data is None else data
    states, measures = [], []
    for index, epoch in enumerate(epochs[first:], first):
        measures.append(train_epoch(student, data, epoch, index) | evaluate(student, data, epoch))
        states.append(safetensors.torch.save(student.state()))
    return states, measures


def snapshot(student):
    return {name: tensor.clone() for name, tensor in student.state().items()}


def moved(before, after):
    """The tensors that an epoch changed."""
    return {name for name in before if not torch.equal(before[name], after[name])}


# Stopping and resuming


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_replicate_taken_up_after_any_epoch_has_the_same_bits(precision):
    epochs = switching(SHORT)
    assert len({(epoch.lr, epoch.sampler) for epoch in epochs}) == 4
    states, measures = train(learner(5, precision), epochs)
    for done in range(1, len(epochs)):
        student = learner(5, precision)
        student.load(safetensors.torch.load(states[done - 1]))
        assert train(student, epochs, done) == (states[done:], measures[done:])


def test_another_seed_is_another_replicate():
    (states, _), (others, _) = train(learner(0), [EPOCH]), train(learner(1), [EPOCH])
    assert states != others


def test_a_state_is_weights_statistics_and_momentum():
    student = learner()
    state = snapshot(student)
    parameters = {name for name, _ in student.network.named_parameters()}
    assert {name for name in state if name.startswith("momentum.")} == {f"momentum.{name}" for name in parameters}
    assert {"network.bn.running_mean", "network.bn.running_var", "network.bn.num_batches_tracked"} < state.keys()
    train_epoch(student, digits(), EPOCH, 0)
    assert moved(state, student.state()) == state.keys()


# One epoch


def random_data():
    """Fifty random images of ten classes in the shape of digits, and the raw training images."""
    rng, facts, counts = np.random.default_rng(), DATASETS["digits"], np.asarray([12, 9, 7, 6, 5, 4, 3, 2, 1, 1])
    images, test = (rng.integers(0, 17, (n, 1, 8, 8), dtype=np.uint8) for n in (50, 20))
    halves = np.arange(20) % 2 == 0
    data = LongTailed(facts, counts, images, test, np.repeat(np.arange(10), 2), halves, 1, torch.device("cpu"))
    return data, images


def slow_epoch(network, data, images, epoch, draws):
    """The epoch as one would write it first: an image at a time, torch's plain SGD, the loss by its formula."""
    order, top, left, mirror = (None if d is None else d.tolist() for d in draws)
    parts = {"all": network, "classifier": network.classifier}
    sgd = torch.optim.SGD(
        parts[epoch.trains].parameters(), lr=epoch.lr, momentum=epoch.momentum, nesterov=epoch.nesterov,
        weight_decay=epoch.weight_decay, foreach=False, fused=False,
    )  # fmt: skip
    network.train()
    losses, hits = [], []
    for start in range(0, len(order), epoch.batch_size):
        places = range(start, min(start + epoch.batch_size, len(order)))
        if epoch.drop_last and len(places) < epoch.batch_size:
            break
        batch, labels = [], []
        for k in places:
            canvas = np.zeros((10, 10), dtype=np.float32)
            canvas[1:9, 1:9] = images[order[k], 0]
            image = canvas[top[k] : top[k] + 8, left[k] : left[k] + 8]
            image = image[:, ::-1] if mirror is not None and mirror[k] else image
            batch.append((image / 16 - 0.3053) / 0.3761)
            labels.append(int(data.labels[order[k]]))
        logits = network(torch.tensor(np.stack(batch)[:, None]))
        weights = [1.0 if epoch.class_weights is None else epoch.class_weights[label] for label in labels]
        logs = [logits[k, label] - logits[k].exp().sum().log() for k, label in enumerate(labels)]
        loss = -sum(w * log for w, log in zip(weights, logs, strict=True)) / sum(weights)
        sgd.zero_grad()
        loss.backward()
        sgd.step()
        losses += [loss.item()] * len(labels)
        hits += [row.argmax().item() == label for row, label in zip(logits, labels, strict=True)]
    return {"train/loss": np.mean(losses), "train/top1": 100 * np.mean(hits), "lr": epoch.lr}


@pytest.mark.parametrize(
    "setting",
    [
        {},
        {"sampler": -1.0},
        {"sampler": 0.0, "replacement": True},
        {"flip": True},
        {"momentum": 0.0},
        {"nesterov": True, "weight_decay": 0.1},
        {"drop_last": True},
        {"batch_size": 50},
        {"class_weights": (0.1, 0.2, 0.5, 1.0, 1.0, 1.0, 2.0, 2.0, 3.0, 4.0)},
        {"trains": "classifier"},
    ],
    ids=str,
)
def test_an_epoch_agrees_with_a_slow_one(setting, monkeypatch):
    # Rounding may turn a ReLU on or off, a jump of the gradient; in a smooth network it stays small.
    monkeypatch.setattr(torch.nn.functional, "relu", torch.nn.functional.softplus)
    epoch = replace(EPOCH, **{"batch_size": 16, **setting})
    student, (data, images) = learner(seed=int(torch.randint(1000, ()))), random_data()
    network = copy.deepcopy(student.network)
    draws = loop._draws(data, epoch, student.origin.seed, 3)
    measures = train_epoch(student, data, epoch, 3)
    assert measures == pytest.approx(slow_epoch(network, data, images, epoch, draws), rel=1e-3)
    for name, tensor in network.state_dict().items():
        torch.testing.assert_close(student.network.state_dict()[name], tensor, rtol=1e-3, atol=1e-4, msg=name)


def test_crops_and_flips_are_uniform_and_new_every_epoch():
    data, epoch = digits(), replace(EPOCH, flip=True)
    draws = [loop._draws(data, epoch, 0, index) for index in range(20)]
    corners = torch.stack([3 * top + left for _, top, left, _ in draws])
    assert corners.unique().tolist() == list(range(9))
    assert corners.flatten().bincount() / corners.numel() == pytest.approx([1 / 9] * 9, abs=0.03)
    assert torch.stack([mirror for *_, mirror in draws]).float().mean().item() == pytest.approx(0.5, abs=0.05)
    for part in zip(*draws, strict=True):
        assert len({tuple(drawn.tolist()) for drawn in part}) == 20


# What an instruction may ask for


def backbone_weights(student):
    names = {f"network.{name}" for name, _ in student.network.named_parameters()}
    return {name for name in names if not name.startswith("network.classifier")}


def statistics(state):
    return {name for name in state if "running_" in name}


def test_training_the_classifier_leaves_the_backbone_but_moves_its_statistics():
    student = learner()
    train_epoch(student, digits(), EPOCH, 0)
    before = snapshot(student)
    train_epoch(student, digits(), replace(EPOCH, trains="classifier"), 1)
    changed = moved(before, student.state())
    assert {"network.classifier.weight", "network.classifier.bias"} < changed
    assert statistics(before) < changed
    assert not changed & backbone_weights(student)
    assert {name for name in changed if name.startswith("momentum.")} == {
        "momentum.classifier.weight", "momentum.classifier.bias",
    }  # fmt: skip


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
        train(student, history, data=digits(device))
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


# Measures


def loss_and_top1(student, images, labels):
    """By their formulae, in one batch."""
    student.network.eval()
    with torch.no_grad():
        logits = student.network(images)
    right = logits.gather(1, labels[:, None])[:, 0]
    hits = sum(row.argmax() == label for row, label in zip(logits, labels, strict=True))
    return [(logits.exp().sum(1).log() - right).mean().item(), 100 * hits.item() / len(labels)]


def test_val_and_holdout_are_the_halves_of_test():
    student, data = learner(), digits()
    train(student, [EPOCH] * 3)
    measures = evaluate(student, data, EPOCH)
    images = data.test_images(slice(None))
    halves = {"val": data.in_val, "holdout": ~data.in_val, "test": data.in_val | ~data.in_val}
    for part, chosen in halves.items():
        expected = loss_and_top1(student, images[chosen], data.test_labels[chosen])
        assert [measures[f"{part}/loss"], measures[f"{part}/top1"]] == pytest.approx(expected, rel=1e-4)
    kinds = {"loss", "top1", "worst", "ece", "class_accuracy", "many", "medium", "few"}
    assert measures.keys() == {f"{part}/{kind}" for part in halves for kind in kinds}


def test_the_training_set_is_measured_un_augmented_when_asked_for():
    student, data = learner(), digits()
    train(student, [EPOCH] * 2)
    fixed, more = evaluate(student, data, EPOCH), evaluate(student, data, replace(EPOCH, measures=("train",)))
    extra = {name: value for name, value in more.items() if name not in fixed}
    assert {name: more[name] for name in fixed} == fixed
    assert {name.partition("/")[0] for name in extra} == {"fit"}
    expected = loss_and_top1(student, data.train_images(slice(None)), data.labels)
    assert [extra["fit/loss"], extra["fit/top1"]] == pytest.approx(expected, rel=1e-4)
    assert len(extra["fit/class_accuracy"]) == 10


def test_measuring_changes_nothing():
    student = learner()
    train_epoch(student, digits(), EPOCH, 0)
    before = snapshot(student)
    evaluate(student, digits(), replace(EPOCH, measures=("train",)))
    assert not moved(before, student.state())


def test_a_network_learns():
    _, measures = train(learner(), [EPOCH] * 8)
    assert measures[-1]["train/loss"] < 0.5 * measures[0]["train/loss"]
    assert measures[-1]["test/top1"] > 40


# Divergence, precision, devices


def test_the_origin_settles_the_arithmetic():
    torch.set_num_threads(2)
    torch.backends.cudnn.allow_tf32 = True
    learner()
    assert torch.get_num_threads() == 1
    assert not torch.backends.cudnn.allow_tf32
    assert not torch.backends.cuda.matmul.allow_tf32


def test_a_loss_that_is_no_number_is_an_error_that_says_where():
    with pytest.raises(Diverged, match=r"epoch 4 \(lr = 1e\+20\)"):
        train_epoch(learner(), digits(), replace(EPOCH, lr=1e20), 4)


def test_lost_weights_are_noticed_when_they_are_measured():
    student = learner()
    student.network.classifier.weight.data.fill_(math.nan)
    with pytest.raises(Diverged, match="test loss is nan"):
        evaluate(student, digits(), EPOCH)


def test_bf16_trains_other_bits_to_about_the_same_loss():
    (full, [exact]), (half, [rounded]) = (train(learner(0, precision), [EPOCH]) for precision in ("fp32", "bf16"))
    assert full != half
    assert rounded["train/loss"] == pytest.approx(exact["train/loss"], rel=0.1)
    assert {tensor.dtype for name, tensor in safetensors.torch.load(half[0]).items() if "weight" in name} == {
        torch.float32
    }


@pytest.mark.parametrize("device", [CUDA])
def test_a_gpu_agrees_with_the_cpu(device):
    epochs = switching(SHORT)[:2]
    _, on_cpu = train(learner(), epochs)
    _, on_gpu = train(learner(device=device), epochs, data=digits(device))
    assert on_gpu[0]["train/loss"] == pytest.approx(on_cpu[0]["train/loss"], abs=1e-3)
    assert all(math.isfinite(value) for value in (on_gpu[1]["train/loss"], on_gpu[1]["test/loss"]))
