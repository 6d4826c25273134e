"""A run's report: each space's tables and figures, hypotheses and differences, in several formats."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any

from study import catalog, modules
from study.errors import Damaged, Refusal, note
from study.planning import replication
from study.planning.draft import Replicate
from study.planning.stored import Plan, PlannedSpace
from study.report import grids, html, render, spread
from study.report.exhibits import Figure, Table
from study.report.formats import FORMATS
from study.report.results import Header, Payload, Result, Results, no_payload
from study.report.searched import Searched
from study.report.statistics import mean, std
from study.search.objectives import objectives
from study.space import Json
from study.store import records
from study.store.states import Store

FAILED_SHOWN = 10  # the most failed replicates that a notice names


@dataclass(frozen=True)
class Section:
    """A space's part of a report.

    Attributes:
        space: the space.
        results: its recorded results.
        notices: the facts that a reader needs before its numbers.
        exhibits: its tables and figures, in order: those of its view, with the differences from printed figures and the
            hypotheses behind the last table.
    """

    space: PlannedSpace
    results: Results
    notices: list[str]
    exhibits: list[Table | Figure]

    def file(self, figure: Figure) -> str:
        """Return the name of a figure's file, without ending: unique in the run."""
        space, name = self.space.name, figure.name.replace("/", "_")  # a file in the user's folder, not elsewhere
        return name if name.startswith(space) else f"{space}-{name}"

    @property
    def tables(self) -> list[Table]:
        """Its tables."""
        return [each for each in self.exhibits if isinstance(each, Table)]

    @property
    def figures(self) -> list[Figure]:
        """Its figures."""
        return [each for each in self.exhibits if isinstance(each, Figure)]


