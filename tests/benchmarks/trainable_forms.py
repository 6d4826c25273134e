"""The class form of a Trainable against the function form: seconds a stage that does nothing, actors reused.

    python tests/benchmarks/trainable_forms.py [--stages 100] [--rounds 5]

Both forms run the same number of stages through the same Searcher and the same Ray, alternating; the first round of
each starts its actors and is left out. Writes tests/benchmarks/results/trainable_forms.json.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from measuring import environment, spread

from study import execute
from study.plan import Resources
from study.tree import Failure, Stage

RESULT = Path(__file__).parent / "results" / "trainable_forms.json"


class Form(execute.tune.Trainable):
    """A stage that does nothing, as a class."""

    def setup(self, config: dict[str, Any], job: execute.Job) -> None:
        self.key = config["stage"].key

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.key = new_config["stage"].key
        return True

    def step(self) -> dict[str, Any]:
        return {"position": 1, "saved": self.key, "done": True}


def function(config: dict[str, Any], job: execute.Job) -> None:
    """The same as a function."""
    execute.tune.report({"position": 1, "saved": config["stage"].key, "done": True})


class Silent:
    """Nobody is told, and there is no more than is given; what fails ends the benchmark."""

    def trained(self, stage: Stage, epochs: int) -> None: ...

    def durable(self, key: str) -> None: ...

    def failed(self, stage: Stage, failure: Failure) -> None:
        raise RuntimeError(failure.reason)

    def more(self, workers: int, idle: bool) -> None: ...


def seconds(trainable: Any, count: int) -> float:
    """Wall seconds a stage."""
    stages = [Stage("", 0, (f"{number}",), ({},), {}, 1) for number in range(count)]
    job = execute.Job("benchmark", "", "")
    began = time.perf_counter()
    execute.execute(stages, job, Resources(workers=2), trainable, execute.Drain(), Silent())
    return (time.perf_counter() - began) / count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stages", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    measured: dict[str, list[float]] = {"class": [], "function": []}
    with execute.connected(Resources()):
        for _ in range(options.rounds + 1):
            for form, trainable in (("class", Form), ("function", function)):
                measured[form].append(seconds(trainable, options.stages))
    result = {
        "command": f"python tests/benchmarks/trainable_forms.py --stages {options.stages} --rounds {options.rounds}",
        "unit": "ms a stage that does nothing, end to end, two at a time, start-up of actors included",
        "n": options.rounds,
        **{form: spread([1000 * value for value in values[1:]]) for form, values in measured.items()},
        **environment(),
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
