"""The steps of an epoch, on tensors whose addresses stay the same from step to step."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim.sgd import sgd

from trainables.data.resident import LongTailed
from trainables.learner import Learner
from trainables.recipe import Epoch
from trainables.recording import Replayed

if TYPE_CHECKING:
    from trainables.data.facts import Data
    from trainables.draws import Draws
    from trainables.parts import Batch, Targets

KEPT = 4  # the most kinds of steps that a learner keeps: the recordings of one take some hundred MB of a GPU


def kind(epoch: Epoch) -> Epoch:
    """Return the part of an instruction that a step depends on.

    The rest fills the tensors of a step, or is done before the first step.
    """
    return replace(
        epoch,
        lr=0.0,
        sampler=1.0,
        replacement=False,
        drop_last=False,
        measures=(),
        fresh_optimizer=False,
        reinitialise="nothing",
        mixture=epoch.mixture and epoch.mixture.step,
    )


class Steps:
    """The steps of one kind of instruction for one network and one data set.

    All values that differ between steps or epochs are filled into tensors, and a step finds its images and shares
    through counters on the device. So a GPU can record and replay a step of data that are held on the device.

    Args:
        learner: the learner whose network and momentum are trained, in place.
        data: the data, on the learner's device.
        epoch: the instruction, or any other of the same `kind`.
        trained: the names of the parameters that are trained.

    Attributes:
        data: the data of the steps.
        step: one step of data that are held on the device.
    """

    def __init__(self, learner: Learner, data: Data, epoch: Epoch, trained: Sequence[str]) -> None:
        self.data = data
        self._learner, self._kind, self._trained = learner, kind(epoch), trained
        self._loss, self._normaliser = loss_of(epoch, data.counts, learner.device)
        self._parameters = dict(learner.network.named_parameters())
        bare = {"classifier.bias"} if not epoch.decay_bias else set()
        self._groups = (
            ([name for name in trained if name not in bare], epoch.weight_decay),
            ([name for name in trained if name in bare], 0.0),
        )
        # Autocast would launch a kernel for each convolution to round its weights, and another to convert its gradient.
        bf16 = learner.origin.precision == "bf16"
        convolutions = [part.weight for part in learner.network.modules() if isinstance(part, nn.Conv2d) and bf16]
        self._rounded = {
            name: torch.empty_like(parameter, dtype=torch.bfloat16, requires_grad=name in trained)
            for name, parameter in self._parameters.items()
            if any(parameter is weight for weight in convolutions)
        }
        self._gradients = {name: torch.zeros_like(self._parameters[name]) for name in self._rounded if name in trained}
        images, branches = int(data.counts.sum()), 1 if epoch.mixture is None or epoch.mixture.second is None else 2
        device, dtype = learner.device, next(learner.network.parameters()).dtype
        self._lr = torch.zeros((), device=device)
        self._shares = torch.zeros(2, -(-images // epoch.batch_size), dtype=dtype, device=device)
        self._sums = torch.zeros(3, dtype=torch.float64, device=device)  # loss, correct, draws
        self._number = torch.zeros(1, dtype=torch.int64, device=device)  # of the step
        self._start = torch.zeros(1, dtype=torch.int64, device=device)  # position of its first image
        self._ramp = torch.arange(epoch.batch_size, device=device)
        if isinstance(data, LongTailed):
            self._rows = torch.zeros(4 * branches, images, dtype=torch.int64, device=device)
        self.step = Replayed(self._resident_step, learner.recorder)

    def run(self, draws: Draws, epoch: Epoch) -> Tensor:
        """Run all steps of an epoch; on CUDA the host does not wait for them.

        Returns:
            Sums over the draws, on the device: loss, number of correct predictions, number of draws: (3,).
        """
        self._lr.fill_(epoch.lr)
        for buffer in (self._sums, self._number, self._start):
            buffer.zero_()
        if draws.shares is not None:
            self._shares[:, : draws.shares.shape[1]].copy_(torch.from_numpy(draws.shares))
        if isinstance(self.data, LongTailed):
            rows, sizes = _rows_of_rank(self.data, draws, epoch, self._learner)
            self._rows[:, : rows.shape[1]].copy_(torch.from_numpy(rows))
            for size in sizes:
                self.step(size)
        else:
            both = zip(draws.orders, draws.streams, strict=True)
            for batches in zip(*(self.data.batches(order, epoch, rng) for order, rng in both), strict=True):
                self._step(batches)
        return self._sums

    def _resident_step(self, size: int) -> None:
        """Run a step on the next `size` images of the rows, which a GPU can record."""
        assert isinstance(self.data, LongTailed)
        rows = self._rows[:, self._start + self._ramp[:size]]
        self._step([self.data.cut(branch, self._kind.flip) for branch in rows.split(4)])  # type: ignore[no-untyped-call]
        self._start += size

    def _step(self, batches: Sequence[Batch]) -> None:
        """Run a step on one batch per branch, which updates weights, momentum, statistics and sums.

        A mean over a rank's images is weighted by their share in the whole batch.
        """
        inputs, targets = self._mixed(batches)
        logits = self._logits(inputs)
        count, *shares = self._learner.ranks.shares(
            partial(logits.new_full, (), len(logits)), *(partial(self._normaliser, labels) for _, labels in targets)
        )
        predicted, n = logits.detach().argmax(1), len(logits)
        loss, correct = logits.new_zeros(()), logits.new_zeros(())
        for share, (weight, labels) in zip(shares, targets, strict=True):
            loss = loss + weight * share * self._loss(logits, labels)
            correct = correct + weight * (predicted == labels).sum()
        self._descend(loss)
        self._sums += torch.stack((loss.detach() * (n / count), correct, torch.full_like(correct, n))).double()
        self._number += 1

    def _mixed(self, batches: Sequence[Batch]) -> tuple[tuple[Any, ...], Targets]:
        """Return the network's inputs, and the labels with their weights."""
        if self._kind.mixture is None:
            ((images, labels),) = batches
            return (images,), [(1.0, labels)]
        share, rest = self._shares[:, self._number].flatten().unbind()
        return self._kind.mixture.mix(batches, share, rest)

    def _logits(self, inputs: tuple[object, ...]) -> Tensor:
        if not self._rounded:
            return self._learner.logits(*inputs)
        with torch.no_grad():
            torch._foreach_copy_(list(self._rounded.values()), [self._parameters[name] for name in self._rounded])
        return self._learner.logits(*inputs, weights=self._rounded)

    def _descend(self, loss: Tensor) -> None:
        """Take one step of SGD with the learner's momentum on a batch's loss, of which each rank has a part.

        It calls the function below ``torch.optim.SGD``, since that class imports a compiler, which takes a second.
        """
        for name in self._trained:
            self._rounded.get(name, self._parameters[name]).grad = None  # a recording that failed may have left one
        loss.backward()  # type: ignore[no-untyped-call]
        gradients = {name: self._gradients.get(name, self._parameters[name].grad) for name in self._trained}
        with torch.no_grad():
            if self._gradients:
                rounded: list[Any] = [self._rounded[name].grad for name in self._gradients]
                torch._foreach_copy_(list(self._gradients.values()), rounded)
            self._learner.ranks.add(list(gradients.values()))  # type: ignore[arg-type]  # each has one
            for names, weight_decay in self._groups:
                sgd(
                    [self._parameters[name] for name in names],
                    [gradients[name] for name in names],  # type: ignore[misc]
                    [self._learner.momentum[name] for name in names],
                    weight_decay=weight_decay,
                    momentum=self._kind.momentum,
                    lr=self._lr,
                    dampening=0.0,
                    nesterov=self._kind.nesterov,
                    maximize=False,
                    fused=True,  # other forms read the lr back to the host at every step
                )


