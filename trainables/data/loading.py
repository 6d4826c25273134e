"""The data set of an origin, loaded once for all instructions that crop alike."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from study.errors import Refusal
from trainables.data.datasets import facts
from trainables.data.facts import Data, Wanted
from trainables.ranks import ALONE, Ranks
from trainables.recipe import Epoch, Origin


def load(origin: Origin, epoch: Epoch, root: Path | None, workers: int = 1, ranks: Ranks = ALONE) -> Data:
    """The data of an origin, on its device; the same object for instructions that crop alike.

    Args:
        origin: its data set, imbalance factor, split and subset seeds, and device.
        epoch: the instruction; its crop.
        root: where the files of data sets lie.
        workers: processes that decode files of images; the images are the same for any number.
        ranks: whose shares its batches are.

    Raises:
        Refusal: if the files are missing, or not those of the plan.
    """
    found = facts(origin.dataset).fingerprint
    if found != origin.fingerprint:
        raise Refusal(origin.dataset, found, f"must be {origin.fingerprint}, as in the plan")
    wanted = Wanted(
        imbalance=origin.imbalance,
        split_seed=origin.split_seed,
        subset_seed=origin.subset_seed,
        crop=epoch.crop,
        device=origin.device,
        root=root if root is not None else Path(),
        workers=workers,
        ranks=ranks,
    )
    return _loaded(origin.dataset, wanted)


@lru_cache(maxsize=4)
def _loaded(dataset: str, wanted: Wanted) -> Data:
    return facts(dataset).load(wanted)
