"""Two runs on one store at the same time: each shared stage is trained by one driver, and the other one waits for it.

Every driver announces its stages. The others cut theirs where those begin and end, and where the paths part, so that
all drivers cut a shared path into the same stages. Before a driver trains a stage, it claims the stage's first state,
as long as other drivers are alive. A claim holds while its driver lives, and correctness never depends on it: of two
equal states the first one stays.
"""

from __future__ import annotations

import secrets
import threading
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from typing import TypeVar

from study.decoding import decoded
from study.errors import Away, Damaged
from study.planning import tree
from study.planning.tree import Stage
from study.store.starts import Start, seems_alive
from study.store.states import Store

T = TypeVar("T")

LOOK_SECONDS = 2.0  # between two looks for other drivers


@dataclass(frozen=True)
class Holder:
    """The stored record of a claim.

    Attributes:
        run: the run of the driver that holds it.
        token: the token of its start.
    """

    run: str
    token: str


@dataclass(frozen=True)
class Announced:
    """The stored record of what a driver has planned.

    Attributes:
        keys: the states of its stages.
        ends: states before which its stages begin, or at which they end.
    """

    keys: tuple[str, ...]
    ends: tuple[str, ...]


@dataclass(frozen=True)
class _Paths:
    """What a driver has announced so far."""

    keys: frozenset[str] = frozenset()
    ends: frozenset[str] = frozenset()

    def and_those_of(self, announced: Announced) -> _Paths:
        return _Paths(self.keys.union(announced.keys), self.ends.union(announced.ends))

    def within(self, stage: Stage) -> set[str]:
        """Return the states of a stage at which one of the driver begins or ends, and the last one that both share."""
        shared = [key for key in stage.keys if key in self.keys]
        return {*self.ends.intersection(stage.keys), *shared[-1:]}


