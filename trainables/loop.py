"""One epoch of training under one instruction, one evaluation: the only loop. No Ray; CPU and CUDA by one path."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.sgd import sgd

from trainables.datasets import facts
from trainables.losses import loss_of, normaliser_of
from trainables.metrics import Tally, summary
from trainables.networks import add_scale, build, initialise
from trainables.ranks import ALONE, Ranks
from trainables.readouts import ReadOuts
from trainables.recipe import Epoch, Origin
from trainables.samplers import Purpose, epoch_order, generator

if TYPE_CHECKING:
    from trainables.data import Data

HOLDOUT, VAL = 0, 1  # parts of the test set


class Diverged(ArithmeticError):
    """The loss is no longer a number: the weights are lost, and so is the rest of the recipe."""


class Learner:
    """A network, its momentum and what was observed of single images, on a device: the tensors of a state.

    Attributes:
        observed: ``predictions`` of the test images after the last evaluation, and their ``test_labels``: (M,); once
            an instruction has asked for events, ``learned`` and ``forgotten``, each training image's cumulative counts
            (eq. 17 and 18), and ``correct``, whether it was right after the last epoch: (N,).

    Args:
        origin: state 0 is drawn from it.
        ranks: which of the processes that train it this is.
    """

    def __init__(self, origin: Origin, ranks: Ranks = ALONE) -> None:
        assert ranks.size == origin.ranks
        _settle_arithmetic(origin)
        known = facts(origin.dataset)
        self.origin, self.device, self.ranks = origin, torch.device(origin.device), ranks
        rng = _torch_generator(origin.seed, 0, Purpose.WEIGHTS)
        network = build(origin.backbone, origin.head, known.channels, known.classes, rng)
        self.network = network.to(self.device).to(memory_format=torch.channels_last)
        self.momentum = {name: torch.zeros_like(p) for name, p in self.network.named_parameters()}
        self.observed: dict[str, Tensor] = {}

    def state(self) -> dict[str, Tensor]:
        """Weights and buffers as ``network.*``, momentum as ``momentum.*`` and ``observed.*``, on the CPU.

        There they share memory with what is trained next.
        """
        tensors = {f"network.{name}": tensor for name, tensor in self.network.state_dict().items()}
        tensors |= {f"momentum.{name}": tensor for name, tensor in self.momentum.items()}
        tensors |= {f"observed.{name}": tensor for name, tensor in self.observed.items()}
        return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Take up a state as `state` gave it."""
        if "network.classifier.scale" in tensors:
            self._add_scale()
        self.network.load_state_dict(_below("network.", tensors))
        for name, buffer in self.momentum.items():
            buffer.copy_(tensors[f"momentum.{name}"])
        self.observed = {name: tensor.to(self.device) for name, tensor in _below("observed.", tensors).items()}

    def _add_scale(self) -> None:
        add_scale(self.network)
        self.momentum["classifier.scale"] = torch.zeros_like(self.network.classifier.scale)  # type: ignore[arg-type]

    def obey(self, epoch: Epoch, index: int) -> list[str]:
        """Prepare the network for an instruction; returns the names of the parameters that it trains."""
        if epoch.reinitialise == "classifier":
            initialise(self.network.classifier, _torch_generator(self.origin.seed, index, Purpose.WEIGHTS))
        if epoch.reinitialise == "scale":
            self._add_scale()
        if epoch.fresh_optimizer:
            for buffer in self.momentum.values():
                buffer.zero_()
        prefix = {"all": "", "classifier": "classifier.", "scale": "classifier.scale"}[epoch.trains]
        trained = []
        for name, parameter in self.network.named_parameters():
            parameter.requires_grad_(name.startswith(prefix))
            if parameter.requires_grad:
                trained.append(name)
        self.network.train()
        if epoch.batch_norm == "frozen":
            for part in self.network.modules():
                if isinstance(part, nn.BatchNorm2d):
                    part.eval()
        return trained

    def descent(self, epoch: Epoch, trained: list[str]) -> Callable[[Tensor], None]:
        """One step of SGD down a batch's loss, of which a rank has its part, upon this learner's own momentum buffers.

        It is the function below ``torch.optim.SGD``: that class imports a compiler, which takes a worker a second.
        """
        parameters = dict(self.network.named_parameters())
        bare = {"classifier.bias"} if not epoch.decay_bias else set()
        groups = (
            ([name for name in trained if name not in bare], epoch.weight_decay),
            ([name for name in trained if name in bare], 0.0),
        )
        lr = torch.tensor(epoch.lr, device=self.device)

        def step(loss: Tensor) -> None:
            loss.backward()  # type: ignore[no-untyped-call]
            gradients: dict[str, Any] = {name: parameters[name].grad for name in trained}  # each has one
            with torch.no_grad():
                self.ranks.add(list(gradients.values()))
                for names, weight_decay in groups:
                    sgd(
                        [parameters[name] for name in names], [gradients[name] for name in names],
                        [self.momentum[name] for name in names], weight_decay=weight_decay, momentum=epoch.momentum,
                        lr=lr, dampening=0.0, nesterov=epoch.nesterov, maximize=False,
                        fused=True,  # the others read the lr back to the host at every step
                    )  # fmt: skip
            for name in trained:
                parameters[name].grad = None

        return step

    def logits(self, *inputs: Any) -> Tensor:
        """The network's output in the origin's precision: (B, channels, side, side) → (B, C).

        A network of two branches takes a batch for each and α besides.
        """
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.origin.precision == "bf16"):
            return self.network(*inputs).float()  # type: ignore[no-any-return]


