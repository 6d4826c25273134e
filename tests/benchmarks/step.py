"""A training step at batch 64: ours in every mode, a public trainer's, the best eager one, and what it needs at least.

    python tests/benchmarks/step.py [--repeats 3] [--steps N] [--device cpu|cuda] [--compile] [--out JSON] [PART ...]

Ours are whole epochs of the project's loop, draws on the host included, divided by their steps: eager, an operation at
a time, and, on a GPU, recorded as a CUDA graph; in fp32, TF32 (on a GPU) and bf16. The images lie on the device, in the
proportions of CIFAR-10-LT, IF 50, or digits-LT: random ones with a mark of their class. ResNet-32 on CIFAR's size, the
eight-layer network on digits'. The peers: eager steps on batches that lie ready on the device, in {fp32, tf32, bf16} ×
{contiguous, channels_last}, with PyTorch's fused SGD and cudnn.benchmark, and nothing read back until the end; and the
public trainer, a DataLoader with PIL, PyTorch's own TF32 settings, cudnn.benchmark and ``.item()`` every batch. One
thread on a CPU. Making a learner sets PyTorch's switches for the process, so each side sets its own before it is timed;
a GPU is waited for at both ends.

PART, all by default: networks (those times); together (2, 4 and 8 networks on one GPU, recorded, in one process: a
thread each, or launched in turn by one thread); agreement (which runs of 50 steps have each other's bits, and what
cudnn.deterministic costs); processes (2, 4 and 8 processes on one GPU, under MPS if CUDA_MPS_PIPE_DIRECTORY is set);
floors. ``--compile`` adds the network compiled inside its recording, in bf16. The record is written as it comes; a part
that fails or has no time left (``--limit``) loses no other, and the exit code is 1 if one failed.

``floors_ms``: what ResNet-32's step takes at least, by arithmetic, its operations at the speed of a large product of
matrices, and by memory, its activations at the speed of a large copy; both speeds are measured here. Activations are
the outputs of its convolutions. With batch norm and ReLU behind it, each is read or written five times on the way
forward (convolution: in, out; statistics; normalisation: in, out) and nine times back, by kernels that fuse no more.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from statistics import median
from typing import IO, Any

import numpy as np
import torch
from loader import EPOCH, long_tailed
from loops import FORMATS, PUBLIC, SWITCHES, Student, arithmetic, by_threads, eager, in_turn, network, ours, timed
from measuring import Record, alternate, arguments, at_least_one, gpu, ratio, seconds, shortened, spread
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset
from torch.utils.flop_counter import FlopCounterMode

from search_spaces.shared.protocol import base
from study.machine import Machine, gpus_have_bf16, has_bf16
from trainables.config import Config
from trainables.data.datasets import facts
from trainables.data.resident import Arrays, LongTailed
from trainables.origins import precision
from trainables.team import AUTO_STEPS

CIFAR = Config()
TYPES = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16}
OURS = {kind: {**switches, "deterministic": True} for kind, switches in SWITCHES.items()}  # as a learner sets them
PASSES = 14  # over the activations
EPOCH_STEPS = 219  # of CIFAR-10-LT, IF 50
COMPARED = 50
PARTS = ("networks", "floors", "together", "agreement", "processes")


@dataclass(frozen=True)
class Side:
    """What is timed: a call that makes so many steps, under switches of its own."""

    act: Callable[[], object]
    steps: int
    device: str
    switches: Mapping[str, bool]

    def ms(self) -> float:
        """Milliseconds a step."""
        return 1000 * timed(self.act, self.device, **self.switches) / self.steps


def resident(dataset: str, steps: int, device: str) -> LongTailed:
    """So many steps' images on the device, in the proportions of IF 50."""
    rng, known = np.random.default_rng(0), facts(dataset)
    whole, total = np.asarray(known.counts(50)), steps * EPOCH.batch_size
    counts = np.maximum(1, whole * total // whole.sum())
    counts[0] += total - counts.sum()
    labels, bright = np.repeat(np.arange(known.classes), counts), int(known.scale) + 1
    shape = (known.channels, known.side, known.side)
    marks = rng.integers(bright, size=(known.classes, *shape), dtype=np.uint16)
    images = ((marks[labels] + rng.integers(bright, size=(total, *shape), dtype=np.uint16)) // 2).astype(np.uint8)
    test, half = np.arange(20) % known.classes, np.arange(20) % 2 == 0
    return LongTailed(known, Arrays(counts, images, images[:20], test, half), known.crop, torch.device(device))


def machine_of(device: str) -> Machine:
    """One thread of this machine, or its GPU."""
    return Machine(device, 1, bf16=gpus_have_bf16() if device == "cuda" else has_bf16())


def kinds(device: str) -> tuple[str, ...]:
    """The precisions that a device has."""
    return tuple(kind for kind in SWITCHES if device == "cuda" or kind != "tf32")


def own(config: Config, kind: str, data: LongTailed, recorded: bool = False, compiled: str = "") -> Student:
    """One of ours, in this precision; `compiled` names the compiler's backend."""
    device = data.device.type
    student = ours(replace(config, precision=kind), data, machine_of(device), recorded)
    if compiled:
        torch._dynamo.config.recompile_limit = 64
        student.learner.network.compile(dynamic=False, fullgraph=True, backend=compiled)
    return student


# One network


def peers(config: Config, data: LongTailed) -> dict[str, Callable[[], Side]]:
    """The eager step in each precision and layout, on batches that are ready."""
    device, rng = data.device.type, np.random.default_rng(1)
    known, order = facts(config.dataset), rng.permutation(int(data.counts.sum()))
    batches = list(data.batches(order, replace(EPOCH, crop=known.crop, flip=known.flip), rng))

    def make(kind: str, layout: str) -> Side:
        act = eager(config, batches, kind == "bf16", layout, device, best=True)
        return Side(act, len(batches), device, {**SWITCHES[kind], "benchmark": True})

    return {f"eager {kind} {layout}": partial(make, kind, layout) for kind in kinds(device) for layout in FORMATS}


def ours_by_mode(config: Config, data: LongTailed, whole: LongTailed | None) -> dict[str, Callable[[], Side]]:
    """Ours in each precision: eager on some data and, if there are `whole` data, recorded on these."""
    device = data.device.type

    def make(kind: str, images: LongTailed, recorded: bool) -> Side:
        act = own(config, kind, images, recorded)
        steps = int(images.counts.sum()) // EPOCH.batch_size
        return Side(act, steps, device, OURS[kind])

    made = {f"ours {kind}": partial(make, kind, data, False) for kind in kinds(device)}
    if whole is not None:
        made |= {f"ours recorded {kind}": partial(make, kind, whole, True) for kind in kinds(device)}
    return made


def warm(sides: Mapping[str, Side], small: Mapping[str, Callable[[], Side]], record: Record) -> dict[str, Side]:
    """The first step of a kind makes what the others use again, and records; a side that fails here is left out."""
    for name in sides:
        act = sides[name] if "recorded" in name else small[name]() if name in small else None
        with record.guarded(name):
            if act is not None:
                act.ms()
    return {name: side for name, side in sides.items() if name not in record.failed}


def one_network(
    result: dict[str, Any],
    config: Config,
    count: int,
    repeats: int,
    device: str,
    record: Record,
    public: Side | None = None,
) -> None:
    """Milliseconds a step, into `result`: ours in every mode, the eager one's ways, and the public trainer's."""

    def factories(steps: int, whole: LongTailed | None = None) -> dict[str, Callable[[], Side]]:
        data = resident(config.dataset, steps, device)
        return peers(config, data) | ours_by_mode(config, data, whole)

    whole = resident(config.dataset, EPOCH_STEPS, device) if "recorded" in modes(device) else None
    made = {name: record.take(name, factory) for name, factory in factories(count, whole).items()}
    sides = {name: side for name, side in made.items() if side is not None}
    sides = warm(sides, factories(2), record) | ({"public trainer": public} if public is not None else {})
    raw = result.setdefault("rounds", {})
    found = alternate({name: side.ms for name, side in sides.items()}, repeats, record, raw)
    del result["rounds"]
    result |= {"steps": {name: sides[name].steps for name in found}, **compared(found, config, device)}
    record.save()


def compared(found: Mapping[str, list[float]], config: Config, device: str) -> dict[str, Any]:
    """Each side's times, and how many times less ours takes, by default and at best, than the best peers."""

    def quickest(beginning: str) -> str:
        return min((s for s in found if s.startswith(beginning)), key=lambda s: median(found[s]), default="")

    kind = precision(config, machine_of(device))
    auto = f"recorded {kind}" if device == "cuda" and AUTO_STEPS == "recorded" else kind
    chosen = {"ours": f"ours {auto}", "best_ours": quickest("ours")}
    by = {"ratios": chosen["ours"], "best_ratios": chosen["best_ours"]}
    against = [peer for peer in (quickest("eager"), "public trainer") if peer in found]
    return {
        "default_precision": kind,
        "best_eager": quickest("eager"),
        **chosen,
        "ms": {name: spread(values) for name, values in found.items()},
        **{name: {p: ratio(found[p], found[side]) for p in against if side in found} for name, side in by.items()},
    }


def trainer(count: int, device: str) -> Side:
    """A public trainer's so many steps, data and all: fp32, contiguous, as users write it."""
    _, pictures = long_tailed((count + 1) * EPOCH.batch_size)
    kept, cuda = Subset(pictures, range(count * EPOCH.batch_size)), device == "cuda"
    loader = DataLoader(
        kept, EPOCH.batch_size, shuffle=True, num_workers=4 if cuda else 2, persistent_workers=True, pin_memory=cuda
    )
    side = Side(eager(CIFAR, loader, bf16=False, device=device), count, device, PUBLIC)
    side.ms()  # its workers start
    return side


def compiled(found: dict[str, Any], count: int, repeats: int, device: str, backend: str = "inductor") -> None:
    """ResNet-32 compiled, inside its recording, alone and several at once; how long the first one took to compile."""
    data = resident(CIFAR.dataset, count, device)
    began = time.perf_counter()
    students = [own(CIFAR, "bf16", data, recorded=True, compiled=backend)]
    timed(students[0], device, **OURS["bf16"])
    found["seconds_to_compile"] = shortened(time.perf_counter() - began)
    found["1"] = at_once(students, count, repeats, device, **OURS["bf16"])
    for k in (4, 8) if device == "cuda" else ():
        students += [own(CIFAR, "bf16", data, recorded=True, compiled=backend) for _ in range(k - len(students))]
        found[str(k)] = at_once(students, count, repeats, device, **OURS["bf16"])


# Several at once


def together(
    found: dict[str, Any], kind: str, count: int, repeats: int, device: str, record: Record, most: int = 8
) -> None:
    """1, 2, 4, … networks in one process, each with its recording and its stream, into `found`."""
    data, students = resident(CIFAR.dataset, count, device), []
    for k in (1, 2, 4, 8):
        if k <= most:
            students += [own(CIFAR, kind, data, recorded=True) for _ in range(k - len(students))]
            part = f"{k} networks in one process, {kind}"
            each = record.take(part, partial(at_once, list(students), count, repeats, device, **OURS[kind]))
            found |= {str(k): each} if each is not None else {}


def at_once(students: list[Student], count: int, repeats: int, device: str, **switches: bool) -> dict[str, Any]:
    """Milliseconds for one step of one network, while all are trained."""
    for student in students:
        timed(student, device, **switches)  # what is not recorded yet is
    found: dict[str, Any] = {}
    for name, act in {"threads": by_threads(students), "in turn": in_turn(students, count)}.items():
        side = Side(act, count * len(students), device, switches)
        side.ms()
        found[name] = spread([side.ms() for _ in range(repeats)])
    if device == "cuda":
        found["MiB"] = torch.cuda.max_memory_allocated() >> 20
    return found


def processes(
    found: dict[str, Any],
    kind: str,
    count: int,
    device: str,
    sizes: tuple[int, ...] = (1, 2, 4, 8),
    window: float = 2.5,
    limit: float = 120.0,
) -> dict[str, Any]:
    """Milliseconds for one step of one network while so many processes train one each, eager and recorded: `found`."""
    command = [sys.executable, __file__, "--worker", kind, "--device", device, "--steps", str(count)]
    running = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(max(sizes))
    ]
    alarm = threading.Timer(limit, lambda: [each.kill() for each in running])
    alarm.start()
    try:
        for each in running:
            line = _pipe(each.stdout).readline()
            assert line == "ready\n", f"a process ended before it trained, or took too long: {line!r}"
        for k in sizes:
            for mode in modes(device):
                found.setdefault(mode, {})[str(k)] = _window(running[:k], mode, window)
        return found
    finally:
        _end(running)
        alarm.cancel()


def _window(running: list[subprocess.Popen[str]], mode: str, window: float) -> dict[str, Any]:
    """Let them train for so many seconds, and add what they made of it."""
    for each in running:
        _pipe(each.stdin).write(f"{mode} {time.time() + window}\n")
        _pipe(each.stdin).flush()
    made = [json.loads(_pipe(each.stdout).readline()) for each in running]
    rate = sum(own["steps"] / own["seconds"] for own in made)
    return {"ms": shortened(1000 / rate), "steps": [own["steps"] for own in made]}


def _pipe(pipe: IO[str] | None) -> IO[str]:
    assert pipe is not None
    return pipe


def _end(running: list[subprocess.Popen[str]]) -> None:
    """They end when nothing more is asked of them; whoever does not is killed."""
    for each in running:
        with suppress(OSError):
            _pipe(each.stdin).close()
    for each in running:
        try:
            each.wait(10)
        except subprocess.TimeoutExpired:
            each.kill()
            each.wait()
        _pipe(each.stdout).close()


def modes(device: str) -> tuple[str, ...]:
    """How steps can be given to a device."""
    return ("recorded", "eager") if device == "cuda" else ("eager",)


def worker(kind: str, count: int, device: str) -> None:
    """One of those processes: says that it is ready, reads how to train until when, and says what it made."""
    data = resident(CIFAR.dataset, count, device)
    students = {mode: own(CIFAR, kind, data, recorded=mode == "recorded") for mode in modes(device)}
    for student in students.values():
        timed(student, device, **OURS[kind])
    print("ready", flush=True)
    for line in sys.stdin:
        mode, end = line.split()
        began, done = time.time(), 0
        while time.time() < float(end):
            timed(students[mode], device, **OURS[kind])
            done += count
        print(json.dumps({"steps": done, "seconds": time.time() - began}), flush=True)


# Bits


def agreement(kind: str, device: str, repeats: int, count: int = COMPARED) -> dict[str, Any]:
    """Which runs of so many steps have each other's bits, with cudnn.deterministic and without, and a step's time."""
    data, found = resident(CIFAR.dataset, count, device), {}
    for deterministic in (False, True):
        switches = {**SWITCHES[kind], "deterministic": deterministic}
        runs = {(mode, n): own(CIFAR, kind, data, mode == "recorded") for mode in modes(device) for n in (0, 1)}
        states = {}
        for run, student in runs.items():
            timed(student, device, **switches)
            states[run] = student.learner.state()
        same = {"eager and eager": difference(states["eager", 0], states["eager", 1])}
        if "recorded" in modes(device):
            same["recorded and eager"] = difference(states["recorded", 0], states["eager", 0])
            same["recorded and recorded"] = difference(states["recorded", 0], states["recorded", 1])
        ms = {
            mode: spread([Side(runs[mode, 0], count, device, switches).ms() for _ in range(repeats)])
            for mode in modes(device)
        }
        found["deterministic" if deterministic else "not deterministic"] = {"runs": same, "ms": ms}
    return {"steps": count, **found}


def difference(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> dict[str, Any]:
    """Whether two states have the same bits, and how far apart they are at most."""
    far = max((one[name].double() - other[name].double()).abs().max().item() for name in one)
    return {"same_bits": all(torch.equal(one[name], other[name]) for name in one), "largest_difference": far}


# Floors


def floors(device: str) -> dict[str, dict[str, float]]:
    """What ResNet-32's step takes at least in each precision, in ms, by arithmetic and by memory."""
    flops, elements = _counted(device)
    found = {}
    for kind in kinds(device):
        with arithmetic(**SWITCHES[kind]):
            rate, bandwidth = _speeds(TYPES[kind], device)
        found[kind] = {
            "arithmetic": shortened(1000 * flops / rate),
            "memory": shortened(1000 * PASSES * elements * TYPES[kind].itemsize / bandwidth),
            "tflops": shortened(rate / 1e12),
            "gb_per_s": shortened(bandwidth / 1e9),
        }
    return found


def _counted(device: str) -> tuple[int, int]:
    """A step's operations, and the elements of its activations."""
    model, known = network(CIFAR).to(device), facts(CIFAR.dataset)
    elements = 0

    def count(_module: nn.Module, _inputs: object, output: Tensor) -> None:
        nonlocal elements
        elements += output.numel()

    for part in model.modules():
        if isinstance(part, nn.Conv2d):
            part.register_forward_hook(count)
    with FlopCounterMode(display=False) as counted:
        model(torch.randn(EPOCH.batch_size, known.channels, known.side, known.side, device=device)).sum().backward()
    return counted.get_total_flops(), elements


def _speeds(dtype: torch.dtype, device: str) -> tuple[float, float]:
    """Operations a second of a large product, and bytes a second of a large copy."""
    size = 8192 if device == "cuda" else 1024
    one, other = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    rate = 2 * size**3 / _fastest(lambda: one @ other, device)
    big = torch.empty(1 << 28 if device == "cuda" else 1 << 26, dtype=torch.uint8, device=device)
    to = torch.empty_like(big)
    return rate, 2 * big.numel() / _fastest(lambda: to.copy_(big), device)


def _fastest(act: Callable[[], object], device: str) -> float:
    """Seconds of the fastest of ten calls."""

    def whole() -> None:
        act()
        if device == "cuda":
            torch.cuda.synchronize()

    whole()
    return min(seconds(whole) for _ in range(10))


# All of it


def measure(asked: Any, record: Record) -> None:
    """Every part that was asked for, into the record."""
    device, repeats, result = asked.device, asked.repeats, record.result
    count = asked.steps or (60 if device == "cuda" else 12)
    networks: dict[str, Any] = result.setdefault("networks", {})
    if "floors" in asked.parts:
        result["floors_ms"] = record.take("floors", partial(floors, device)) or {}
    if "networks" in asked.parts:
        public = record.take("public trainer", partial(trainer, count, device))
        name, found = "ResNet-32, CIFAR", networks.setdefault("ResNet-32, CIFAR", {})
        record.take(name, partial(one_network, found, CIFAR, count, repeats, device, record, public))
    if "recorded" in modes(device):
        measure_on_gpu(asked, count, record)
    else:
        skipped = ("recorded steps", *(part for part in ("together", "agreement", "processes") if part in asked.parts))
        record.skipped.update(dict.fromkeys((*skipped, *["compiled"] * asked.compile), "no CUDA device"))
    if "networks" in asked.parts:
        digits = count if device == "cuda" else 20 * count
        name, found = "eight layers, digits", networks.setdefault("eight layers, digits", {})
        record.take(name, partial(one_network, found, base("digits"), digits, repeats, device, record))
    if asked.compile and "recorded" in modes(device):
        record.take("compiled", partial(compiled, result.setdefault("compiled_ms", {}), count, repeats, device))


def measure_on_gpu(asked: Any, count: int, record: Record) -> None:
    """What only a GPU has."""
    device, repeats = asked.device, asked.repeats
    if "together" in asked.parts:
        shared = record.result.setdefault("together_ms", {})
        for kind in ("bf16", "fp32"):
            found = shared.setdefault(kind, {})
            record.take(f"together {kind}", partial(together, found, kind, count, repeats, device, record))
    if "agreement" in asked.parts:
        agreed = record.result.setdefault("agreement", {})
        for kind in kinds(device):
            agreed[kind] = record.take(f"agreement {kind}", partial(agreement, kind, device, repeats))
            record.save()
    if "processes" in asked.parts:
        served = bool(os.environ.get("CUDA_MPS_PIPE_DIRECTORY"))
        each = record.result.setdefault("processes_ms", {"mps": served, "precision": "bf16"})
        record.take("processes", partial(processes, each, "bf16", count, device))


def main() -> int:
    """Steps of two networks, the public trainer's, and the floors; on a GPU much else."""
    parser = arguments(__doc__, "step", repeats=3)
    parser.add_argument("parts", nargs="*", metavar="PART", default=list(PARTS), help=", ".join(PARTS))
    parser.add_argument(
        "--steps",
        type=at_least_one,
        help="of one measurement: on a CPU 12, of digits 20 times more; on a GPU 60, of recorded ones always 219",
    )
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--compile", action="store_true", help="ResNet-32 compiled inside its recording, too")
    parser.add_argument("--limit", type=float, default=float("inf"), help="seconds after which nothing new begins")
    parser.add_argument("--worker", choices=tuple(SWITCHES), help="for `processes`: one of them")
    asked = parser.parse_args()
    if unknown := set(asked.parts) - set(PARTS):
        parser.error(f"PART must be among {', '.join(PARTS)} (got {', '.join(sorted(unknown))})")
    if asked.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device must be cpu: this machine shows no NVIDIA GPU (got cuda)")
    if not asked.limit > 0:
        parser.error(f"--limit must be a number of seconds above 0 (got {asked.limit})")
    torch.set_num_threads(1)
    if asked.worker:
        worker(asked.worker, asked.steps or 1, asked.device)
        return 0
    known = {"unit": "ms a step; ratio: peer / ours", "n": asked.repeats, "device": asked.device}
    if asked.device == "cuda":
        known["gpu"] = gpu()
    record = Record(asked.out, known, asked.limit)
    measure(asked, record)
    return record.finish()


if __name__ == "__main__":
    sys.exit(main())
