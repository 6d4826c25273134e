"""iNaturalist 2018."""

from __future__ import annotations

from typing import ClassVar

from trainables.data.facts import Lists
from trainables.data.kinds import Files, Listed


class INaturalist2018(Listed):
    """iNaturalist 2018. Papers report results on its val list, which has three images per class.

    For selection, one training image is held out of each class that has ten or more.
    """

    classes = 8142
    largest = 1000
    natural = 1000 / 2
    mean = (0.466, 0.471, 0.380)
    std = (0.195, 0.194, 0.192)
    lists = Lists("iNaturalist18", 437_513, 24_426, 0)
    selection = "train"
    settings: ClassVar = {**Files.settings, "lr": 0.05, "batch_size": 512, "weight_decay": 1e-4}
