"""The steps of an epoch: what is done with a batch, upon tensors that stay where they are from step to step."""

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

KEPT = 4  # most kinds of steps that a learner keeps: what is recorded of one takes some hundred MB of a GPU


def kind(epoch: Epoch) -> Epoch:
    """What a step depends on by itself: the instruction without what fills its tensors or is done before it."""
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

    What differs between two steps or two epochs is filled into tensors, and a step finds its images and shares by
    counters that lie on the device. So a GPU can record a step of data that lie there and replay it.

    Args:
        learner: whose network and momentum it trains, in place.
        data: on the learner's device.
        epoch: the instruction; of those of one `kind`, any.
        trained: the names of the parameters that are trained.

    Attributes:
        data: what it was made for.
        step: one step of data that lie on the device.
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
        # Autocast would round the weights of each convolution by itself, and take each gradient back: a kernel each.
        bf16 = learner.origin.precision == "bf16"
        convolutions = [part.weight for part in learner.network.modules() if isinstance(part, nn.Conv2d) and bf16]
        self._rounded = {
            name: torch.empty_like(own, dtype=torch.bfloat16, requires_grad=name in trained)
            for name, own in self._parameters.items()
            if any(own is weight for weight in convolutions)
        }
        self._gradients = {name: torch.zeros_like(self._parameters[name]) for name in self._rounded if name in trained}
        images, branches = int(data.counts.sum()), 1 if epoch.mixture is None or epoch.mixture.second is None else 2
        device, dtype = learner.device, next(learner.network.parameters()).dtype
        self._lr = torch.zeros((), device=device)
        self._shares = torch.zeros(2, -(-images // epoch.batch_size), dtype=dtype, device=device)
        self._sums = torch.zeros(3, dtype=torch.float64, device=device)  # loss, correct, draws
        self._number = torch.zeros(1, dtype=torch.int64, device=device)  # of the step
        self._place = torch.zeros(1, dtype=torch.int64, device=device)  # of its first image
        self._ramp = torch.arange(epoch.batch_size, device=device)
        if isinstance(data, LongTailed):
            self._rows = torch.zeros(4 * branches, images, dtype=torch.int64, device=device)
        self.step = Replayed(self._resident_step, learner.recorder)

    def run(self, drawn: Draws, epoch: Epoch) -> Tensor:
        """All steps of an epoch; on CUDA the host does not wait for them.

        Returns the sums over the draws of the loss and of what was right, and the draws' number, on the device: (3,).
        """
        self._lr.fill_(epoch.lr)
        for buffer in (self._sums, self._number, self._place):
            buffer.zero_()
        if drawn.shares is not None:
            self._shares[:, : drawn.shares.shape[1]].copy_(torch.from_numpy(drawn.shares))
        if isinstance(self.data, LongTailed):
            rows, sizes = _own_rows(self.data, drawn, epoch, self._learner)
            self._rows[:, : rows.shape[1]].copy_(torch.from_numpy(rows))
            for size in sizes:
                self.step(size)
        else:
            both = zip(drawn.orders, drawn.streams, strict=True)
            for batches in zip(*(self.data.batches(order, epoch, rng) for order, rng in both), strict=True):
                self._step(batches)
        return self._sums

    def _resident_step(self, size: int) -> None:
        """A step upon the next so many images of `rows`: what a GPU records."""
        assert isinstance(self.data, LongTailed)
        rows = self._rows[:, self._place + self._ramp[:size]]
        self._step([self.data.cut(own, self._kind.flip) for own in rows.split(4)])  # type: ignore[no-untyped-call]
        self._place += size

    def _step(self, batches: Sequence[Batch]) -> None:
        """A step upon a batch for each branch: weights, momentum, statistics and sums move on.

        A mean over a rank's own images counts as much as they do in the whole batch.
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
        """The network's inputs, and its labels with how much they count."""
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
        """One step of SGD down a batch's loss, of which a rank has its part, upon the learner's momentum.

        It is the function below ``torch.optim.SGD``: that class imports a compiler, which takes a worker a second.
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
                    fused=True,  # the others read the lr back to the host at every step
                )


def steps_for(learner: Learner, data: Data, epoch: Epoch, trained: Sequence[str]) -> Steps:
    """The steps of an instruction that `learner` obeys; those of one `kind` and one data set are made once."""
    own = kind(epoch)
    known: Steps | None = learner.steps.pop(own, None)
    if known is None or known.data is not data:
        gone = [known] if known is not None else []
        while len(learner.steps) >= KEPT:
            gone.append(learner.steps.pop(next(iter(learner.steps))))  # the longest unused
        for each in gone:
            each.step.forget()
        known = Steps(learner, data, epoch, trained)
    learner.steps[own] = known
    return known


def loss_of(
    epoch: Epoch, counts: NDArray[np.int64], device: torch.device, dtype: torch.dtype = torch.float32
) -> tuple[Callable[[Tensor, Tensor], Tensor], Callable[[Tensor], Tensor]]:
    """The loss of an instruction over classes of these sizes, and what its mean divides by.

    Returns:
        (logits (B, C), labels (B,)) → (); and labels (B,) → (), their number or the sum of their weights.
    """
    loss = epoch.loss.build(torch.tensor(counts, dtype=dtype, device=device))
    weights = None
    if epoch.effective_number:  # made on the host in float64, rounded once
        exact = torch.tensor(counts, dtype=torch.float64)
        weights = effective_number_weights(exact, epoch.effective_number).to(device, dtype)

    def normaliser(labels: Tensor) -> Tensor:
        if weights is None or not epoch.loss.weighted_mean:
            return labels.new_full((), len(labels), dtype=dtype)
        return weights[labels].sum()

    return lambda logits, labels: loss(logits, labels, weights), normaliser


def effective_number_weights(n: Tensor, beta: float) -> Tensor:
    """Weights inverse to the effective number of samples: ``(1 - β) / (1 - β^n_j)``, normalised to sum C: (C,).

    Cui et al. (2019), eq. 2. β is close to 1: n is in float64, and `expm1` keeps what 1 - β^n would cancel.
    """
    weights = (1 - beta) / -torch.expm1(n * math.log(beta))
    return weights / weights.sum() * len(n)


def _own_rows(data: LongTailed, drawn: Draws, epoch: Epoch, learner: Learner) -> tuple[NDArray[np.int64], list[int]]:
    """What `LongTailed.cut` needs of a rank's images, in order, four rows a branch; and how many a step has."""
    rows = [data.rows(order, epoch, rng) for order, rng in zip(drawn.orders, drawn.streams, strict=True)]
    ranks, n, size = learner.ranks, len(drawn.orders[0]), epoch.batch_size
    sizes = [len(range(min(size, n - start))[ranks.own]) for start in range(0, n, size)]
    own = np.concatenate([np.arange(start, min(start + size, n))[ranks.own] for start in range(0, n, size)])
    return np.concatenate(rows)[:, own], sizes