class Report:
    """A run's report, from its plan and the store alone.

    Args:
        plan: the run's.
        header: reads a state's header; None if it is not in the store.
        space: only this space of the run.
        payload: reads a state's tensors; None if they are not there.
        failures: why replicates failed, by the trial's name and the replicate's number.

    Attributes:
        problems: the errors of the spaces' views and figures, in one line each.
    """

    def __init__(
        self,
        plan: Plan,
        header: Header,
        space: str | None = None,
        payload: Payload = no_payload,
        failures: Mapping[Replicate, str] = MappingProxyType({}),
    ) -> None:
        self.plan, self.problems = plan, list[str]()
        spaces = [each for each in plan.spaces if space in (None, each.name)]
        self._results = [Results(plan, each, header, payload, failures) for each in spaces]

    @classmethod
    def of(cls, store: Store, plan: Plan, space: str | None = None) -> Report:
        """Return the report of a stored run; a damaged state counts as missing."""
        absent = (FileNotFoundError, Damaged)

        def header(key: str) -> Json | None:
            try:
                return store.measures(key)
            except absent:
                return None

        def payload(key: str) -> bytes | None:
            try:
                return store.load(key)[1]
            except absent:
                return None

        failures = {name: failure.reason for name, failure in records.given_up(store, plan).items()}
        return cls(plan, header, space, payload, failures)

    @cached_property
    def sections(self) -> list[Section]:
        """The parts of the spaces, in order."""
        return [self._section(results.space, results) for results in self._results]

    @cached_property
    def searches(self) -> dict[str, Searched]:
        """The open searches, by the name of their space."""
        open_ones = (results for results in self._results if results.space.search is not None)
        return {results.space.name: _searched(self.plan, results) for results in open_ones}

    def _section(self, space: PlannedSpace, results: Results) -> Section:
        trials = (result.planned for result in results if not result.planned.refused)
        notices = replication.lines(trials, searched=space.search is not None)
        if space.search is not None:
            champions = [result for result in results if result.planned.champion_of]
            return Section(space, results, [*notices, *_failed(champions)], self.searches[space.name].exhibits())
        notices += _notices(results)
        exhibits = self._view(results, notices)
        tables = [each for each in exhibits if isinstance(each, Table)]
        more: list[Table | Figure | None]
        if results.crossed:
            notices.append(spread.not_independent(space))
            more = [*spread.decomposition(results)]
            if not more:
                notices.append("The sources of the spread are shown once all pairs of a row have ended.")
        else:
            differences = [grids.from_source(table, space.source) for table in tables]
            more = [*differences, grids.hypotheses(results.hypotheses())]
        behind = 1 + max((number for number, each in enumerate(exhibits) if isinstance(each, Table)), default=-1)
        exhibits[behind:behind] = [each for each in more if each is not None]
        return Section(space, results, notices, exhibits)

    def _view(self, results: Results, notices: list[str]) -> list[Table | Figure]:
        """Return the exhibits of the view in the space's file, or the default ones if it has none.

        The default also replaces, with a notice, a view that cannot be imported or raises.
        """
        space = results.space
        try:
            shown = (self._has_view(space) and _shown(results)) or grids.default(results)
        except Refusal as refusal:
            note(refusal)
            self.problems.append(str(refusal))
            notices.append(f"The view of {space.file} failed, so this is the default table ({refusal}).")
            shown = grids.default(results)
        return list(shown)

    def _has_view(self, space: PlannedSpace) -> bool:
        """Return whether the space's file may have a view. A source that the plan holds is read, but not executed."""
        where = space.file.partition(":")[0]
        source = self.plan.held.get(where, "")
        if not where or modules.is_text(where):
            return False
        return not source or modules.is_here(where) or modules.defines(source, "view")

    def render(self, form: str) -> str:
        """Return the report in one of `FORMATS`."""
        if form not in FORMATS:
            raise Refusal("format", form, f"must be {', '.join(FORMATS[:-1])} or {FORMATS[-1]}")
        written: str = getattr(self, form)()
        return written

    def json(self) -> str:
        """Return one object: a row per trial, differences, searches, tables, figures, and the provenance of all."""
        record = {
            "study": "+".join(results.space.name for results in self._results),
            "run": self.plan.run,
            "rows": [_row(results.space, result) for results in self._results for result in results],
            "differences": [
                {"space": results.space.name, **each.to_json()}
                for results in self._results
                for each in results.hypotheses()
            ],
            "searches": [searched.to_json() for searched in self.searches.values()],
            "tables": [
                {"space": section.space.name, **render.table_json(table, section.space.source)}
                for section in self.sections
                for table in section.tables
            ],
            "figures": [
                {"space": section.space.name, "file": f"{section.file(figure)}.png", **render.figure_json(figure)}
                for section in self.sections
                for figure in section.figures
            ],
            "notices": {section.space.name: section.notices for section in self.sections},
            "commit": self.plan.commit,
            "versions": dict(self.plan.versions),
            "device": self.plan.machine.device,
            "hardware": self._hardware(),
        }
        return json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False)

    def csv(self) -> str:
        """Return every entry of every table, with one line per value and therefore per replicate."""
        tables = [(section.space.name, table) for section in self.sections for table in section.tables]
        return render.table_csv(tables, self._results[0].space.source)

    def markdown(self, pictures: bool = False) -> str:
        """Return the tables and figures, with links to pictures if these are in the same folder."""
        lines = [f"# {self.plan.run}", ""]
        for section in self.sections:
            lines += [f"## {section.space.title}", "", *(f"> {notice}\n" for notice in section.notices)]
            for each in section.exhibits:
                if isinstance(each, Table):
                    lines.append(render.markdown(each, section.space.source, section.space.title))
                else:
                    name = f"{section.file(each)}.png"
                    link = [f"![{each.title}]({name})", ""] if pictures and name in self.pictures else []
                    lines += [f"### {each.title}", "", *link, each.caption, ""]
        return "\n".join([*lines, "---", "", *(f"{line}  " for line in self._made_by())]) + "\n"

    def table(self) -> str:
        """Return the report for a terminal, without colours."""
        lines = []
        for section in self.sections:
            lines += [section.space.title, *section.notices, ""]
            for each in section.exhibits:
                if isinstance(each, Table):
                    lines.append(render.text(each, section.space.source, section.space.title))
                else:
                    lines.append(f"Figure {section.file(each)}: {each.title}. {each.caption}\n")
        return "\n".join(lines)

    def html(self) -> str:
        """Return one page with the pictures inside."""
        return html.page(self.plan.run, self._html_sections(), self._made_by())

    def html_fragment(self) -> str:
        """Return the report for a page that has its own style, such as a notebook."""
        return html.fragment(self._html_sections())

    def _html_sections(self) -> list[tuple[str, list[str], str]]:
        sections = []
        for section in self.sections:
            body = "".join(
                html.table_html(each, section.space.source)
                if isinstance(each, Table)
                else html.figure_html(each, self.pictures, f"{section.file(each)}.png")
                for each in section.exhibits
            )
            sections.append((section.space.title, section.notices, body))
        return sections

    @cached_property
    def pictures(self) -> dict[str, bytes]:
        """The figures as PNG, by the names of their files, without those that raise."""
        pictures = {}
        for section in self.sections:
            for figure in section.figures:
                try:
                    pictures[f"{section.file(figure)}.png"] = figure.png()
                except Exception as error:  # noqa: BLE001  the space's function: the rest of the report stays
                    note(error)
                    self.problems.append(f"figure {section.file(figure)} raised {modules.said(error)}")
                    section.notices.append(f"Figure {section.file(figure)} could not be drawn ({self.problems[-1]}).")
        return pictures

    def figures(self) -> dict[str, bytes | str]:
        """Return the pictures, and beside each its data as CSV, by the names of their files."""
        data = {
            f"{section.file(figure)}.csv": render.figure_csv(figure)
            for section in self.sections
            for figure in section.figures
        }
        return {**self.pictures, **data}

    def files(self) -> dict[str, bytes | str]:
        """Return the files of the report that MLflow keeps."""
        return {
            "report.html": self.html(),
            "report.md": self.markdown(pictures=True),
            "report.csv": self.csv(),
            "report.json": self.json(),
            **self.pictures,
        }

    def _hardware(self) -> list[str]:
        trained = (result.hardware for results in self._results for result in results)
        return sorted(frozenset[str]().union(*trained))

    def _made_by(self) -> list[str]:
        """Return the provenance of the numbers: run, commit, versions and hardware."""
        plan = self.plan
        versions = ", ".join(f"{name} {version}" for name, version in plan.versions.items())
        return [
            f"Run {plan.run}, planned {plan.created}, commit {plan.commit or 'unknown'}; {versions}.",
            f"Trained on {', '.join(self._hardware()) or 'nothing yet'} ({plan.machine.device}).",
        ]