Step = tuple[tuple[Any, ...], list[tuple[float, Tensor]]]  # the network's inputs, and its labels with their weights


def train_epoch(learner: Learner, data: Data, epoch: Epoch, index: int) -> dict[str, float]:
    """Train one epoch in place and return its training measures: loss, top-1 in percent over its draws, lr.

    On CUDA the host never waits for the device before the epoch's end.

    Args:
        learner: its state is that after epoch `index` - 1.
        data: on the learner's device, loaded for this instruction.
        epoch: the instruction.
        index: which epoch it is, from 0: with the origin's seed it names the random streams.

    Raises:
        Diverged: if the training loss is not finite.
    """
    trained = learner.obey(epoch, index)
    descend = learner.descent(epoch, trained)
    loss_function = loss_of(epoch, data.counts, learner.device)
    normaliser = normaliser_of(epoch, data.counts, learner.device)
    sums = torch.zeros(3, dtype=torch.float64, device=learner.device)  # loss, correct, draws
    for inputs, targets in _steps(data, epoch, learner.origin, index):
        logits = learner.logits(*inputs)
        # A mean over this rank's images counts as much as they do in the whole batch.
        count, *shares = learner.ranks.shares(
            partial(logits.new_full, (), len(logits)), *(partial(normaliser, labels) for _, labels in targets)
        )
        losses = (
            weight * share * loss_function(logits, labels)
            for share, (weight, labels) in zip(shares, targets, strict=True)
        )
        loss = sum(losses, torch.zeros(()))
        predicted, n = logits.detach().argmax(1), len(logits)
        descend(loss)
        correct = sum((weight * (predicted == labels).sum() for weight, labels in targets), torch.zeros(()))
        sums += torch.stack((loss.detach() * (n / count), correct, torch.full_like(correct, n))).double()
    learner.ranks.total(sums)
    learner.ranks.align(learner.network.buffers())
    total_loss, right, used = sums.tolist()
    if not math.isfinite(total_loss):
        raise Diverged(f"the training loss is {total_loss / used} in epoch {index} (lr = {epoch.lr:g})")
    return {"train/loss": total_loss / used, "train/top1": 100 * right / used, "lr": epoch.lr}


def _steps(data: Data, epoch: Epoch, origin: Origin, index: int) -> Iterator[Step]:
    """The steps of an epoch: plain, mixed with themselves, or of two samplers."""
    seed, ranks = origin.seed, origin.ranks
    order = _order(data, epoch, ranks, epoch.sampler, epoch.replacement, generator(seed, index, Purpose.ORDER))
    batches = data.batches(order, epoch, generator(seed, index, Purpose.AUGMENTATION))
    if epoch.bilateral is not None:
        alpha = epoch.bilateral
        other = _order(data, epoch, ranks, -1.0, True, generator(seed, index, Purpose.REVERSED_ORDER))
        reversed_ = data.batches(other, epoch, generator(seed, index, Purpose.REVERSED_AUGMENTATION))
        for (images, labels), (others, their_labels) in zip(batches, reversed_, strict=True):
            yield (images, others, alpha), [(alpha, labels), (1 - alpha, their_labels)]
    elif epoch.mixup:
        shares = generator(seed, index, Purpose.MIXUP)
        for images, labels in batches:
            share = float(shares.beta(epoch.mixup, epoch.mixup))
            # A batch is in random order: its reverse is as good as any other to be mixed with.
            mixed = share * images + (1 - share) * images.flip(0)
            yield (mixed,), [(share, labels), (1 - share, labels.flip(0))]
    else:
        for images, labels in batches:
            yield (images,), [(1.0, labels)]


