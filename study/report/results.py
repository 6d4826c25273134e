"""The results of a space's planned trials. A report passes them to the space's view, which is a plain function::

    from study.report.exhibits import Cell, Figure, Table
    from study.report.plotting import curves
    from study.report.results import Results
    from study.space import Printed


    def view(results: Results) -> list[Table | Figure | None]:
        head = ["Method", *results.columns]
        rows = [[row, *(results.cell(row, column) for column in results.columns)] for row in results.rows]
        rows.append(["Theirs †", *(Cell(printed=Printed(37.7, "†")) for _ in results.columns)])  # printed only
        tables = [Table("Accuracy by method, in %", head, rows, notes=["A note below the table."])]
        series = {result.trial.row: result.curve("test/accuracy") for result in results}
        return [*tables, curves("figure1", "Test accuracy", "Mean ± std …", series, y="accuracy in %")]

The function must have the name ``view`` and be in the file of the space's function. A run may be incomplete: missing
results give an empty dictionary, an empty cell "–" or no series, but no exception. Only a trial that the space does not
plan raises a `KeyError`. The report itself adds the hypotheses, the evidence and the differences from printed figures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from study.planning.draft import Replicate
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
    """Return None, in place of a payload, where only headers can be read."""
    return None


class Result:
    """A trial's result. Its methods return values by replicate, for the complete replicates.

    Args:
        planned: the trial in its plan.
        headers: the header of the last state of each complete replicate.
        failures: why each failed replicate failed.
        tensors: (a state's key) → its ``observed.*`` tensors by name; empty if they are gone.
    """

    def __init__(
        self,
        planned: PlannedTrial,
        headers: dict[int, Json],
        tensors: Callable[[str], dict[str, NDArray[Any]]],
        failures: Mapping[int, str] = MappingProxyType({}),
    ) -> None:
        self.planned, self.headers, self._tensors = planned, headers, tensors
        self.failures = failures

    @property
    def trial(self) -> Trial:
        """The trial."""
        return self.planned.trial

    @property
    def complete(self) -> bool:
        """Whether every replicate is complete."""
        return len(self.headers) == len(self.planned.ends)

    @property
    def hardware(self) -> frozenset[str]:
        """The models of the CPUs or GPUs that trained it."""
        return frozenset(part["device_model"] for header in self.headers.values() for part in header["provenance"])

    @property
    def printed(self) -> Printed | None:
        """The source's figure for the trial, or None."""
        printed = self.trial.printed
        return printed and (replace(printed, of="") if printed.of == self.trial.column else printed)

    def last(self, measure: str = "") -> dict[int, float]:
        """Return a measure after the last epoch; "" stands for the trial's measure."""
        lasts = {number: curve[-1] for number, curve in self.curve(measure).items()}
        return {number: value for number, value in lasts.items() if value is not None}

    def best(self, measure: str = "") -> dict[int, float]:
        """Return the highest value of any epoch.

        The epoch is selected on the same data that the value is measured on. Tables must say so.
        """
        measured = {n: [v for v in curve if v is not None] for n, curve in self.curve(measure).items()}
        return {number: max(values) for number, values in measured.items() if values}

    def curve(self, measure: str = "") -> dict[int, list[float | None]]:
        """Return a measure after each epoch; None for epochs that did not measure it."""
        name = measure or self.trial.measure
        return {number: [epoch.get(name) for epoch in header["measures"]] for number, header in self.headers.items()}

    def lists(self, measure: str) -> dict[int, list[list[float] | None]]:
        """Return a measure that is a list, such as the accuracy of each class, after each epoch."""
        return {number: [epoch.get(measure) for epoch in header["measures"]] for number, header in self.headers.items()}

    def wall_seconds(self) -> dict[int, list[float]]:
        """Return the seconds of training and evaluation of each epoch, including epochs shared with other trials."""
        return {number: list(header["wall_seconds"]) for number, header in self.headers.items()}

    def observed(self, name: str) -> dict[int, NDArray[Any]]:
        """Return the last state's observations of single images, such as ``predictions``.

        They are missing if the state's tensors have been cleaned up.
        """
        observations = {number: self._tensors(self.planned.by_replicate[number]) for number in self.headers}
        return {number: tensors[name] for number, tensors in observations.items() if name in tensors}

    def cell(self, measure: str = "") -> Cell:
        """Return a measure after the last epoch as a table's cell.

        The trial's measure also has the printed figure, and the reasons why replicates failed.
        """
        if measure not in ("", self.trial.measure):
            return Cell(self.last(measure), axes=self.trial.axes)
        return Cell(self.last(measure), self.printed, axes=self.trial.axes, failures=self.failures)


class Results:
    """A space's trials with their results, in the order of the plan.

    Args:
        plan: the run's plan.
        space: one of its spaces.
        header: reads a state's header; None if the state is not in the store.
        payload: reads a state's tensors; None if they are not in the store.
        failures: why replicates failed, by the trial's name and the replicate's number.

    Attributes:
        rows, columns: the names of the table's rows and columns, in order.
    """

    def __init__(
        self,
        plan: Plan,
        space: PlannedSpace,
        header: Header,
        payload: Payload = no_payload,
        failures: Mapping[Replicate, str] = MappingProxyType({}),
    ) -> None:
        self.plan, self.space, self._payload = plan, space, payload
        self._observed: dict[str, dict[str, NDArray[Any]]] = {}
        self._results: dict[tuple[str, str], Result] = {}
        for trial in plan.trials:
            if trial.space == space.name:
                ends = {} if trial.refused else trial.by_replicate
                headers = {number: last for number, end in ends.items() if (last := header(end)) is not None}
                reasons = {
                    number: failures[trial.name, number]
                    for number in trial.by_replicate
                    if (trial.name, number) in failures and number not in headers
                }
                self._results[trial.trial.row, trial.trial.column] = Result(trial, headers, self._tensors, reasons)
        self.rows = list(dict.fromkeys(row for row, _ in self._results))
        self.columns = list(dict.fromkeys(column for _, column in self._results))

    def __iter__(self) -> Iterator[Result]:
        return iter(self._results.values())

    def __len__(self) -> int:
        return len(self._results)

    def __getitem__(self, row_column: tuple[str, str]) -> Result:
        """Return the result at (row, column); raise KeyError if the space plans no such trial."""
        return self._results[row_column]

    def get(self, row: str, column: str) -> Result | None:
        """Return the result at (row, column); None if the row is not planned in this column."""
        return self._results.get((row, column))

    def cell(self, row: str, column: str, measure: str = "") -> Cell | None:
        """Return the cell at (row, column); None, shown as "–", if it is not planned. See `Result.cell`."""
        result = self.get(row, column)
        return None if result is None else result.cell(measure)

    @cached_property
    def crossed(self) -> bool:
        """Whether replicates are pairs of two factors and therefore not independent of each other."""
        return any(Crossing.of(result.planned) for result in self)

    def hypotheses(self) -> list[statistics.Difference]:
        """Return the space's contrasts in every column that has both rows, with p adjusted (Holm) over all of them.

        The report shows them. The list is empty if replicates are crossed, because such replicates are not independent.
        """
        if self.crossed:
            return []
        last = {row_column: result.last for row_column, result in self._results.items()}
        return statistics.differences(self.space.contrasts, last)

    def _tensors(self, key: str) -> dict[str, NDArray[Any]]:
        if key not in self._observed:
            from safetensors.numpy import load

            payload, prefix = self._payload(key), "observed."
            tensors = {} if payload is None else load(payload)
            self._observed[key] = {
                name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)
            }
        return self._observed[key]
