"""One epoch of training under one instruction, one evaluation: the only loop. No Ray; CPU and CUDA by one path."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from trainables.data import LongTailed
from trainables.datasets import DATASETS
from trainables.metrics import Tally, summary
from trainables.networks import build, initialise
from trainables.recipe import Epoch, Origin
from trainables.samplers import Purpose, epoch_order, generator

EVALUATION_BATCH = 1000


class Diverged(ArithmeticError):
    """The loss is no longer a number: the weights are lost, and so is the rest of the recipe."""


class Learner:
    """A network and its momentum on a device: the tensors of a state.

    Args:
        origin: state 0 is drawn from it.
    """

    def __init__(self, origin: Origin) -> None:
        _settle_arithmetic(origin)
        facts = DATASETS[origin.dataset]
        self.origin, self.device = origin, torch.device(origin.device)
        rng = _torch_generator(origin.seed, 0, Purpose.WEIGHTS)
        network = build(origin.backbone, facts.channels, facts.classes, rng)
        self.network = network.to(self.device).to(memory_format=torch.channels_last)
        self.momentum = {name: torch.zeros_like(p) for name, p in self.network.named_parameters()}

    def state(self) -> dict[str, Tensor]:
        """Weights and buffers as ``network.*`` and momentum as ``momentum.*``, on the CPU.

        There they share memory with what is trained next.
        """
        tensors = {f"network.{name}": tensor for name, tensor in self.network.state_dict().items()}
        tensors |= {f"momentum.{name}": tensor for name, tensor in self.momentum.items()}
        return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Take up a state as `state` gave it."""
        weights = {k.removeprefix("network."): v for k, v in tensors.items() if k.startswith("network.")}
        self.network.load_state_dict(weights)
        for name, buffer in self.momentum.items():
            buffer.copy_(tensors[f"momentum.{name}"])

    def obey(self, epoch: Epoch, index: int) -> list[str]:
        """Prepare the network for an instruction; returns the names of the parameters that it trains."""
        if epoch.reinitialise == "classifier":
            initialise(self.network.classifier, _torch_generator(self.origin.seed, index, Purpose.WEIGHTS))
        if epoch.fresh_optimizer:
            for buffer in self.momentum.values():
                buffer.zero_()
        trained = []
        for name, parameter in self.network.named_parameters():
            parameter.requires_grad_(epoch.trains == "all" or name.startswith(epoch.trains))
            if parameter.requires_grad:
                trained.append(name)
        self.network.train()
        if epoch.batch_norm == "frozen":
            for part in self.network.modules():
                if isinstance(part, nn.BatchNorm2d):
                    part.eval()
        return trained

    def optimizer(self, epoch: Epoch, trained: list[str]) -> torch.optim.SGD:
        """SGD as the instruction says, upon this learner's own momentum buffers."""
        parameters = dict(self.network.named_parameters())
        sgd = torch.optim.SGD(
            [parameters[name] for name in trained],
            lr=torch.tensor(epoch.lr, device=self.device),
            momentum=epoch.momentum, nesterov=epoch.nesterov, weight_decay=epoch.weight_decay,
            fused=True,  # the others read the lr back to the host at every step
        )  # fmt: skip
        for name in trained:
            sgd.state[parameters[name]]["momentum_buffer"] = self.momentum[name]
        return sgd

    def logits(self, images: Tensor) -> Tensor:
        """The network's output in the origin's precision: (B, channels, side, side) → (B, C)."""
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.origin.precision == "bf16"):
            return self.network(images)  # type: ignore[no-any-return]


