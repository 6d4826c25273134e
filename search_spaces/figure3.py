"""Figure 3: learned and forgetting events of every training image, one panel for each class.

    study run figure3                         digits-LT at IF 50, 10 replicates: 1000 epochs of 1000
    study run figure3 --paper                 CIFAR-10-LT at IF 50, 10 replicates: 2000 epochs of 2000 in all

Paper: Figure 3 (A.4). In the paper, the images of larger classes gather in the lower right corner: learned early, never
forgotten. The runs are Table 8's. Evidence on digits: mechanics only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from search_spaces import table8
from search_spaces.shared.protocol import class_counts
from study.report.exhibits import Figure
from study.report.plotting import PALETTE, slug
from study.report.results import Result, Results
from study.space import Request, Space
from trainables.config import Config

if TYPE_CHECKING:
    from search_spaces.shared.analysis import Floats

PANELS = 10  # with more classes, this many at equal distances


def space(request: Request) -> Space:
    """Return Table 8's runs."""
    title = "Figure 3: learned and forgetting events of each image of the long-tailed set"
    return replace(table8.space(request), name="figure3", title=title)


def view(results: Results) -> list[Figure]:
    """Return a scatter plot for each data set."""
    return [
        scatter(result, events, class_counts(Config.from_json(result.trial.config)), "Figure 3: events of each image")
        for result in results
        if (events := table8.events(result)) is not None
    ]


def scatter(result: Result, events: tuple[Floats, Floats], counts: Sequence[int], title: str) -> Figure:
    """Return a figure of learned against forgetting events, with a dot for each image.

    Args:
        result: the result of the runs.
        events: learned and forgetting events, sorted by class: (N,) each.
        counts: the number of images of each class: (C,).
        title: the figure's title, without the data.
    """
    ends = [sum(counts[: rank + 1]) for rank in range(len(counts))]
    ranks = sorted({round(step * (len(counts) - 1) / (PANELS - 1)) for step in range(PANELS)})
    epochs, runs = result.planned.epochs, len(result.observed("learned"))

    def draw(figure: Any) -> None:
        panels = figure.subplots(-(-len(ranks) // 2), 2, sharex=True, sharey=True, squeeze=False).flat
        for panel, rank in zip(panels, ranks, strict=False):
            images = slice(ends[rank] - counts[rank], ends[rank])
            learned, forgotten = (values[images] for values in events)
            panel.scatter(learned, forgotten, s=6, color=PALETTE[0], alpha=0.5, linewidths=0, rasterized=True)
            panel.set_title(f"class {rank} ({counts[rank]} images)")
        for panel in list(panels)[len(ranks) :]:
            panel.set_visible(False)
        figure.axes[0].set_xlim(0, 1.03 * epochs)
        figure.supxlabel(f"learned events (of {epochs} epochs)")
        figure.supylabel("forgetting events")

    labels = [rank for rank, count in enumerate(counts) for _ in range(count)]
    rows = [[rank, *map(float, pair)] for rank, *pair in zip(labels, *events, strict=True)]
    caption = (
        f"Each dot is an image; its events are means over {runs} runs of {epochs} epochs. Learned: after how many "
        "epochs it was right; forgetting: after how many it was wrong again. Images in the lower right are regular."
    )
    name = f"events-{slug(result.trial.column)}"
    head = ("class", "learned", "forgotten")
    return Figure(name, f"{title}, {result.trial.column}", caption, draw, head, rows, (3.5, 7.0))