def _shown(results: Results) -> Sequence[Table | Figure] | None:
    """Return the exhibits of the view in the space's file; None if it has none.

    Raises:
        Refusal: if the view cannot be imported, raises, or returns something else.
    """
    view, path = catalog.view(results.space.file)
    if view is None:
        return None
    try:
        exhibits = [each for each in view(results) if each is not None]
        for each in exhibits:
            if not isinstance(each, Table | Figure):
                raise TypeError(f"a view must return tables and figures, but returned {type(each).__name__}")
    except (Exception, SystemExit) as error:
        words = f"the view of {results.space.name!r} raised {modules.said(error, str(path))}"
        raise Refusal("view", results.space.name, words) from error
    return exhibits


def _notices(results: Results) -> list[str]:
    """Return the facts that a reader needs first: other data than the source's, and missing replicates or rows."""
    space, notices = results.space, []
    columns = space.source.columns
    other = {
        result.trial.column
        for result in results
        if (columns and result.trial.column not in columns) or (result.printed is not None and result.printed.of)
    }
    if other:
        label = f" Evidence: {space.evidence}." if space.evidence else ""
        named = "; ".join(column for column in results.columns if column in other)
        notices.append(f"Not the {space.source.name}'s data or protocol: {named}.{label}")
    notices += _failed(results)
    wanted = sum(len(result.planned.ends) for result in results)
    complete = sum(len(result.headers) for result in results)
    if complete + sum(len(result.failures) for result in results) < wanted:
        notices.append(f"Incomplete: {complete} of {wanted} replicates have ended.")
    rows = dict.fromkeys(row for contrast in space.contrasts for row in (contrast.better, contrast.worse))
    unknown = [row for row in rows if row not in results.rows]
    if unknown and results.rows and not results.crossed:
        notices.append(f"Not tested: hypotheses that name rows which this run does not have: {'; '.join(unknown)}.")
    return notices


def _failed(results: Iterable[Result]) -> list[str]:
    """Return a notice on failed replicates with their reasons, the first ones whole; no notice without any."""
    trials = list(results)
    reasons = [f"{r.trial.label} r{number} {reason}" for r in trials for number, reason in r.failures.items()]
    if not reasons:
        return []
    more = f"; and {len(reasons) - FAILED_SHOWN} more" if len(reasons) > FAILED_SHOWN else ""
    wanted = sum(len(result.planned.ends) for result in trials)
    return [f"Failed: {len(reasons)} of {wanted} replicates. {'; '.join(reasons[:FAILED_SHOWN])}{more}."]


def _row(space: PlannedSpace, result: Result) -> dict[str, Any]:
    """Return a trial as JSON: its axes, its values, and the printed figure."""
    trial, planned, values, best = result.trial, result.planned, result.last(), result.best()
    part, name = trial.measure.partition("/")[0], space.source.name
    splits = {split: mean(list(result.last(f"{part}/{split}").values())) for split in space.splits}
    printed = trial.printed
    return {
        "space": space.name,
        "trial": trial.label,
        **trial.axes,
        "measure": trial.measure,
        "mean": mean(list(values.values())),
        "std": std(list(values.values())),
        "n": len(values),
        "values": list(values.values()),
        "replicates": list(values),
        "seeds": [
            seeds for number, seeds in zip(planned.by_replicate, planned.seeds, strict=False) if number in values
        ],
        name: printed and printed.value,
        f"{name}_of": printed.of if printed else "",
        "provenance": printed.provenance if printed else "",
        "best_epoch_mean": mean(list(best.values())),
        **({"failed": dict(result.failures)} if result.failures else {}),
        **{split: value for split, value in splits.items() if value is not None},
    }


def _searched(plan: Plan, results: Results) -> Searched:
    """Return an open search's part; a point that has not ended has no values."""
    space = results.space
    assert space.search is not None
    values: list[Sequence[float] | None] = []
    reported: dict[str, dict[str, list[float]]] = {}
    for result in results:
        headers = {result.planned.by_replicate[number]: header for number, header in result.headers.items()}
        values.append(objectives(plan, result.planned, headers.__getitem__) if result.complete else None)
        if result.complete and result.planned.champion_of:
            reported[result.trial.label] = {name: list(result.last(name).values()) for name in space.search.reported}
    return Searched(space, list(results), values, reported)