def steps_for(learner: Learner, data: Data, epoch: Epoch, trained: Sequence[str]) -> Steps:
    """Return the steps of an instruction for which `learner` is prepared; one `kind` and data set share them."""
    key = kind(epoch)
    steps: Steps | None = learner.steps.pop(key, None)
    if steps is None or steps.data is not data:
        dropped = [steps] if steps is not None else []
        while len(learner.steps) >= KEPT:
            dropped.append(learner.steps.pop(next(iter(learner.steps))))  # the longest unused
        for old in dropped:
            old.step.forget()
        steps = Steps(learner, data, epoch, trained)
    learner.steps[key] = steps
    return steps


def loss_of(
    epoch: Epoch, counts: NDArray[np.int64], device: torch.device, dtype: torch.dtype = torch.float32
) -> tuple[Callable[[Tensor, Tensor], Tensor], Callable[[Tensor], Tensor]]:
    """Return the loss of an instruction over classes of these sizes, and the divisor of its mean.

    Returns:
        The loss (logits (B, C), labels (B,)) → (); and the divisor, labels (B,) → (): their number or the sum of their
        weights.
    """
    loss = epoch.loss.build(torch.tensor(counts, dtype=dtype, device=device))
    weights = None
    if epoch.effective_number:  # computed on the host in float64, rounded once
        exact = torch.tensor(counts, dtype=torch.float64)
        weights = effective_number_weights(exact, epoch.effective_number).to(device, dtype)

    def normaliser(labels: Tensor) -> Tensor:
        if weights is None or not epoch.loss.weighted_mean:
            return labels.new_full((), len(labels), dtype=dtype)
        return weights[labels].sum()

    return lambda logits, labels: loss(logits, labels, weights), normaliser


def effective_number_weights(n: Tensor, beta: float) -> Tensor:
    """Return weights inverse to the effective number of samples: ``(1 - β) / (1 - β^n_j)``, normalised to sum C: (C,).

    Cui et al. (2019), eq. 2. Since β is close to 1, n is in float64 and `expm1` avoids the cancellation in 1 - β^n.
    """
    weights = (1 - beta) / -torch.expm1(n * math.log(beta))
    return weights / weights.sum() * len(n)


def _rows_of_rank(
    data: LongTailed, draws: Draws, epoch: Epoch, learner: Learner
) -> tuple[NDArray[np.int64], list[int]]:
    """Return the input of `LongTailed.cut` for a rank's images in order, four rows per branch, and the steps' sizes."""
    rows = [data.rows(order, epoch, rng) for order, rng in zip(draws.orders, draws.streams, strict=True)]
    ranks, n, size = learner.ranks, len(draws.orders[0]), epoch.batch_size
    sizes = [len(range(min(size, n - start))[ranks.share]) for start in range(0, n, size)]
    columns = np.concatenate([np.arange(start, min(start + size, n))[ranks.share] for start in range(0, n, size)])
    return np.concatenate(rows)[:, columns], sizes
