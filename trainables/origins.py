"""What determines state 0 of a configuration on a kind of machine. Pure: no torch."""

from __future__ import annotations

from study.machine import Machine
from trainables.config import Config
from trainables.data.datasets import facts
from trainables.recipe import Origin, settled


def origin(config: Config, machine: Machine) -> Origin:
    """The origin of a configuration on a kind of machine."""
    known = facts(config.dataset)
    return Origin(
        dataset=config.dataset,
        fingerprint=known.fingerprint,
        imbalance=config.imbalance,
        split_seed=config.split_seed if "split" in known.drawn else 0,
        subset_seed=config.subset_seed if "subset" in known.drawn else 0,
        backbone=config.backbone,
        head=config.head,
        seed=config.seed,
        precision=precision(config, machine),
        device=machine.device,
        threads=machine.threads,
        ranks=machine.ranks,
        **settled(),
    )


def precision(config: Config, machine: Machine) -> str:
    """fp32, tf32 or bf16: as the configuration says, or else the machine; of auto, what is faster of fp32 and bf16.

    That is bf16 on a machine that has arithmetic for it, but fp32 on digits: on images of 8 × 8 bf16 makes the steps of
    the eight-layer network no shorter (tests/benchmarks/results/epoch.json), and so digits are trained alike anywhere.
    """
    asked = machine.precision if config.precision == "auto" else config.precision
    if asked == "auto":
        return "bf16" if machine.bf16 and config.dataset != "digits" else "fp32"
    return asked
