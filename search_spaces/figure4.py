"""Figure 4: the images of Figure 3 when the network is trained on the whole balanced set.

    study run figure4                         digits-LT at IF 50 and 1, 10 replicates: 2000 epochs of 2000
    study run figure4 --paper                 CIFAR-10-LT at IF 50 and 1, 10 replicates: 4000 epochs of 4000 in all

Paper: Figure 4 (A.4). The paper concludes that the same images lose their regularity as their class gets smaller. The
runs are those of Table 8, and as many runs on all images of each class. The first images of each class are those of the
long-tailed set. The table shows both kinds of runs, class by class. Evidence on digits: mechanics only.
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
    """Return Table 8's runs, and the same at an imbalance factor of 1."""
    base = table8.space(request)
    balanced = []
    for trial in base.trials:
        config = Config.from_json(trial.config)
        if facts(config.dataset).natural is not None:
            raise Refusal("--data", config.dataset, "must be a balanced data set, which is then made long-tailed")
        if config.imbalance == 1.0:
            hint = "Figure 4 compares the long-tailed set with the balanced one"
            raise Refusal("--imbalance", 1.0, "must be above 1", hint)
        whole = replace(config, imbalance=1.0)
        balanced.append(replace(trial, row=BALANCED, config=whole.to_json(), axes={**trial.axes, "imbalance": 1.0}))
    title = "Figure 4: the same images when the balanced set is trained on"
    return replace(base, name="figure4", title=title, trials=(*base.trials, *balanced))


def view(results: Results) -> list[Table | Figure]:
    """Return for each data set the long-tailed set's images in balanced training, and their regularity in both."""
    import numpy as np

    from search_spaces.shared.analysis import regularity

    exhibits: list[Table | Figure] = []
    for column in results.columns:
        long_tailed, balanced = (results[row, column] for row in results.rows)
        counts = class_counts(Config.from_json(long_tailed.trial.config))
        events = [table8.events(long_tailed), table8.events(balanced)]
        if events[1] is not None:
            whole = class_counts(Config.from_json(balanced.trial.config))
            events[1] = _same_images(events[1], counts, whole)
            exhibits.append(figure3.scatter(balanced, events[1], counts, "Figure 4: events of each image, balanced"))
        regularities = [None if pair is None else regularity(*pair, np.asarray(counts)) for pair in events]
        head, rows = ["class", "images"], [[str(rank), str(n)] for rank, n in enumerate(counts)]
        for name in ("learned", "forgotten", "irregularity"):
            for training_set, measured in zip(("long-tailed", "balanced"), regularities, strict=True):
                head.append(f"{name}, {training_set}")
                for rank, row in enumerate(rows):
                    row.append(NOTHING if measured is None else f"{getattr(measured, name)[rank]:.4f}")
        notes = ["The same images, in a long-tailed training set and as a part of the balanced one."]
        exhibits.append(Table(f"Figures 3 and 4: events of the same images, {column}", head, rows, notes))
    return exhibits


def _same_images(
    events: tuple[Floats, Floats], counts: tuple[int, ...], whole: tuple[int, ...]
) -> tuple[Floats, Floats]:
    """Return the events of the first n_j images of each class, which are the long-tailed set's."""
    import numpy as np

    first = np.cumsum(whole) - whole
    kept = np.concatenate([start + np.arange(n) for start, n in zip(first, counts, strict=True)])
    return events[0][kept], events[1][kept]
