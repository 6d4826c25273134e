"""ImageNet-LT."""

from __future__ import annotations

from trainables.data.facts import Lists
from trainables.data.kinds import Listed


class ImageNetLT(Listed):
    """ImageNet-LT (Liu et al., 2019). Transforms and statistics are as in the code of Kang et al. (2020)."""

    classes = 1000
    largest = 1280
    natural = 1280 / 5
    lists = Lists("ImageNet_LT", 115_846, 20_000, 50_000)
    jitter = 0.4
