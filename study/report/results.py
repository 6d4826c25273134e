"""What a view is given: a space's planned trials with what was recorded of them. A view is a plain function::

    from study.report.exhibits import Cell, Figure, Table
    from study.report.plotting import curves
    from study.report.results import Results
    from study.space import Printed


    def view(results: Results) -> list[Table | Figure | None]:
        head = ["Method", *results.columns]
        rows = [[row, *(results.cell(row, column) for column in results.columns)] for row in results.rows]
        rows.append(["Theirs †", *(Cell(printed=Printed(37.7, "†")) for _ in results.columns)])  # printed only
        tables = [Table("Accuracy by method, in %", head, rows, notes=["What a reader must know."])]
        series = {result.trial.row: result.curve("test/accuracy") for result in results}
        return [*tables, curves("figure1", "Test accuracy", "Mean ± std …", series, y="accuracy in %")]

and stands in the file of the space's function, under this name. A run may be incomplete: what is not there is an empty
dictionary, an empty cell "–", or no series, and never an exception; only a trial that the space does not plan is a
`KeyError`. The hypotheses, the evidence and differences from printed figures are shown by the report itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from study.planning.replication import Crossing
from study.planning.stored import Plan, PlannedSpace, PlannedTrial
from study.report import statistics
from study.report.exhibits import Cell
from study.space import Json, Printed, Trial

if TYPE_CHECKING:
    from numpy.typing import NDArray

Header = Callable[[str], "Json | None"]
Payload = Callable[[str], "bytes | None"]


def no_payload(_key: str) -> bytes | None:
    """Where only headers can be read."""
    return None


class Result:
    """A trial's result: every method gives values by replicate, of those that are there.

    Args:
        planned: the trial in its plan.
        headers: of the last state of each replicate that is complete.
        tensors: (a state's key) → its ``observed.*`` tensors by name; empty if they are gone.
    """

    def __init__(
        self, planned: PlannedTrial, headers: dict[int, Json], tensors: Callable[[str], dict[str, NDArray[Any]]]
    ) -> None:
        self.planned, self.headers, self._tensors = planned, headers, tensors

    @property
    def trial(self) -> Trial:
        """The trial."""
        return self.planned.trial

    @property
    def complete(self) -> bool:
        """Whether every replicate has ended."""
        return len(self.headers) == len(self.planned.ends)

    @property
    def hardware(self) -> frozenset[str]:
        """The models of CPU or GPU that trained it."""
        return frozenset(part["device_model"] for header in self.headers.values() for part in header["provenance"])

    @property
    def printed(self) -> Printed | None:
        """The source's figure for it, if there is one."""
        printed = self.trial.printed
        return printed and (replace(printed, of="") if printed.of == self.trial.column else printed)

    def last(self, measure: str = "") -> dict[int, float]:
        """A measure after the last epoch; "" for the trial's own."""
        found = {number: curve[-1] for number, curve in self.curve(measure).items()}
        return {number: value for number, value in found.items() if value is not None}

    def best(self, measure: str = "") -> dict[int, float]:
        """The highest of any epoch: it is selected on the data that it is measured on, and to be labelled so."""
        found = {n: [v for v in curve if v is not None] for n, curve in self.curve(measure).items()}
        return {number: max(values) for number, values in found.items() if values}

    def curve(self, measure: str = "") -> dict[int, list[float | None]]:
        """A measure after each epoch; None in epochs that did not measure it."""
        name = measure or self.trial.measure
        return {number: [epoch.get(name) for epoch in header["measures"]] for number, header in self.headers.items()}

    def lists(self, measure: str) -> dict[int, list[list[float] | None]]:
        """A measure that is a list, such as an accuracy of each class, after each epoch."""
        return {number: [epoch.get(measure) for epoch in header["measures"]] for number, header in self.headers.items()}

    def wall_seconds(self) -> dict[int, list[float]]:
        """Seconds of training and evaluation, each epoch; those shared with other trials included."""
        return {number: list(header["wall_seconds"]) for number, header in self.headers.items()}

    def observed(self, name: str) -> dict[int, NDArray[Any]]:
        """What the last state has observed of single images, such as ``predictions``; gone with cleaned-up tensors."""
        found = {number: self._tensors(self.planned.by_replicate[number]) for number in self.headers}
        return {number: tensors[name] for number, tensors in found.items() if name in tensors}

    def cell(self, measure: str = "") -> Cell:
        """A measure after the last epoch as a table's cell; the trial's own stands beside the printed one."""
        printed = self.printed if measure in ("", self.trial.measure) else None
        return Cell(self.last(measure), printed, axes=self.trial.axes)


class Results:
    """A space's trials with their results, in the order in which they were planned.

    Args:
        plan: the run's.
        space: which of its spaces.
        header: reads a state's header; None if it is not in the store.
        payload: reads a state's tensors; None if they are not there.

    Attributes:
        rows, columns: the names of the table's rows and columns, in order.
    """

    def __init__(self, plan: Plan, space: PlannedSpace, header: Header, payload: Payload = no_payload) -> None:
        self.plan, self.space, self._payload = plan, space, payload
        self._observed: dict[str, dict[str, NDArray[Any]]] = {}
        self._results: dict[tuple[str, str], Result] = {}
        for trial in plan.trials:
            if trial.space == space.name:
                there = {
                    number: head for number, end in trial.by_replicate.items() if (head := header(end)) is not None
                }
                self._results[trial.trial.row, trial.trial.column] = Result(trial, there, self._tensors)
        self.rows = list(dict.fromkeys(row for row, _ in self._results))
        self.columns = list(dict.fromkeys(column for _, column in self._results))

    def __iter__(self) -> Iterator[Result]:
        return iter(self._results.values())

    def __len__(self) -> int:
        return len(self._results)

    def __getitem__(self, place: tuple[str, str]) -> Result:
        """The result at (row, column); KeyError if the space plans no such trial."""
        return self._results[place]

    def get(self, row: str, column: str) -> Result | None:
        """The same, or None: a table need not have every row in every column."""
        return self._results.get((row, column))

    def cell(self, row: str, column: str, measure: str = "") -> Cell | None:
        """The cell at (row, column), see `Result.cell`; None, which is shown as "–", if it is not planned."""
        result = self.get(row, column)
        return None if result is None else result.cell(measure)

    @cached_property
    def crossed(self) -> bool:
        """Whether replicates are pairs of two things: then they are not independent of each other."""
        return any(Crossing.of(each.planned) for each in self)

    def hypotheses(self) -> list[statistics.Difference]:
        """The space's contrasts in every column that has both rows, by Holm over all of them; the report shows them.

        None where replicates are crossed, for these are not independent.
        """
        if self.crossed:
            return []
        return statistics.differences(self.space.contrasts, {place: each.last for place, each in self._results.items()})

    def _tensors(self, key: str) -> dict[str, NDArray[Any]]:
        if key not in self._observed:
            from safetensors.numpy import load

            payload, prefix = self._payload(key), "observed."
            tensors = {} if payload is None else load(payload)
            self._observed[key] = {
                name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)
            }
        return self._observed[key]
