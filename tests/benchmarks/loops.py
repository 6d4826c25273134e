"""An epoch of training, ours and eager as the public long-tailed trainers write it, for `epoch.py` and `step.py`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from loader import EPOCH
from torch import Tensor, nn

from study.machine import Machine
from trainables.config import Config
from trainables.data.datasets import facts
from trainables.loop import Learner, train_epoch
from trainables.network import build
from trainables.origins import origin
from trainables.steps import Steps, steps_for

FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
SWITCHES: dict[str, dict[str, bool]] = {
    "fp32": {},
    "tf32": {"matmul_tf32": True, "cudnn_tf32": True},
    "bf16": {},
}
PUBLIC = {"cudnn_tf32": True, "benchmark": True}  # PyTorch's defaults, and cudnn.benchmark, as in LDAM-DRW's code


def network(config: Config) -> nn.Module:
    """Ours with fresh weights, before it is laid out for anything."""
    known = facts(config.dataset)
    return build(config.backbone, config.head, known.channels, known.classes, torch.Generator().manual_seed(0))


def eager_epoch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Iterable[tuple[Tensor, Tensor]],
    bf16: bool,
    memory_format: torch.memory_format = torch.contiguous_format,
    device: str = "cpu",
    read: bool = True,
) -> tuple[float, float]:
    """An epoch as the public trainers write it; returns the mean loss and the accuracy in percent.

    They read both back from the device at every batch; without `read`, at the end.
    """
    criterion = nn.CrossEntropyLoss()
    value: Callable[[Tensor], Any] = Tensor.item if read else Tensor.detach
    model.train()
    total_loss, correct, seen = 0.0, 0.0, 0
    for images, labels in batches:
        images, labels = images.to(device, non_blocking=True), labels.to(device, non_blocking=True)
        if memory_format is torch.channels_last:
            images = images.to(memory_format=memory_format)
        with torch.autocast(device, dtype=torch.bfloat16, enabled=bf16):
            output = model(images)
            loss = criterion(output, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total_loss += value(loss) * len(labels)
        correct += value((output.argmax(1) == labels).sum())
        seen += len(labels)
    return float(total_loss) / seen, 100 * float(correct) / seen


def eager(
    config: Config,
    batches: Iterable[tuple[Tensor, Tensor]],
    bf16: bool,
    layout: str = "contiguous",
    device: str = "cpu",
    best: bool = False,
) -> Callable[[], object]:
    """Each call is an epoch of the same network; the best one has PyTorch's fused SGD and reads back nothing."""
    model = network(config).to(device, memory_format=FORMATS[layout])
    fused = True if best else None
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=2e-4, fused=fused)
    return lambda: eager_epoch(model, optimizer, batches, bf16, FORMATS[layout], device, read=not best)


class Student:
    """One of our learners with its data: each call is an epoch; lr 0.1, so that weights stay numbers."""

    def __init__(self, config: Config, data: Any, machine: Machine, recorded: bool = False) -> None:
        known = facts(config.dataset)
        self.learner, self.data = Learner(origin(config, machine), recorded=recorded), data
        self.epoch = replace(EPOCH, crop=known.crop, flip=known.flip)

    def __call__(self) -> dict[str, float]:
        return train_epoch(self.learner, self.data, self.epoch, 0)

    def steps(self) -> Steps:
        """Those that a call makes."""
        return steps_for(self.learner, self.data, self.epoch, self.learner.obey(self.epoch, 0))


def ours(config: Config, data: Any, machine: Machine, recorded: bool = False) -> Student:
    """Each call is an epoch of the same network; on a GPU its steps may be recorded."""
    return Student(config, data, machine, recorded)


# Several at once


def by_threads(students: list[Student]) -> Callable[[], object]:
    """An epoch of each, at the same time: a thread each, on a stream of its own."""
    aside = [_stream_of(student.learner.device) for student in students]

    def one(student: Student, stream: torch.cuda.Stream | None) -> None:
        with _on(stream):
            student()

    def whole() -> None:
        with ThreadPoolExecutor(len(students)) as pool:
            list(pool.map(one, students, aside))

    return whole


def in_turn(students: list[Student], count: int, size: int = EPOCH.batch_size) -> Callable[[], object]:
    """So many steps of each, launched in turn by one thread, each on its stream; of an epoch that each has run."""
    made = [(student.steps(), student.learner) for student in students]

    def whole() -> None:
        for steps, learner in made:
            with learner.stream():
                steps._number.zero_()
                steps._start.zero_()
        for _ in range(count):
            for steps, learner in made:
                with _on(learner._stream):
                    steps.step(size)

    return whole


def _stream_of(device: torch.device) -> torch.cuda.Stream | None:
    return torch.cuda.Stream(device) if device.type == "cuda" else None


def _on(stream: torch.cuda.Stream | None) -> AbstractContextManager[object]:
    return nullcontext() if stream is None else torch.cuda.stream(stream)


# Arithmetic and time


@contextmanager
def arithmetic(
    matmul_tf32: bool = False, cudnn_tf32: bool = False, benchmark: bool = False, deterministic: bool = False
) -> Iterator[None]:
    """PyTorch's switches for a while. They are the whole process's, and making a learner sets some of them."""
    wanted = (
        (torch.backends.cuda.matmul, "allow_tf32", matmul_tf32),
        (torch.backends.cudnn, "allow_tf32", cudnn_tf32),
        (torch.backends.cudnn, "benchmark", benchmark),
        (torch.backends.cudnn, "deterministic", deterministic),
    )
    before = [getattr(where, name) for where, name, _ in wanted]
    try:
        for where, name, value in wanted:
            setattr(where, name, value)
        yield
    finally:
        for (where, name, _), value in zip(wanted, before, strict=True):
            setattr(where, name, value)


def timed(act: Callable[[], object], device: str, **switches: bool) -> float:
    """Seconds of a call under switches of its own; a GPU is waited for at both ends."""
    with arithmetic(**switches):
        synchronise(device)
        began = time.perf_counter()
        act()
        synchronise(device)
        return time.perf_counter() - began


def synchronise(device: str) -> None:
    """Wait for a GPU."""
    if device == "cuda":
        torch.cuda.synchronize()