class Sharing:
    """The stages that this driver and others have in common.

    A thread looks for other drivers, and writes what has changed since its last look.

    Args:
        store: the store.
        run: the run of this driver.
        begun: its start.
        say: prints a line.
    """

    def __init__(self, store: Store, run: str, begun: Start, say: Callable[[str], None]) -> None:
        self._store, self._say = store.impatient(), say
        self._me = Holder(run, begun.record.token)
        self._mine = Announced((), ())
        self._cuts: frozenset[str] = frozenset()  # states at which stages of this driver are cut
        self._announced = ""  # the name of the last announcement
        self._has_changed = False  # since then
        self._others: set[str] = set()  # the runs of other drivers that are alive
        self._paths: dict[str, _Paths] = {}  # by run, also of drivers that have ended
        self._read_before: set[str] = set()  # announcements
        self._claims: dict[str, set[str]] = {}  # by stage that is being trained: the states that were claimed for it
        self._unreleased: deque[str] = deque()  # claims that are to be released when the store is back
        self._holders: dict[str, Holder] = {}  # by stage that could not begin: the driver that trains it
        self._told: set[str] = set()  # runs of which the user was told that this one waits for them
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look_often, name="sharing", daemon=True)

    @contextmanager
    def announced(self, stages: Collection[Stage]) -> Iterator[None]:
        """Announce stages, and at the end withdraw what this driver has announced and claimed."""
        try:
            self.announce(stages)
            yield
        finally:
            self.close()

    def announce(self, stages: Collection[Stage]) -> None:
        """Let other drivers know the stages of this one: the first time at once, later at the next look."""
        ends = {end for stage in stages for end in (stage.parent, stage.key)}
        self._mine = Announced(tuple(key for stage in stages for key in stage.keys), tuple(sorted(ends)))
        self._has_changed = True
        if not self._thread.is_alive() and not self._ended.is_set():
            self._look()
            self._thread.start()

    def _look_often(self) -> None:
        while not self._ended.wait(LOOK_SECONDS):
            self._look()

    def _look(self) -> None:
        """Write and release what has changed, and look for other drivers. What fails now is done at the next look."""
        others = set()
        with suppress(Away, FileNotFoundError):
            while self._unreleased:
                self._release_now(self._unreleased[0])
                self._unreleased.popleft()
            if self._has_changed:
                self._write()
            names = self._store.records("drivers")
            self._has_changed = self._has_changed or self._announced not in names
            for name in names:
                run, token = (name + "@").split("@")[:2]
                if name == self._announced:
                    continue
                if Holder(run, token) == self._me or not seems_alive(self._store, run, token):
                    self._store.delete_record(f"drivers/{name}")  # an earlier one, or of a driver that has ended
                elif run != self._me.run:
                    self._read_announced(name, run)
                    others.add(run)
            self._others = others

    def _write(self) -> None:
        self._has_changed = False  # before it is read: a change meanwhile is written at the next look
        before, mine = self._announced, self._mine
        name = f"{self._me.run}@{self._me.token}@{secrets.token_hex(4)}.json"
        try:
            record = Announced(mine.keys, tuple(sorted(self._cuts.union(mine.ends))))
            self._store.write_record(f"drivers/{name}", asdict(record), durable=False)
        except Away:
            self._has_changed = True
            raise
        self._announced = name
        if before:
            self._store.delete_record(f"drivers/{before}")

    def _read_announced(self, name: str, run: str) -> None:
        announced = None if name in self._read_before else self._read(f"drivers/{name}", Announced)
        if announced is not None:
            self._paths = self._paths | {run: self._paths.get(run, _Paths()).and_those_of(announced)}
            self._read_before.add(name)

    def _read(self, path: str, kind: type[T]) -> T | None:
        """Return a record; None if there is none, or if it is damaged or of another version."""
        with suppress(Damaged, ValueError):
            plain = self._store.read_record(path)
            return None if plain is None else decoded(kind, plain)
        return None

    def _is_another(self, driver: Holder) -> bool:
        """Return whether a driver trains another run, is alive, and still holds its run."""
        return driver.run != self._me.run and seems_alive(self._store, driver.run, driver.token)

    def is_shared(self, stage: Stage) -> bool:
        """Return whether another driver that is alive has planned the stage, too."""
        return any(stage.keys[0] in self._paths[run].keys for run in self._others & self._paths.keys())

    def was_shared(self, stage: Stage) -> bool:
        """Return whether another driver, which may have ended, has planned a part of the stage since the start."""
        return any(not paths.keys.isdisjoint(stage.keys) for paths in self._paths.values())

    def cut(self, stage: Stage) -> Sequence[Stage]:
        """Return the stages into which a stage is cut, since stages of other drivers begin, end or part inside."""
        parts = tree.cut(stage, set[str]().union(*(paths.within(stage) for paths in self._paths.values())))
        cuts = self._cuts.union(part.key for part in parts[:-1])
        if cuts != self._cuts:
            self._cuts, self._has_changed = cuts, True
        return parts

    def begin(self, stage: Stage) -> bool:
        """Claim a stage; return False if the driver of another run has claimed it before, or the store is away."""
        first = stage.keys[0]
        holder = self._claim(first) if self._others else self._me
        if holder == self._me:
            self._claims[stage.key] = {first} if self._others else set()
            self._tell_of_takeover(stage)
        elif holder is not None:
            self._holders[stage.key] = holder
            if holder.run not in self._told:
                self._told.add(holder.run)
                self._say(f"run {holder.run} trains stages that this run needs, too: it waits for them")
        return holder == self._me

    def _tell_of_takeover(self, stage: Stage) -> None:
        before = self._holders.pop(stage.key, None)
        if before is None or before.run not in self._told or self._is_another(before) or self.arrived(stage):
            return
        self._told.remove(before.run)
        self._say(f"run {before.run} has ended: this run trains what both need")

    def holder(self, stage: Stage) -> str:
        """Return the run whose driver trains a stage that could not begin here; "" if it is not known."""
        return self._holders[stage.key].run if stage.key in self._holders else ""

    def arrived(self, stage: Stage) -> bool:
        """Return whether the last state of a stage is in the store."""
        with suppress(Away):  # looked for again
            return self._store.has(stage.key)
        return False

    def _claim(self, key: str) -> Holder | None:
        """Claim a state; return the driver that has it now: this one, or another one that was first.

        None if the store is away.
        """
        with suppress(Away):
            while not self._store.create_record(_path(key), asdict(self._me)):
                holder = self._read(_path(key), Holder)
                if holder == self._me:
                    break
                if holder is not None and self._is_another(holder):
                    return holder
                self._store.delete_record(_path(key))  # of a driver that has ended
            return self._me
        return None

    def keep(self, stage: Stage, position: int) -> Collection[str] | None:
        """Claim the parts of a stage that is being trained; return the states inside that other drivers need.

        A driver may appear when the stage has begun. So the parts that it needs are claimed now. The claim of a part
        that has been trained is released: its last state has been stored, or was passed before a driver needed it.

        Args:
            stage: the stage.
            position: how many of its epochs have been trained.

        Returns:
            The states; None if the driver of another run has claimed the part that is next.
        """
        if not self._others or stage.key not in self._claims:
            return ()
        parts = self.cut(stage)
        ahead = [part for part in parts if stage.keys.index(part.key) >= position]
        firsts, claimed = [part.keys[0] for part in ahead], self._claims[stage.key]
        holders = {key: self._me if key in claimed else self._claim(key) for key in firsts}
        self._claims[stage.key] = {key for key, holder in holders.items() if holder == self._me}
        self._release(claimed.difference(firsts))
        first_holder = holders[firsts[0]] if firsts else None
        if first_holder is not None and first_holder != self._me:
            self._holders[stage.key] = first_holder
            return None
        return {part.key for part in ahead} - {stage.key}

    def end(self, stage: Stage) -> None:
        """Release a stage that has been trained or given up."""
        self._release(self._claims.pop(stage.key, set()))

    def _release(self, keys: Collection[str]) -> None:
        for key in keys:
            try:
                self._release_now(key)
            except Away:
                self._unreleased.append(key)

    def _release_now(self, key: str) -> None:
        is_claimed_again = any(key in claimed for claimed in list(self._claims.values()))
        if not is_claimed_again and self._read(_path(key), Holder) == self._me:
            self._store.delete_record(_path(key))

    def close(self) -> None:
        """End the thread and withdraw what this driver has announced and claimed."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()
        claims, self._claims = self._claims, {}
        with suppress(Away):  # they end with this driver
            for key in (*self._unreleased, *(key for claimed in claims.values() for key in claimed)):
                self._release_now(key)
            if self._announced:
                self._store.delete_record(f"drivers/{self._announced}")


def _path(key: str) -> str:
    return f"claims/{key}.json"
