"""Figure 4: the images of Figure 3, when the whole balanced set is trained on.

    study run figure4                         digits-LT at IF 50 and 1, 10 replicates: 2000 epochs of 2000
    study run figure4 --paper                 CIFAR-10-LT at IF 50 and 1, 10 replicates: 4000 epochs of 4000 in all

Paper: Figure 4 (A.4), which concludes that the same images lose their regularity as their class gets smaller. Evidence
on digits: mechanics only. Table 8's runs, and as many on all images of each class, of which the long-tailed set has the
first. The table has both, class by class.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from search_spaces import figure3, table8
from search_spaces.shared.protocol import class_counts
from study.errors import Refusal
from study.report.exhibits import NOTHING, Figure, Table
from study.report.results import Results
from study.space import Request, Space
from trainables.config import Config
from trainables.data.datasets import facts

if TYPE_CHECKING:
    from search_spaces.shared.analysis import Floats

BALANCED = "Cross Entropy, balanced set"


def space(request: Request) -> Space:
    """Table 8's runs, and the same at an imbalance factor of 1."""
    made = table8.space(request)
    balanced = []
    for each in made.trials:
        config = Config.from_json(each.config)
        if facts(config.dataset).natural is not None:
            raise Refusal("--data", config.dataset, "a balanced data set that is made long-tailed would do")
        if config.imbalance == 1.0:
            raise Refusal("--imbalance", 1.0, "one above 1 would do: figure4 compares that set with the balanced one")
        whole = replace(config, imbalance=1.0)
        balanced.append(replace(each, row=BALANCED, config=whole.to_json(), axes={**each.axes, "imbalance": 1.0}))
    title = "Figure 4: the same images when the balanced set is trained on"
    return replace(made, name="figure4", title=title, trials=(*made.trials, *balanced))


def view(results: Results) -> list[Table | Figure]:
    """Of each data set: the long-tailed set's images under balanced training, and their regularity under both."""
    import numpy as np

    from search_spaces.shared.analysis import regularity

    shown: list[Table | Figure] = []
    for column in results.columns:
        long_tailed, balanced = (results[row, column] for row in results.rows)
        counts = class_counts(Config.from_json(long_tailed.trial.config))
        found = [table8.events(long_tailed), table8.events(balanced)]
        if found[1] is not None:
            whole = class_counts(Config.from_json(balanced.trial.config))
            found[1] = _same_images(found[1], counts, whole)
            shown.append(figure3.scatter(balanced, found[1], counts, "Figure 4: events of each image, balanced"))
        own = [None if each is None else regularity(*each, np.asarray(counts)) for each in found]
        head, rows = ["class", "images"], [[str(rank), str(n)] for rank, n in enumerate(counts)]
        for name in ("learned", "forgotten", "irregularity"):
            for trained, each in zip(("long-tailed", "balanced"), own, strict=True):
                head.append(f"{name}, {trained}")
                for rank, row in enumerate(rows):
                    row.append(NOTHING if each is None else f"{getattr(each, name)[rank]:.4f}")
        notes = ["The same images, of a long-tailed training set and as a part of the balanced one."]
        shown.append(Table(f"Figures 3 and 4: events of the same images, {column}", head, rows, notes))
    return shown


def _same_images(
    events: tuple[Floats, Floats], counts: tuple[int, ...], whole: tuple[int, ...]
) -> tuple[Floats, Floats]:
    """The events of the first n_j images of each class, which are the long-tailed set's."""
    import numpy as np

    first = np.cumsum(whole) - whole
    kept = np.concatenate([start + np.arange(n) for start, n in zip(first, counts, strict=True)])
    return events[0][kept], events[1][kept]
