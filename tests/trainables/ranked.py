"""A rank of a small training in float64, for processes that the tests start."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import torch
from learning import SHORT

from study.machine import Machine
from trainables import ranks, steps
from trainables.data.loading import load
from trainables.loop import Learner, evaluate, train_epoch
from trainables.losses import loss_of, normaliser_of
from trainables.origins import origin
from trainables.ranks import Ranks
from trainables.recipe import Epoch

SIZE = 2
CONFIG = replace(SHORT, measures=("events",))
# 13 does not divide a batch of 50 or an epoch of 342; two shares of a batch differ by one image.
EPOCHS = [
    Epoch(lr=0.05, crop=1, flip=True, batch_size=13),
    Epoch(lr=0.05, crop=1, flip=False, batch_size=50, sampler=-1.0, measures=("fit", "events")),
    Epoch(lr=0.02, crop=1, flip=False, batch_size=20, sampler=0.0, mixup=1.0, effective_number=0.99),
    Epoch(lr=0.01, crop=1, batch_size=13, loss="focal", loss_args=(1.0,), measures=("fit", "events")),
]


class Exact(Learner):
    """A learner in float64."""

    def __init__(self, own: Ranks = ranks.ALONE) -> None:
        super().__init__(origin(CONFIG, Machine("cpu", 1, ranks=own.size)), own)
        self.network.double()
        self.momentum = {name: buffer.double() for name, buffer in self.momentum.items()}

    def logits(self, *inputs: Any) -> torch.Tensor:
        return self.network(*(each.double() if isinstance(each, torch.Tensor) else each for each in inputs))


def data(own: Ranks, epoch: Epoch = EPOCHS[0]) -> Any:
    return load(origin(CONFIG, Machine("cpu", 1, ranks=own.size)), epoch, None, 1, own)


def train(rank: int, port: Any, answers: Any) -> None:
    """Train all epochs as one of two, the first of which says at what port; answer with the measures and the state."""
    own = Ranks(rank, SIZE)
    if rank == 0:
        store = ranks.meet("127.0.0.1", SIZE)
        port.put(store.port)
    else:
        store = ranks.meet("127.0.0.1", SIZE, port.get(timeout=60))
    ranks.join(own, "cpu", lambda: store)
    for constants in (loss_of, normaliser_of):
        setattr(steps, constants.__name__, partial(constants, dtype=torch.float64))
    student, measures = Exact(own), []
    for index, epoch in enumerate(EPOCHS):
        measures.append(
            train_epoch(student, data(own, epoch), epoch, index) | evaluate(student, data(own, epoch), epoch)
        )
    answers.put((rank, measures, {name: tensor.numpy() for name, tensor in student.state().items()}))
    ranks.leave()
