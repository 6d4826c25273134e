"""Two runs on one store at the same time: each shared stage is trained by one driver, and the other one waits for it.

Every driver announces its stages. The others end theirs where those end, and where the paths part, so that all drivers
cut a shared path into the same stages. Before a driver trains a stage, it claims the stage's first state, as long as
other drivers are alive. A claim holds while its driver lives, and correctness never depends on it: of two equal states
the first one stays.
"""

from __future__ import annotations

import secrets
import threading
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
    """The stored record of the stages that a driver has planned.

    Attributes:
        stages: the states of each.
    """

    stages: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class _Paths:
    """The states of a driver's stages, and those at which they end."""

    keys: frozenset[str] = frozenset()
    ends: frozenset[str] = frozenset()

    def and_those_of(self, announced: Announced) -> _Paths:
        keys = self.keys.union(*announced.stages)
        return _Paths(keys, self.ends.union(stage[-1] for stage in announced.stages if stage))

    def within(self, stage: Stage) -> set[str]:
        """Return the states of a stage at which a stage of the driver ends, and the last one that both share."""
        shared = [key for key in stage.keys if key in self.keys]
        return {*self.ends.intersection(shared), *shared[-1:]}


class Sharing:
    """The stages that this driver and others have in common. A thread looks for other drivers.

    Args:
        store: the store.
        run: the run of this driver.
        begun: its start.
        say: prints a line.
    """

    def __init__(self, store: Store, run: str, begun: Start, say: Callable[[str], None]) -> None:
        self._store, self._say = store.impatient(), say
        self._me = Holder(run, begun.record.token)
        self._announced = ""  # the name of the last announcement
        self._others: set[str] = set()  # the runs of other drivers that are alive
        self._paths: dict[str, _Paths] = {}  # by run, also of drivers that have ended
        self._read_before: set[str] = set()  # announcements
        self._claims: dict[str, set[str]] = {}  # by stage that is being trained: the states that were claimed for it
        self._told: set[str] = set()  # runs of which the user was told
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
        """Let other drivers know the stages of this one, and look for theirs."""
        with suppress(Away):  # without it, stages may be trained twice
            name = f"drivers/{self._me.run}@{self._me.token}@{secrets.token_hex(4)}.json"
            record = Announced(tuple(stage.keys for stage in stages))
            self._store.write_record(name, asdict(record), durable=False)
            self._withdraw()
            self._announced = name
        if not self._thread.is_alive() and not self._ended.is_set():
            self._look()
            self._thread.start()

    def _withdraw(self) -> None:
        if self._announced:
            self._store.delete_record(self._announced)

    def _look_often(self) -> None:
        while not self._ended.wait(LOOK_SECONDS):
            self._look()

    def _look(self) -> None:
        others = set()
        with suppress(Away, FileNotFoundError):  # looked for again
            for name in self._store.records("drivers"):
                run, _, rest = name.partition("@")
                if not self._is_another(Holder(run, rest.partition("@")[0])):
                    continue
                announced = None if name in self._read_before else self._read(f"drivers/{name}", Announced)
                if announced is not None:
                    self._paths = self._paths | {run: self._paths.get(run, _Paths()).and_those_of(announced)}
                    self._read_before.add(name)
                others.add(run)
            self._others = others

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

    def cut(self, stage: Stage) -> Sequence[Stage]:
        """Return the stages into which a stage is cut, since stages of other drivers end or part from it inside."""
        return tree.cut(stage, set[str]().union(*(paths.within(stage) for paths in self._paths.values())))

    def begin(self, stage: Stage) -> bool:
        """Claim a stage; return False if the driver of another run has claimed it before."""
        first = stage.keys[0]
        holder = self._claim(first) if self._others else ""
        if not holder:
            self._claims[stage.key] = {first} if self._others else set()
        elif holder not in self._told:
            self._told.add(holder)
            self._say(f"run {holder} trains stages that this run needs, too: it waits for them")
        return not holder

    def arrived(self, stage: Stage) -> bool:
        """Return whether the last state of a stage is in the store."""
        with suppress(Away):  # looked for again
            return self._store.has(stage.key)
        return False

    def _claim(self, key: str) -> str:
        """Claim a state; return the run whose driver has claimed it before, or "" if this one has it now."""
        with suppress(Away):  # then it may be trained twice
            while not self._store.create_record(_path(key), asdict(self._me)):
                holder = self._read(_path(key), Holder)
                if holder == self._me:
                    break
                if holder is not None and self._is_another(holder):
                    return holder.run
                self._store.delete_record(_path(key))  # of a driver that has ended
        return ""

    def keep(self, stage: Stage, position: int) -> Collection[str]:
        """Claim the parts of a stage that is being trained; return the states inside that other drivers need.

        A driver may appear when the stage has begun. So the parts that it needs are claimed now. The claim of a part
        that has been trained is released: its last state has been stored, or was passed before a driver needed it.

        Args:
            stage: the stage.
            position: how many of its epochs have been trained.
        """
        if not self._others or stage.key not in self._claims:
            return ()
        parts = self.cut(stage)
        ahead = [part for part in parts if stage.keys.index(part.key) >= position]
        firsts, claimed = {part.keys[0] for part in ahead}, self._claims[stage.key]
        for key in firsts - claimed:
            self._claim(key)
        self._release(claimed - firsts)
        self._claims[stage.key] = firsts
        return {part.key for part in ahead} - {stage.key}

    def end(self, stage: Stage) -> None:
        """Release a stage that has been trained or given up."""
        self._release(self._claims.pop(stage.key, set()))

    def _release(self, keys: Collection[str]) -> None:
        for key in keys:
            with suppress(Away):  # it ends with this driver
                if self._read(_path(key), Holder) == self._me:
                    self._store.delete_record(_path(key))

    def close(self) -> None:
        """End the thread and withdraw what this driver has announced and claimed."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()
        for claimed in self._claims.values():
            self._release(claimed)
        with suppress(Away):
            self._withdraw()


def _path(key: str) -> str:
    return f"claims/{key}.json"
