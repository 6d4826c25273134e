"""The data set of an origin, loaded once for all instructions with the same crop."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from study.errors import Refusal
from trainables.data.datasets import changes, facts
from trainables.data.facts import Data, Wanted
from trainables.ranks import ALONE, Ranks
from trainables.recipe import Epoch, Origin


def load(origin: Origin, epoch: Epoch, root: Path | None, workers: int = 1, ranks: Ranks = ALONE) -> Data:
    """Return the data of an origin on its device; the same object for instructions with the same crop.

    Args:
        origin: the origin; its data set, imbalance factor, split and subset seeds, and device are used.
        epoch: the instruction; its crop is used.
        root: the data folder.
        workers: the number of processes that decode image files; the images are the same for any number.
        ranks: the rank whose shares the batches are.

    Raises:
        Refusal: if the files are missing, or differ from those of the plan.
    """
    fingerprint = facts(origin.dataset).fingerprint
    if fingerprint != origin.fingerprint:
        hint = "The data, or the libraries that decode them, differ from those of the plan"
        field = f"fingerprint of {origin.dataset}"
        raise Refusal(
            field,
            fingerprint,
            f"must be {origin.fingerprint}, as in the plan",
            ": ".join(filter(None, (hint, changes(origin.dataset, origin.fingerprint)))),
        )
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
