"""Table 8 and Theorem 1 on real CIFAR-10-LT, shortened for a machine without a GPU.

    study run tests/benchmarks/short_cifar10.py:table8 tests/benchmarks/short_cifar10.py:theorem1 \
        --data cifar10 --seeds 3 --data-dir DIR --name short

IF 50, the paper's subset and optimiser, but the eight-layer network of width 8 instead of ResNet-32, and 12 epochs,
milestone 6 and one of warm-up, instead of 200, 100 and 5. What came out (search_spaces/results/short-cifar10.md; ten
runs and three replicates): Pearson's coefficient of cardinality with irregularity is -0.31 (1/n alone: -0.62), for
after so few epochs the smallest classes are never learned and have no spread; and the theorem's gap is -2.7 nats,
below 0 in every epoch: θ_CR, on which the tail's losses are smallest, makes Q̂ negative.
"""

from __future__ import annotations

from dataclasses import replace

from search_spaces import table8 as whole_table8
from search_spaces import theorem1 as whole_theorem1
from study.report.exhibits import Figure, Table
from study.report.results import Results
from study.space import Request, Space
from trainables.config import Config

SHORT = {"backbone": "resnet8", "epochs": 12, "milestones": (6,), "warmup": 1}


def table8(request: Request) -> Space:
    """Table 8's ten runs, shortened."""
    return _short(whole_table8.space(request))


def theorem1(request: Request) -> Space:
    """Theorem 1's two branches, shortened."""
    return _short(whole_theorem1.space(request))


def _short(space: Space) -> Space:
    trials = tuple(
        replace(
            trial,
            config=replace(Config.from_json(trial.config), **SHORT).to_json(),
            printed=None,
            column=f"{trial.column}, 12 epochs of eight layers",
        )
        for trial in space.trials
    )
    return replace(space, name=f"short-{space.name}", title=f"{space.title}, shortened", trials=trials)


def view(results: Results) -> list[Table | Figure | None]:
    """That of the space which is shortened."""
    whole = whole_theorem1 if results.space.name == "short-theorem1" else whole_table8
    return list(whole.view(results))
