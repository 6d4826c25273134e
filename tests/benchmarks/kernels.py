"""The kernels of a recorded training step of ResNet-32 at batch 64 in bf16: how many, and the GPU's time for each kind.

    python tests/benchmarks/kernels.py [--repeats 1] [--steps 60] [--device cpu|cuda] [--compile] [--out JSON]

PyTorch's profiler reads the kernels of so many epochs of the project's loop, whose step was recorded before. The
figures are per step. ``busy_ms`` is the sum of the kernels' times. ``wall_ms`` is the time of a step without the
profiler. A pattern in a kernel's name tells its kind; a fused kernel counts as the first kind in its name.
``--compile`` measures the compiled network, too. On a CPU, there are operators instead of kernels and nothing is
recorded: use it to try the script.
"""

from __future__ import annotations

import re
import sys
from typing import Any

import torch
from loops import Student, timed
from measuring import Record, arguments, at_least_one, gpu, shortened
from step import CIFAR, OURS, modes, own, resident
from torch.profiler import ProfilerActivity, profile

KINDS = (  # the first whose pattern is found in a kernel's name
    ("batch norm", r"batch_?norm|bn_(fw|bw)|welford"),
    ("weight gradients", r"wgrad|convolution_backward_weight"),
    ("input gradients", r"dgrad|convolution_backward"),
    ("convolutions", r"conv|fprop|xmma|cudnn|implicit"),
    ("compiled", r"triton"),
    ("optimizer and rounding of weights", r"multi_tensor|foreach|_fused_sgd"),
    ("matrix products", r"gemm|cutlass|addmm|::mm|splitK"),
    ("reductions", r"reduce|::sum|softmax|nll_loss|argmax"),
    ("indexing", r"index|gather|scatter"),
    ("copies", r"mem(cpy|set)|copy|::to\b|fill|zero"),
    ("elementwise", r"elementwise|add|mul|relu|threshold|clamp"),
)
NAMED = 30  # kernels that are listed by their names


def kind_of(name: str) -> str:
    """The kind of a kernel, or of an operator."""
    return next((kind for kind, pattern in KINDS if re.search(pattern, name, re.IGNORECASE)), "others")


def kernels(student: Student, steps: int, repeats: int, device: str) -> dict[str, Any]:
    """Number and milliseconds of the kernels of a step, by kind, and of the longest by name."""

    def epochs() -> float:
        return sum(timed(student, device, **OURS["bf16"]) for _ in range(repeats))

    epochs()  # records
    wall, total = epochs(), repeats * steps
    activity = ProfilerActivity.CUDA if device == "cuda" else ProfilerActivity.CPU
    with profile(activities=[activity], acc_events=True) as seen:  # acc_events: without it, it warns
        epochs()
    found: dict[str, dict[str, float]] = {}
    names: dict[str, dict[str, float]] = {}
    for event in seen.key_averages():
        if device == "cuda" and event.device_type.name != "CUDA":
            continue  # a launch, on the host
        microseconds = event.self_device_time_total if device == "cuda" else event.self_cpu_time_total
        for table, key in ((found, kind_of(event.key)), (names, event.key)):
            row = table.setdefault(key, {"count": 0.0, "ms": 0.0})
            row["count"] += event.count / total
            row["ms"] += microseconds / 1000 / total

    def longest(table: dict[str, dict[str, float]], most: int | None = None) -> dict[str, dict[str, float]]:
        rows = sorted(table.items(), key=lambda item: -item[1]["ms"])[:most]
        return {name[:160]: {column: shortened(value) for column, value in row.items()} for name, row in rows}

    return {
        "wall_ms": shortened(1000 * wall / total),
        "busy_ms": shortened(sum(row["ms"] for row in found.values())),
        "kernels": shortened(sum(row["count"] for row in found.values())),
        "kinds": longest(found),
        "longest": longest(names, NAMED),
    }


def main() -> int:
    """The step as it is, and compiled."""
    parser = arguments(__doc__, "kernels", repeats=1)
    parser.add_argument("--steps", type=at_least_one, default=60)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--compile", action="store_true", help="the compiled network, too")
    asked = parser.parse_args()
    known = {"unit": "per step", "n": asked.repeats, "device": asked.device, "steps": asked.steps}
    record = Record(asked.out, known | ({"gpu": gpu()} if asked.device == "cuda" else {}))
    data, recorded = resident(CIFAR.dataset, asked.steps, asked.device), "recorded" in modes(asked.device)
    for name in ["ours", *["compiled"] * asked.compile]:
        with record.guarded(name):
            student = own(CIFAR, "bf16", data, recorded, compiled="inductor" if name == "compiled" else "")
            record.result[name] = kernels(student, asked.steps, asked.repeats, asked.device)
    return record.finish()


if __name__ == "__main__":
    sys.exit(main())
