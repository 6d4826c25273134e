"""A run's tables: for the terminal, as Markdown, CSV and JSON, and a heat map of the combinations."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from typing import Any

from study.compare import SHOTS, Difference, Row, differences, objectives, rows
from study.plan import Json, Plan, PlannedSpace
from study.searched import Searched

FORMATS = ("table", "markdown", "csv", "json")


class Report:
    """What is known of a run's result, from its plan and the store alone.

    Args:
        plan: the run's.
        header: reads a state's header; None if it is not in the store.
        space: only this space of the run.
    """

    def __init__(self, plan: Plan, header: Callable[[str], Json | None], space: str | None = None) -> None:
        self.plan = plan
        self.spaces = [each for each in plan.spaces if space in (None, each.name)]
        self.rows = rows(plan, header, space)
        self.differences = differences(plan, self.rows)
        self.searches = {each.name: self._searched(each, header) for each in self.spaces if each.search is not None}

    def _searched(self, space: PlannedSpace, header: Callable[[str], Json | None]) -> Searched:
        def known(key: str) -> Json:
            found = header(key)
            if found is None:
                raise FileNotFoundError(key)
            return found

        values: list[list[float] | None] = []
        reported: dict[str, dict[str, list[float]]] = {}
        assert space.search is not None
        for row in self._of(space):
            try:
                values.append(objectives(self.plan, row.trial, known))
            except FileNotFoundError:
                values.append(None)
            else:
                lasts = [known(end)["measures"][-1] for end in row.trial.ends] if row.trial.champion_of else []
                reported[row.trial.label] = {name: [last[name] for last in lasts] for name in space.search.reported}
        return Searched(space, self._of(space), values, reported)

    def render(self, form: str) -> str:
        """The report in one of `FORMATS`."""
        return {"table": self.table, "markdown": self.markdown, "csv": self.csv, "json": self.json}[form]()

    def json(self) -> str:
        """One object: study, run, rows, differences."""
        record = {
            "study": "+".join(space.name for space in self.spaces), "run": self.plan.run,
            "rows": [row.to_json() for row in self.rows],
            "differences": [difference.to_json() for difference in self.differences],
            "searches": [searched.to_json() for searched in self.searches.values()],
            "commit": self.plan.commit, "versions": dict(self.plan.versions), "device": self.plan.machine.device,
            "hardware": sorted(frozenset().union(*(row.hardware for row in self.rows))),
        }  # fmt: skip
        return json.dumps(record, indent=2, ensure_ascii=False)

    def csv(self) -> str:
        """One line a replicate: its trial's axes, its number, its value in percent."""
        names = list(dict.fromkeys(name for row in self.rows for name in row.trial.axes))
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(["space", "trial", *names, "replicate", "value", "best_epoch", "paper", "paper_of"])
        for row in self.rows:
            axes = [row.trial.axes.get(name, "") for name in names]
            for number, value in row.values.items():
                paper = ["" if row.trial.paper is None else row.trial.paper, row.trial.paper_of]
                writer.writerow([row.trial.space, row.trial.label, *axes, number, value, row.best[number], *paper])
        return out.getvalue()

    def markdown(self) -> str:
        """The tables and the hypotheses, with what made them."""
        lines = [f"# {self.plan.run}", ""]
        for space in self.spaces:
            lines += [f"## {space.title}", ""]
            head, body = self._grid(space)
            lines += [_line(head), _line(["---"] * len(head)), *(_line(cells) for cells in body), ""]
            lines += [f"{note}  " for note in self._notes(space)]
            lines += [f"- {words}" for words in self._words(space)] + [""]
        return "\n".join(lines)

    def table(self) -> str:
        """The same for a terminal, without colours."""
        from rich import box
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        out = io.StringIO()
        console = Console(file=out, width=160, color_system=None, highlight=False)
        for space in self.spaces:
            head, body = self._grid(space)
            grid = Table(title=Text(space.title), title_justify="left", box=box.SIMPLE_HEAD, title_style="")
            for number, name in enumerate(head):
                grid.add_column(Text(name), justify="right" if number else "left", no_wrap=True)
            for cells in body:
                grid.add_row(*map(Text, cells))
            console.print(grid)
            for line in [*self._notes(space), *self._words(space)]:
                console.print(line, soft_wrap=True, markup=False)
            console.print()
        return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"

    def heat_map(self) -> bytes | None:
        """The combinations as a picture (PNG): first by switch sampler, a panel a column.

        None if a space has not just these two dimensions, or not all results.
        """
        panels = [
            (space.title, column, grid)
            for space in self.spaces
            for column in self._columns(space)
            if (grid := self._squares(space, column)) is not None
        ]
        if not panels:
            return None
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure(figsize=(4.2 * len(panels), 3.9), layout="constrained")
        for number, (title, column, (firsts, switches, cells)) in enumerate(panels):
            axis = figure.add_subplot(1, len(panels), number + 1)
            means = [[row.mean or 0.0 for row in line] for line in cells]  # every one has values
            axis.imshow(means, cmap="viridis", aspect="auto")
            low, high = min(map(min, means)), max(map(max, means))
            for y, line in enumerate(cells):
                for x, row in enumerate(line):
                    dark = means[y][x] < (low + high) / 2
                    axis.text(x, y, _value(row), ha="center", va="center", color="white" if dark else "black")
            axis.set_xticks(range(len(switches)), switches)
            axis.set_yticks(range(len(firsts)), firsts)
            axis.set_xlabel("switch sampler")
            axis.set_ylabel("first sampler")
            axis.set_title(f"{title.partition(':')[0]}, {column}\ntop-1 in %, mean ± std over replicates", fontsize=9)
        out = io.BytesIO()
        FigureCanvasAgg(figure).print_png(out)
        return out.getvalue()

    def files(self) -> dict[str, bytes | str]:
        """What MLflow keeps of the report."""
        found: dict[str, bytes | str] = {
            "report.md": self.markdown(), "report.csv": self.csv(), "report.json": self.json(),
        }  # fmt: skip
        picture = self.heat_map()
        if picture is not None:
            found["combinations.png"] = picture
        for name, searched in self.searches.items():
            picture = searched.picture()
            if picture is not None:
                found[f"{name}.png"] = picture
        return found

    def _of(self, space: PlannedSpace) -> list[Row]:
        return [row for row in self.rows if row.trial.space == space.name]

    def _columns(self, space: PlannedSpace) -> list[str]:
        return list(dict.fromkeys(row.trial.column for row in self._of(space)))

    def _grid(self, space: PlannedSpace) -> tuple[list[str], list[list[str]]]:
        """The table's head and its rows; with one column of data, its shots and best epoch stand beside it."""
        if space.name in self.searches:
            return self.searches[space.name].grid()
        columns = self._columns(space)
        cells = {(row.trial.column, row.trial.row): row for row in self._of(space)}
        papers = {column: next((r.trial.paper_of for r in self._of(space) if r.trial.column == column), "")
                  for column in columns}  # fmt: skip
        head = [""]
        for column in columns:
            head.append(column)
            if papers[column]:
                head.append("paper" if papers[column] == column else f"paper: {papers[column]} (another data set)")
        single = len(columns) == 1
        head += ["many", "medium", "few", "best epoch (selected on test)"] if single else []
        body = []
        for name in dict.fromkeys(row.trial.row for row in self._of(space)):
            line = [name]
            for column in columns:
                row = cells.get((column, name))
                line.append("–" if row is None else _value(row))
                if papers[column]:
                    line.append("–" if row is None or row.trial.paper is None else f"{row.trial.paper:.1f}")
            if single:
                row = cells[columns[0], name]
                line += [f"{row.shots[shot]:.1f}" if shot in row.shots else "–" for shot in SHOTS]
                line.append(f"{max(row.best.values()):.1f}" if len(row.best) == 1 else _best(row))
            body.append(line)
        return head, body

    def _notes(self, space: PlannedSpace) -> list[str]:
        if space.name in self.searches:
            return [self.searches[space.name].notes()]
        counts = sorted({len(row.values) for row in self._of(space)})
        n = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
        what = f"Top-1 in % after the last epoch ({space.objectives[0]}), mean ± std over n = {n} replicates."
        if space.evidence and any(row.trial.axes.get("dataset") == "digits" for row in self._of(space)):
            what += f" Evidence on digits: {space.evidence}."
        if any(row.trial.paper is not None for row in self._of(space)):
            what += " Paper: n = 1 or unstated."
        return [what]

    def _words(self, space: PlannedSpace) -> list[str]:
        if space.name in self.searches:
            return self.searches[space.name].words()
        return [_difference(each) for each in self.differences if each.space == space.name]

    def _squares(self, space: PlannedSpace, column: str) -> tuple[list[str], list[str], list[list[Row]]] | None:
        found: dict[tuple[str, str], Row] = {}
        for row in self._of(space):
            if row.trial.column == column and row.values and {"first", "switch"} <= row.trial.axes.keys():
                pair = (str(row.trial.axes["first"]), str(row.trial.axes["switch"]))
                if pair in found:
                    return None  # the space has further dimensions, and a square would hide them
                found[pair] = row
        firsts = list(dict.fromkeys(first for first, _ in found))
        switches = list(dict.fromkeys(switch for _, switch in found))
        if len(firsts) < 2 or len(switches) < 2 or len(found) < len(firsts) * len(switches):
            return None
        return firsts, switches, [[found[first, switch] for switch in switches] for first in firsts]


def _value(row: Row) -> str:
    if row.mean is None:
        return "–"
    return f"{row.mean:.1f}" if row.std is None else f"{row.mean:.1f} ± {row.std:.1f}"


def _best(row: Row) -> str:
    return f"{sum(row.best.values()) / len(row.best):.1f}" if row.best else "–"


def _difference(each: Difference) -> str:
    words = f"{each.contrast.better} − {each.contrast.worse} on {each.column}: {each.mean:+.1f} points"
    if each.low is None or each.high is None:
        return f"{words} (n = {each.n}: no interval)"
    p = "" if each.p is None else f", p = {each.p:.2g} by Holm"
    return f"{words}, 95 % interval {each.low:+.1f} to {each.high:+.1f} (paired, n = {each.n}{p})"


def _line(cells: Sequence[Any]) -> str:
    return "| " + " | ".join(str(cell) for cell in cells) + " |"
