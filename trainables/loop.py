"""The training loop: one epoch under one instruction, and one evaluation. No Ray; CPU and CUDA share one path."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from trainables.data.loading import load
from trainables.draws import draws
from trainables.learner import Learner
from trainables.metrics import Tally, summary
from trainables.readouts import ReadOuts
from trainables.recipe import Epoch, next_key
from trainables.samplers import Purpose, generator
from trainables.steps import steps_for

if TYPE_CHECKING:
    from trainables.data.facts import Data

HOLDOUT, VAL = 0, 1  # parts of the test set


class Diverged(ArithmeticError):
    """The loss is not finite: the weights are unusable, and so is the rest of the recipe."""


def advance(learner: Learner, epoch: Epoch, root: Path, decoders: int) -> dict[str, Any]:
    """Train the epoch that follows the learner's state, evaluate, and return the measures.

    Afterwards the learner has the name of the new state, which follows from the old name and the instruction. So a
    state is always saved under the name of the work that made it.

    Args:
        learner: a learner in any state.
        epoch: the instruction.
        root: the data folder.
        decoders: the number of processes that decode image files.

    Raises:
        Diverged: if a loss is not finite.
    """
    data = load(learner.origin, epoch, root, decoders, learner.ranks)
    measures: dict[str, Any] = train_epoch(learner, data, epoch, learner.epochs)
    measures |= evaluate(learner, data, epoch)
    learner.key, learner.epochs = next_key(learner.key, epoch), learner.epochs + 1
    return measures


def train_epoch(learner: Learner, data: Data, epoch: Epoch, index: int) -> dict[str, float]:
    """Train one epoch in place and return its training measures: loss, top-1 in percent over its draws, lr.

    Args:
        learner: a learner in the state after epoch `index` - 1.
        data: the data, on the learner's device, loaded for this instruction.
        epoch: the instruction.
        index: the number of the epoch, from 0, which with the origin's seed determines the random streams.

    Raises:
        Diverged: if the training loss is not finite.
    """
    trained = learner.obey(epoch, index)
    layers_seed = int(generator(learner.origin.seed, index, Purpose.LAYERS).integers(2**63 - learner.ranks.size))
    torch.manual_seed(layers_seed + learner.ranks.rank)  # for layers that draw random numbers, such as dropout
    random_numbers = draws(data.counts, epoch, learner.origin, index)
    with learner.stream():
        sums = steps_for(learner, data, epoch, trained).run(random_numbers, epoch)
    learner.ranks.total(sums)
    learner.count_batches(random_numbers.steps, epoch.mixture is not None and epoch.mixture.second is not None)
    learner.ranks.align(learner.network.buffers())
    loss, right, used = sums.tolist()  # here alone the host waits for the device
    if not math.isfinite(loss):
        raise Diverged(f"the training loss is {loss / used} in epoch {index} (lr = {epoch.lr:g})")
    return {"train/loss": loss / used, "train/top1": 100 * right / used, "lr": epoch.lr}


@torch.inference_mode()
def evaluate(learner: Learner, data: Data, epoch: Epoch) -> dict[str, Any]:
    """Return the fixed set of measures (`metrics.summary`) on both halves of the test set and on their union.

    `val` is the half for selection, `holdout` the other half, `test` their union, as in the papers. Where the data have
    images for selection beside the test set, `test` is `holdout`. The read-outs of `readouts` are on `holdout`. With
    ``fit`` or ``events`` in the instruction's measures, the un-augmented training set is evaluated too, as `fit`, with
    the loss of each class. With ``events``, each training image's events are counted.

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
    halves = data.facts.selection == "half"  # otherwise the images for selection are not in the test set
    tested = [HOLDOUT, VAL] if halves else [HOLDOUT]
    whole = [learner.ranks.whole(share, len(data.in_val)) for share in torch.cat(seen, 1)]
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
    """Return the measures of the un-augmented training images, which are sorted by class, and count their events."""
    tally = Tally(len(data.counts), 1, data.device)
    correct = [torch.zeros(0, dtype=torch.bool, device=data.device)]
    for images, labels in data.fit_batches():
        correct.append(tally.add(learner.logits(images), labels, torch.zeros_like(labels)) == labels)
    learner.ranks.total(*tally.sums)
    if events:
        is_correct = learner.ranks.whole(torch.cat(correct), int(data.counts.sum()))
        observed = learner.observed
        was_correct = observed.get("correct", torch.zeros_like(is_correct)).bool()  # acc_0 = 0
        zeros = torch.zeros(len(is_correct), dtype=torch.int32, device=data.device)
        observed["learned"] = observed.get("learned", zeros) + is_correct.int()
        observed["forgotten"] = observed.get("forgotten", zeros) + (was_correct & ~is_correct).int()
        observed["correct"] = is_correct
    by_class, by_bin = tally.read()
    measures = summary("fit", by_class[:, 0], by_bin[:, 0], data.shots)
    if "fit/class_accuracy" in measures:
        measures["fit/class_loss"] = [round(float(loss), 9) for loss in by_class[2, 0] / by_class[0, 0]]
    return measures
