"""The installed spaces as text: a list of all of them, and a page about one."""

from __future__ import annotations

import inspect
import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from study import catalog
from study.machine import Machine
from study.planning.drafting import call as call_spaces
from study.planning.drafting import draft
from study.planning.stored import Resources
from study.space import Option, Request, Space, Trial

SEARCHES, OTHERS = "open searches", "others"


@dataclass(frozen=True)
class Listed:
    """An installed space in a list.

    Attributes:
        name: the name on the command line.
        title: what it reproduces.
        search: whether it is an open search.
        costs: the costs of one replicate by scale: ``default``, and the options that change the size of a space. Each
            has ``epochs_naive``, ``epochs_needed`` and ``runs``, the least number of replicates that the space needs.
    """

    name: str
    title: str
    search: bool
    costs: dict[str, dict[str, int]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the entry as JSON holds it."""
        return {"space": self.name, "search": self.search, "title": self.title, **self.costs}


def spaces(with_costs: bool) -> list[Listed]:
    """Return every installed space. With costs this takes seconds, because each space is planned at each scale."""
    requests = {"default": Request(), **{option.name: Request({option.name: True}) for option in _scales()}}
    entries = []
    for name in catalog.names():
        (_, _, space), *_ = call_spaces([name], Request()).spaces
        entry = Listed(name, space.title, space.search is not None)
        scales = ("default", *(option.name for option in space.options if option.scale)) if with_costs else ()
        for scale in scales:
            plan = draft(call_spaces([name], requests[scale]), 1, Machine("cpu", 1), Resources()).plan
            naive = sum(trial.epochs * len(trial.ends) for trial in plan.trials)
            runs = max((len(trial.ends) for trial in plan.trials), default=1)
            entry.costs[scale] = {"epochs_needed": plan.epochs_needed, "epochs_naive": naive, "runs": runs}
        entries.append(entry)
    return entries


def text(entries: Sequence[Listed], verbose: bool) -> str:
    """Return a list for a terminal: one line per space, in groups; with `verbose`, the cost below each."""
    width = max(map(len, (entry.name for entry in entries)), default=0)
    columns = shutil.get_terminal_size().columns
    lines = []
    for group, members in _grouped(entries).items():
        lines.append(f"{group}:")
        for entry in members:
            title = entry.title.removeprefix(_spelled(entry.name)).lstrip(": ")
            lines.append(_shortened(f"  {entry.name:{width}}  {title}", columns))
            if verbose:
                lines.append(f"  {'':{width}}  {_costs(entry)}")
    if verbose:
        scales = ", ".join(["by default", *(f"with --{option.name}" for option in _scales())])
        lines += ["", f"Epochs of one replicate → after sharing prefixes: {scales}."]
    return "\n".join(lines)


def _grouped(entries: Sequence[Listed]) -> dict[str, list[Listed]]:
    """Return the spaces by group: names that differ only in a number, other names, and open searches."""
    stems = [re.sub(r"\d+$", "", entry.name) for entry in entries]
    groups: dict[str, list[Listed]] = {}
    for entry, stem in zip(entries, stems, strict=True):
        group = SEARCHES if entry.search else f"{stem}s" if stems.count(stem) > 1 else OTHERS
        groups.setdefault(group, []).append(entry)
    last = [name for name in (OTHERS, SEARCHES) if name in groups]
    return {name: groups[name] for name in [*sorted(groups.keys() - set(last), reverse=True), *last]}


def _spelled(name: str) -> str:
    """Return a name as titles spell it: ``Table 9`` for ``table9``."""
    return re.sub(r"(\d+)$", r" \1", name).capitalize()


def _shortened(line: str, columns: int) -> str:
    return line if len(line) <= columns else line[: columns - 1].rstrip() + "…"


def _costs(entry: Listed) -> str:
    if entry.search:
        return "--trials sets the number of points"
    return "; ".join(
        f"{scale} {cost['epochs_naive']} → {cost['epochs_needed']}"
        + (f" ({cost['runs']} runs)" if cost["runs"] > 1 else "")
        for scale, cost in entry.costs.items()
    )


def as_json(entries: Sequence[Listed]) -> str:
    """Return the list as JSON."""
    return json.dumps([entry.to_json() for entry in entries], indent=2, ensure_ascii=False)


def page(name: str) -> str:
    """Return a page about a space: the docstring of its file, its trials or dimensions, and its options."""
    function, _ = catalog.find(name)
    space = catalog.call(function, name, Request())
    parts = [inspect.getdoc(inspect.getmodule(function)) or space.title]
    if space.search is None:
        trials = [(trial.label, _printed(space, trial)) for trial in space.trials]
        parts.append("Trials:\n" + _aligned(trials))
    else:
        parts.append("Dimensions:\n" + _aligned([(key, str(domain)) for key, domain in space.domain.items()]))
    declared = [f"--{option.name}" for option in space.options if option.name in catalog.options()]
    if declared:
        parts.append(f"Options: {', '.join(declared)} ('study run --help' describes them)")
    named = [(f"-o {option.name}=…", option.help) for option in space.options if option.name not in catalog.options()]
    if named:
        parts.append("Options of this space only:\n" + _aligned(named))
    return "\n\n".join(parts)


def _printed(space: Space, trial: Trial) -> str:
    """Return the source's figure for a trial, or ""."""
    printed = trial.printed
    return "" if printed is None else f"{space.source.name} {printed.value:.1f} ({printed.of or trial.column})"


def _aligned(rows: Sequence[tuple[str, str]]) -> str:
    width = max(len(left) for left, _ in rows)
    return "\n".join(f"  {left:{width}}  {right}".rstrip() for left, right in rows)


def _scales() -> list[Option]:
    return [option for option in catalog.options().values() if option.scale]
