"""Plans as version 0.2 and the first version of 0.3 stored them (format 3), so that their runs stay readable. Pure.

A plan of format 3 was for one science only. This module adds the facts about it that a plan of format 4 has.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

FORMAT = 3

_MARKS = {"†": "copied by the paper from its source", "*": "run again by the paper"}
_OF_A_SEARCH = ("trials", "objectives", "early_stop")
_OF_A_TRIAL = ("row", "column", "config", "axes", "measure")


def upgraded(plain: Mapping[str, Any]) -> dict[str, Any]:
    """Return a plan of format 3 as one of format 4.

    Raises:
        ValueError: if the JSON is not a plan of format 3.
    """
    try:
        request = _request(plain["request"])
        spaces = [_space(space, request["options"]) for space in plain["spaces"]]
        trials = [_trial(trial) for trial in plain["trials"]]
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not a plan of format {FORMAT}: {error!r}") from error
    return {**plain, "format": FORMAT + 1, "request": request, "spaces": spaces, "trials": trials}


def with_held_sources(plain: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a plan of format 4 with all sources in `held`: a space once had its own, of a notebook's function.

    Raises:
        ValueError: if the JSON is not a plan.
    """
    try:
        codes = {space["file"].partition(":")[0]: space["code"] for space in plain["spaces"] if space.get("code")}
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not a plan: {error!r}") from error
    return {**plain, "held": {**codes, **plain.get("held", {})}}


def _request(plain: Mapping[str, Any]) -> dict[str, Any]:
    kept = {name: plain[name] for name in _OF_A_SEARCH if name in plain}
    named = {name: value for name, value in plain.items() if name not in (*_OF_A_SEARCH, "options") and value}
    return {**kept, "options": {**named, **plain.get("options", {})}}


def _space(plain: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    known = {name: value for name, value in plain.items() if name != "paper_columns"}
    source = {"name": "paper", "columns": plain.get("paper_columns", ()), "marks": _MARKS, "runs": "n = 1 or unstated"}
    crossed = "--vary crossed" if "crossed" in options.get("vary", ()) else ""
    evidence = "" if options.get("short") else plain["evidence"]
    more = {"source": source, "splits": ("many", "medium", "few"), "crossed": crossed, "evidence": evidence}
    return {**known, **more}


def _trial(plain: Mapping[str, Any]) -> dict[str, Any]:
    trial = {name: plain[name] for name in _OF_A_TRIAL}
    trial["called"] = "" if plain["label"] == f"{plain['row']} ({plain['column']})" else plain["label"]
    if plain["paper"] is not None:
        provenance = plain.get("provenance", "")
        trial["printed"] = {"value": plain["paper"], "provenance": provenance, "of": plain["paper_of"]}
    moved = (*_OF_A_TRIAL, "label", "paper", "paper_of", "provenance")
    return {"trial": trial, **{name: value for name, value in plain.items() if name not in moved}}