def train_epoch(learner: Learner, data: LongTailed, epoch: Epoch, index: int) -> dict[str, float]:
    """Train one epoch in place and return its training measures: loss, top-1 in percent over its draws, lr.

    On CUDA the host never waits for the device before the epoch's end.

    Args:
        learner: its state is that after epoch `index` - 1.
        data: on the learner's device, padded for the instruction's crop.
        epoch: the instruction.
        index: which epoch it is, from 0: with the origin's seed it names the random streams.

    Raises:
        Diverged: if the training loss is not finite.
    """
    assert data.crop == epoch.crop
    trained = learner.obey(epoch, index)
    sgd = learner.optimizer(epoch, trained)
    order, top, left, mirror = _draws(data, epoch, learner.origin.seed, index)
    weights = None if epoch.class_weights is None else torch.tensor(epoch.class_weights, device=learner.device)
    sums = torch.zeros(2, dtype=torch.float64, device=learner.device)  # loss, correct
    used = len(order) - len(order) % epoch.batch_size if epoch.drop_last else len(order)
    for start in range(0, used, epoch.batch_size):
        at = slice(start, min(start + epoch.batch_size, used))
        images = data.batch(order[at], top[at], left[at], None if mirror is None else mirror[at])
        labels = data.labels[order[at]]
        logits = learner.logits(images).float()
        loss = F.cross_entropy(logits, labels, weights)
        sgd.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        sgd.step()
        correct = (logits.detach().argmax(1) == labels).sum()
        sums += torch.stack((loss.detach() * len(labels), correct)).double()
    mean_loss, accuracy = (sums / used).tolist()
    if not math.isfinite(mean_loss):
        raise Diverged(f"the training loss is {mean_loss} in epoch {index} (lr = {epoch.lr:g})")
    return {"train/loss": mean_loss, "train/top1": 100 * accuracy, "lr": epoch.lr}


def _draws(data: LongTailed, epoch: Epoch, seed: int, index: int) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """An epoch's order, crops and flips, drawn on the host in one go and sent to the device in one go each: (N,)."""
    order = epoch_order(data.counts, epoch.sampler, epoch.replacement, generator(seed, index, Purpose.ORDER))
    rng = generator(seed, index, Purpose.AUGMENTATION)
    crops = rng.integers(0, 2 * epoch.crop + 1, size=(2, len(order)))
    draws = torch.from_numpy(np.concatenate((order[None], crops))).to(data.device)
    mirror = torch.from_numpy(rng.random(len(order)) < 0.5).to(data.device) if epoch.flip else None
    return draws[0], draws[1], draws[2], mirror


@torch.inference_mode()
def evaluate(learner: Learner, data: LongTailed, epoch: Epoch) -> dict[str, Any]:
    """The fixed set of measures (`metrics.summary`) on both halves of the test set and their union.

    `val` is the half for selection, `holdout` the other, `test` their union, as the papers report it. With
    ``"train" in epoch.measures``, also the un-augmented training set as `fit`.

    Raises:
        Diverged: if a loss is not finite.
    """
    learner.network.eval()
    shots = data.facts.shots(learner.origin.imbalance)
    tally = Tally(data.facts.classes, 2, data.device)
    for start in range(0, len(data.test_labels), EVALUATION_BATCH):
        at = slice(start, start + EVALUATION_BATCH)
        tally.add(learner.logits(data.test_images(at)), data.test_labels[at], data.in_val[at].long())
    by_class, by_bin = tally.read()
    measures = summary("test", by_class.sum(1), by_bin.sum(1), shots)
    measures |= summary("val", by_class[:, 1], by_bin[:, 1], shots)
    measures |= summary("holdout", by_class[:, 0], by_bin[:, 0], shots)
    if "train" in epoch.measures:
        tally = Tally(data.facts.classes, 1, data.device)
        for start in range(0, len(data.labels), EVALUATION_BATCH):
            at = slice(start, start + EVALUATION_BATCH)
            labels = data.labels[at]
            tally.add(learner.logits(data.train_images(at)), labels, torch.zeros_like(labels))
        by_class, by_bin = tally.read()
        measures |= summary("fit", by_class[:, 0], by_bin[:, 0], shots)
    if not math.isfinite(measures["test/loss"]):
        raise Diverged(f"the test loss is {measures['test/loss']}")
    return measures


def _settle_arithmetic(origin: Origin) -> None:
    torch.set_num_threads(origin.threads)
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False


def _torch_generator(seed: int, epoch: int, purpose: Purpose) -> torch.Generator:
    return torch.Generator().manual_seed(int(generator(seed, epoch, purpose).integers(2**63)))