def _order(
    data: Data, epoch: Epoch, ranks: int, sampler: float | tuple[float, ...], replacement: bool,
    rng: np.random.Generator,
) -> np.ndarray[Any, np.dtype[np.int64]]:  # fmt: skip
    order = epoch_order(data.counts, sampler, replacement, rng)
    rest = len(order) % epoch.batch_size
    return order[: len(order) - rest] if epoch.drop_last or rest < ranks else order


@torch.inference_mode()
def evaluate(learner: Learner, data: Data, epoch: Epoch) -> dict[str, Any]:
    """The fixed set of measures (`metrics.summary`) on both halves of the test set and their union.

    `val` is the half for selection, `holdout` the other, `test` their union, as the papers report it; where the data
    have images for selection beside the test set, `test` is `holdout`. Read-outs are those of `readouts`, on `holdout`.
    With ``fit`` or ``events`` among the instruction's measures, also the training set, un-augmented, as `fit`, with the
    loss of each class; with ``events``, each training image's events are counted.

    Raises:
        Diverged: if a loss is not finite.
    """
    learner.network.eval()
    shots = data.shots
    tally = Tally(len(data.counts), 2, data.device)
    read_outs = ReadOuts(learner.network.classifier, data.counts, 2, data.device)
    seen = [torch.zeros((2, 0), dtype=torch.int16, device=data.device)]  # a rank may have no image
    for images, labels, part in data.test_batches():
        logits = learner.logits(images)
        seen.append(torch.stack((tally.add(logits, labels, part), labels)).short())
        read_outs.add(logits, labels, part)
    learner.ranks.total(*tally.sums, *read_outs.sums)
    halves = data.facts.selection == "half"  # otherwise the images for selection are none of the test set's
    tested = [HOLDOUT, VAL] if halves else [HOLDOUT]
    whole = [learner.ranks.whole(own, len(data.in_val)) for own in torch.cat(seen, 1)]
    predictions, labels = (each.clone() if halves else each[~data.in_val] for each in whole)
    learner.observed |= {"predictions": predictions, "test_labels": labels}
    by_class, by_bin = tally.read()
    measures = summary("test", by_class[:, tested].sum(1), by_bin[:, tested].sum(1), shots)
    measures |= summary("val", by_class[:, VAL], by_bin[:, VAL], shots, listed=False)
    measures |= summary("holdout", by_class[:, HOLDOUT], by_bin[:, HOLDOUT], shots, listed=False)
    measures |= read_outs.read(VAL, HOLDOUT, shots)
    if epoch.measures:
        measures |= _fit(learner, data, events="events" in epoch.measures)
    if not math.isfinite(measures["test/loss"]):
        raise Diverged(f"the test loss is {measures['test/loss']}")
    return measures


def _fit(learner: Learner, data: Data, events: bool) -> dict[str, Any]:
    """The measures of the un-augmented training images, which are sorted by class; and their events."""
    tally = Tally(len(data.counts), 1, data.device)
    correct = [torch.zeros(0, dtype=torch.bool, device=data.device)]
    for images, labels in data.fit_batches():
        correct.append(tally.add(learner.logits(images), labels, torch.zeros_like(labels)) == labels)
    learner.ranks.total(*tally.sums)
    if events:
        now = learner.ranks.whole(torch.cat(correct), int(data.counts.sum()))
        seen = learner.observed
        before = seen.get("correct", torch.zeros_like(now)).bool()  # acc_0 = 0
        zeros = torch.zeros(len(now), dtype=torch.int32, device=data.device)
        seen["learned"] = seen.get("learned", zeros) + now.int()
        seen["forgotten"] = seen.get("forgotten", zeros) + (before & ~now).int()
        seen["correct"] = now
    by_class, by_bin = tally.read()
    measures = summary("fit", by_class[:, 0], by_bin[:, 0], data.shots)
    if "fit/class_accuracy" in measures:
        measures["fit/class_loss"] = [round(float(loss), 9) for loss in by_class[2, 0] / by_class[0, 0]]
    return measures


def _below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _settle_arithmetic(origin: Origin) -> None:
    torch.set_num_threads(origin.threads)
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False


def _torch_generator(seed: int, epoch: int, purpose: Purpose) -> torch.Generator:
    return torch.Generator().manual_seed(int(generator(seed, epoch, purpose).integers(2**63)))
