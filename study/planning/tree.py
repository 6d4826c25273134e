"""From the replicates' recipes to a tree of stages, which train each missing state exactly once. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from study.space import Json, Resolved


@dataclass(frozen=True, repr=False)
class Stage:
    """Consecutive epochs from one kept state to the next. Ray Tune executes stages.

    Attributes:
        parent: the state that the stage starts from. If `start` is 0, it is drawn from the origin and not loaded.
        start: the index of the first epoch.
        keys: the states after each epoch; the last is kept.
        epochs: one instruction per epoch.
        origin: the JSON that determines state 0.
        remaining: the epochs from the stage's start to the end of the longest recipe that waits for it.
    """

    parent: str
    start: int
    keys: tuple[str, ...]
    epochs: tuple[Json, ...]
    origin: Json
    remaining: int

    @property
    def key(self) -> str:
        """The last state, which names the stage."""
        return self.keys[-1]

    def __repr__(self) -> str:
        return f"Stage({self.key[:8]}, epochs {self.start} to {self.start + len(self.keys) - 1})"


@dataclass(frozen=True)
class Failure:
    """Why a stage was given up.

    Attributes:
        reason: the reason in one line.
        traceback: the worker's traceback, or "".
        for_good: whether training itself raised, and would raise again. Otherwise a process, a disk or a machine
            failed, and the next start tries again.
        damaged: the state that could not be read, or "".
        host: the machine on which it failed, or "".
    """

    reason: str
    traceback: str = ""
    for_good: bool = False
    damaged: str = ""
    host: str = ""


def nodes(recipes: Iterable[Resolved]) -> set[str]:
    """Return the distinct states after state 0. Their number is the least number of epochs that trains all recipes."""
    return {key for recipe in recipes for key in recipe.keys[1:]}


def branching(recipes: Iterable[Resolved]) -> set[str]:
    """Return the states that are always kept: where recipes branch, and where they end."""
    children: dict[str, set[str]] = {}
    ends = set()
    for recipe in recipes:
        for parent, child in zip(recipe.keys, recipe.keys[1:], strict=False):
            children.setdefault(parent, set()).add(child)
        ends.add(recipe.keys[-1])
    return ends | {key for key, below in children.items() if len(below) > 1}


def missing(recipes: Iterable[Resolved], stored: Collection[str]) -> set[str]:
    """Return the states that must still be trained: in each recipe, those after its deepest stored state."""
    absent: set[str] = set()
    for recipe in recipes:
        for key in reversed(recipe.keys[1:]):
            if key in stored or key in absent:
                break
            absent.add(key)
    return absent


def joints(recipes: Iterable[Resolved]) -> set[str]:
    """Return the states that an open search keeps, because later points are likely to branch there."""
    return {recipe.keys[number] for recipe in recipes for number in recipe.joints}


def stages(recipes: Collection[Resolved], stored: Collection[str], keep: Collection[str] = ()) -> list[Stage]:
    """Return the stages that train all missing states, the longest remaining path first.

    Every stage starts at state 0, at a stored state, or at the end of another stage. Together the stages hold each
    missing state exactly once. A stage ends where recipes branch, where one ends, and at the states in `keep`.
    """
    absent = missing(recipes, stored)
    kept = branching(recipes) | set(keep)
    begun: dict[str, tuple[str, int, tuple[str, ...], tuple[Json, ...], Json]] = {}
    height: dict[str, int] = {}
    for recipe in recipes:
        total = len(recipe.epochs)
        index = total
        while index > 0 and recipe.keys[index] in absent:
            height[recipe.keys[index]] = max(height.get(recipe.keys[index], 0), total - index)
            index -= 1
        while index < total:
            stop = index + 1
            while recipe.keys[stop] not in kept:
                stop += 1
            keys = recipe.keys[index + 1 : stop + 1]
            begun.setdefault(keys[0], (recipe.keys[index], index, keys, recipe.epochs[index:stop], recipe.origin))
            index = stop
    unsorted = [
        Stage(parent, start, keys, epochs, origin, height[keys[0]] + 1)
        for parent, start, keys, epochs, origin in begun.values()
    ]
    return sorted(unsorted, key=lambda stage: -stage.remaining)


def cut(stage: Stage, keys: Collection[str]) -> list[Stage]:
    """Return the stages that train the same epochs one after the other, and end at these states, too."""
    parts, begin = [], 0
    for end in range(1, len(stage.keys) + 1):
        if end == len(stage.keys) or stage.keys[end - 1] in keys:
            parent = stage.keys[begin - 1] if begin else stage.parent
            part = (parent, stage.start + begin, stage.keys[begin:end], stage.epochs[begin:end])
            parts.append(Stage(*part, stage.origin, stage.remaining - begin))
            begin = end
    return parts


def descendants(key: str, all_stages: Iterable[Stage]) -> list[Stage]:
    """Return the stages that cannot be trained without the state `key`."""
    below: Mapping[str, list[Stage]] = _by_parent(all_stages)
    dependent, front = [], [key]
    while front:
        for stage in below.get(front.pop(), ()):
            dependent.append(stage)
            front.append(stage.key)
    return dependent


def _by_parent(all_stages: Iterable[Stage]) -> dict[str, list[Stage]]:
    below: dict[str, list[Stage]] = {}
    for stage in all_stages:
        below.setdefault(stage.parent, []).append(stage)
    return below
