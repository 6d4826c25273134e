"""The arithmetic of a run (device, threads, precision, ranks), and what this machine supports."""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass
from pathlib import Path

PRECISIONS = ("auto", "fp32", "tf32", "bf16")
GPU_STEPS = ("auto", "eager", "recorded")  # how a GPU runs a training step; no part of the arithmetic


@dataclass(frozen=True)
class Machine:
    """The arithmetic of a run. It is fixed when the plan is made, and part of every state's name.

    Attributes:
        device: cpu or cuda.
        threads: CPU threads of each process that trains.
        precision: fp32, tf32, bf16 or auto. auto is fp32 or bf16, whichever is faster for a network.
        bf16: whether the processors have instructions for bf16; without them, bf16 is slower.
        ranks: processes that train one replicate together, each on its share of every batch.
    """

    device: str
    threads: int
    precision: str = "auto"
    bf16: bool = False
    ranks: int = 1


def cpus() -> int:
    """Return the number of CPUs that this process may use: batch systems and `taskset` give it a part of a machine."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def has_bf16() -> bool:
    """Return whether this machine's CPU has instructions for bf16, as Linux reports."""
    described = Path("/proc/cpuinfo")
    flags = described.read_text(encoding="utf-8").split() if described.is_file() else []
    return "avx512_bf16" in flags or "amx_bf16" in flags


def has_gpu() -> bool:
    """Return whether this machine has an NVIDIA GPU that may be used."""
    return bool(gpus())


def gpus_have_bf16() -> bool:
    """Return whether this machine has GPUs and all have instructions for bf16: compute capability 8.0 or higher."""
    capabilities = gpus()
    return bool(capabilities) and min(capabilities) >= (8, 0)


def gpus() -> tuple[tuple[int, int], ...]:
    """Return the compute capability of each NVIDIA GPU that may be used, without importing torch, which takes seconds.

    The driver's library is asked. It respects CUDA_VISIBLE_DEVICES, and is also present in containers and under WSL2,
    which have no /dev/nvidia0. It creates no CUDA context. Child processes are started by exec, so they can use GPUs.
    """
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:  # there is no driver
        return ()
    count = ctypes.c_int()
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)):
        return ()
    capabilities = []
    for device in range(count.value):
        major, minor = ctypes.c_int(), ctypes.c_int()  # 0 if the driver does not say
        driver.cuDeviceGetAttribute(ctypes.byref(major), _CAPABILITY_MAJOR, device)
        driver.cuDeviceGetAttribute(ctypes.byref(minor), _CAPABILITY_MINOR, device)
        capabilities.append((major.value, minor.value))
    return tuple(capabilities)


_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76  # of the driver's CUdevice_attribute
