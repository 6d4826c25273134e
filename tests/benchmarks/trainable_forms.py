"""The class form of a Trainable against the function form: seconds a stage that does nothing, actors reused.

    python tests/benchmarks/trainable_forms.py [--stages 100] [--repeats 5] [--out JSON]

Both forms run the same number of stages through the same Searcher and the same Ray, alternating; a first round of each
is left out.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from measuring import alternate, arguments, at_least_one, spread, write

from study.execution import cluster, tune  # isort: skip  # before Ray, whose environment they set
from ray.tune.trainable import wrap_function

from study.execution.interrupts import Drain
from study.execution.job import Job
from study.planning.stored import Resources
from study.planning.tree import Failure, Stage


class Form(tune.tune.Trainable):
    """A stage that does nothing, as a class."""

    def setup(self, config: dict[str, Any], job: Job) -> None:
        self.key = config["stage"].key

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.key = new_config["stage"].key
        return True

    def step(self) -> dict[str, Any]:
        return {"position": 1, "saved": self.key, "done": True}


def function(config: dict[str, Any]) -> None:
    """The same as a function."""
    tune.tune.report({"position": 1, "saved": config["stage"].key, "done": True})


class FunctionForm(wrap_function(function)):  # type: ignore[misc]
    """Tune's own class around the function."""

    def setup(self, config: dict[str, Any], job: Job) -> None:
        super().setup(config)


class Silent:
    """Nobody is told, and there is no more than is given; what fails ends the benchmark."""

    def trained(self, stage: Stage, epochs: int) -> None: ...

    def durable(self, key: str) -> bool:
        return True

    def failed(self, stage: Stage, failure: Failure) -> None:
        raise RuntimeError(failure.reason)

    def recount(self, stage: Stage, epochs: int) -> None: ...

    def cut(self, parts: Sequence[Stage]) -> None: ...

    def waits(self, what_for: str, reason: str) -> None: ...

    def remark(self, stage: Stage, heading: str, line: str) -> None: ...

    def reaches_store(self) -> bool:
        return True

    def can_save(self) -> bool:
        return True

    def more(self, workers: int, idle: bool) -> None: ...


def seconds(trainable: Any, count: int) -> float:
    """Wall seconds a stage."""
    stages = [Stage("", 0, (f"{number}",), ({},), {}, 1) for number in range(count)]
    job = Job("benchmark", "", Resources(workers=2))
    began = time.perf_counter()
    tune.execute(stages, job, trainable, Drain(), Silent())
    return (time.perf_counter() - began) / count


def main() -> None:
    parser = arguments(__doc__, "trainable_forms", repeats=5)
    parser.add_argument("--stages", type=at_least_one, default=100)
    asked = parser.parse_args()
    forms = {"class": lambda: seconds(Form, asked.stages), "function": lambda: seconds(FunctionForm, asked.stages)}
    with cluster.connected(Resources()):
        measured = alternate(forms, asked.repeats + 1)
    result = {
        "unit": "ms a stage that does nothing, end to end, two at a time, start-up of actors included",
        "n": asked.repeats,
        **{form: spread([1000 * value for value in values[1:]]) for form, values in measured.items()},
    }
    write(asked.out, result)


if __name__ == "__main__":
    main()
