"""Places-LT."""

from __future__ import annotations

from trainables.data.facts import Lists
from trainables.data.kinds import Listed


class PlacesLT(Listed):
    """Places-LT (Liu et al., 2019), as in the code of Kang et al. (2020), with the colour jitter."""

    classes = 365
    largest = 4980
    natural = 4980 / 5
    lists = Lists("Places_LT", 62_500, 7_300, 36_500)
    jitter = 0.4
