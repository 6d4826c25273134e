"""The choices that all recipes share: the command of a run, its nodes, and where its states and records go."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from study.errors import Refusal
from study.masking import without_password

FILES = "/files"  # the folder of a container with the user's own files

_NAME = re.compile(r"[a-z](?:[a-z0-9-]{0,38}[a-z0-9])?")
_MEMORY = re.compile(r"[1-9]\d*[MGT]")
_TIME = re.compile(r"(?:(\d+)-)?(\d{1,3}):([0-5]\d):([0-5]\d)")
_URL = re.compile(r"\w[\w+.-]+:")  # the beginning of one
_BUCKET = re.compile(r"s3://(?:[^/?#]*@)?[\w.-]+(?:/[^?#]*)?(?:\?.*)?", re.ASCII)
_SECRETS = {
    "--store": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "--tracking-uri": "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD",
    "--storage": "PGPASSWORD",
}


@dataclass(frozen=True)
class Nodes:
    """The machines that train.

    Attributes:
        count: their number.
        cpus: CPUs of each; None for all.
        gpus: GPUs of each.
        memory: memory of each, such as ``64G``; None for what the cluster gives by default.
    """

    count: int
    cpus: int | None
    gpus: int
    memory: str | None

    def __post_init__(self) -> None:
        for option, value, least in (("--nodes", self.count, 1), ("--cpus", self.cpus, 1), ("--gpus", self.gpus, 0)):
            if value is not None and not least <= value <= 9999:
                raise Refusal(option, value, f"must be between {least} and 9999")
        if self.memory is not None and not _MEMORY.fullmatch(self.memory):
            raise Refusal("--memory", self.memory, "must be a whole number with M, G or T, such as 64G")


@dataclass(frozen=True)
class Places:
    """Where a run's states, data and records are, as options of ``study run``; None leaves an option out."""

    home: str
    store: str | None = None
    data_dir: str | None = None
    tracking_uri: str | None = None
    storage: str | None = None

    def __post_init__(self) -> None:
        for option, variables in _SECRETS.items():
            url = getattr(self, option[2:].replace("-", "_"))
            if url is not None and without_password(url) != url:
                hint = f"Leave it out here, and give it as {variables} in the file of passwords that is written"
                raise Refusal(option, without_password(url), "must hold no password", hint=hint)
        if self.store is not None and is_url(self.store) and not _BUCKET.fullmatch(self.store):
            raise Refusal("--store", self.store, "must be a folder or s3://BUCKET/PREFIX")

    def check_contained(self) -> None:
        """Check that containers, whose volume is the home, see all folders.

        Raises:
            Refusal: if they do not.
        """
        if self.store is not None and not is_url(self.store) and not Path(self.store).is_relative_to(self.home):
            raise Refusal("--store", self.store, f"must be s3://BUCKET/PREFIX or a folder in {self.home}, the volume")
        if self.data_dir is not None and not Path(self.data_dir).is_absolute():
            raise Refusal(
                "--data-dir", self.data_dir, f"must be an absolute path in the containers, such as {self.home}/data"
            )

    def options(self) -> list[str]:
        """Return the options and their values."""
        given = [("--home", self.home), ("--store", self.store), ("--data-dir", self.data_dir)]
        given += [("--tracking-uri", self.tracking_uri), ("--storage", self.storage)]
        return [word for name, value in given if value is not None for word in (name, value)]


@dataclass(frozen=True)
class Sweep:
    """A run on a cluster.

    Attributes:
        name: its name, and that of everything that is started for it.
        words: the spaces and options of ``study run``.
        nodes: the machines that train.
        places: where states, data and records are.
    """

    name: str
    words: tuple[str, ...]
    nodes: Nodes
    places: Places

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            words = "must be 1 to 40 small letters, digits and dashes, with a letter first and no dash last"
            raise Refusal("--name", self.name, words)

    def command(self, address: str = "auto") -> list[str]:
        """Return the command that trains, for a machine on which Ray runs; with the address ``local`` it starts Ray."""
        return ["study", "run", *self.words, "--address", address, *self.places.options()]


@dataclass(frozen=True)
class Limit:
    """The time that a run may take.

    Attributes:
        time: the limit, as ``HH:MM:SS`` or ``D-HH:MM:SS``; None for none.
        drain: seconds before the limit in which workers finish their epoch.
    """

    time: str | None
    drain: int

    def __post_init__(self) -> None:
        most = 65535 if self.time is None else min(65535, seconds("--time", self.time) - 1)  # 65535 is Slurm's
        if not 30 <= self.drain <= most:
            raise Refusal("--drain", self.drain, "must be at least 30 s, at most 65535 s and less than --time")


def seconds(option: str, text: str) -> int:
    """Return the seconds of ``HH:MM:SS`` or ``D-HH:MM:SS``, at least one.

    Raises:
        Refusal: if the text is something else.
    """
    match = _TIME.fullmatch(text)
    if match is None or not any(map(int, match.groups(default="0"))):
        raise Refusal(option, text, "must be HH:MM:SS or D-HH:MM:SS, such as 24:00:00, and more than 0")
    days, hours, minutes, rest = map(int, match.groups(default="0"))
    return ((days * 24 + hours) * 60 + minutes) * 60 + rest


def is_url(store: str) -> bool:
    """Return whether a store is no folder: it begins like a URL, even if it is malformed."""
    return _URL.match(store) is not None


def with_paths(words: Sequence[str], renamed: Callable[[Path], str]) -> tuple[str, ...]:
    """Return the words of a command with the paths of the user's own files renamed.

    A path is that of a Python file, as in ``./mine.py:space`` and ``--loss=./mine.py:Margin``, or follows ``NAME=@``.

    Raises:
        Refusal: if there is no such file.
    """
    return tuple(_with_path(word, before == "-o", renamed) for before, word in zip(("", *words), words, strict=False))


def _with_path(word: str, is_named: bool, renamed: Callable[[Path], str]) -> str:
    start = re.match(r"[\w-]+=@?" if is_named else r"--[\w-]+=", word)
    before = start[0] if start is not None else ""
    where, colon, name = word[len(before) :].partition(":")  # as `study.catalog.find` does
    if before.endswith("@"):
        where, colon, name = word[len(before) :], "", ""
    elif not where.endswith(".py"):
        return word
    path = Path(where)
    if not path.is_file():
        raise Refusal("file", where, "must be a file on this machine")
    return f"{before}{renamed(path.absolute())}{colon}{name}"


def packed(words: Sequence[str]) -> tuple[tuple[str, ...], dict[str, str]]:
    """Return the words with the paths that the user's own files have in a container, and these files by name.

    Raises:
        Refusal: if two files have one name, or a file is no text or larger than 500 kB.
    """
    paths: dict[str, Path] = {}

    def rename(path: Path) -> str:
        if not re.fullmatch(r"[\w.-]+", path.name, re.ASCII) or path.name == "run.sh":
            words = "must be named with letters, digits, dots, dashes and underscores, and not run.sh"
            raise Refusal("file", path.name, words)
        if paths.setdefault(path.name, path) != path:
            raise Refusal("file", str(path), f"must have another name than {paths[path.name]}")
        return f"{FILES}/{path.name}"

    renamed = with_paths(words, rename)
    texts = {}
    for name, path in paths.items():
        content = path.read_bytes()
        try:
            texts[name] = content.decode()
        except UnicodeDecodeError:
            raise Refusal("file", str(path), "must be text in UTF-8") from None
        if sum(map(len, texts.values())) > 500_000:
            raise Refusal("file", str(path), "must be smaller: all files together may have 500 kB")
    return renamed, texts
