"""States under content names, and the records beside them, on any file system that `pyarrow.fs` reaches.

A state is one object: a header in JSON with the measures of every epoch so far, then a payload of bytes. The payload
holds tensors of the trainables; reports read those of single images. A state is whole or absent: a file is written
under a temporary name, synced and moved; an object of S3 or GCS appears when its upload is complete. Checksums reveal
damage; see `study.store.encoding`.
"""

from __future__ import annotations

import copy
import os
import re
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial, wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from pyarrow import fs

from study.errors import Away, Damaged, Refusal, one_line
from study.masking import without_password
from study.store import s3
from study.store.encoding import decode_header, decode_record, decode_state, encode_record, encode_state, head_end
from study.store.places import check_bucket, check_folder, connect, patiently, sync

_FIRST = 1 << 16  # read at once; most headers fit
_HEX = re.compile(r"[0-9a-f]+")
_OBJECTS = ("s3", "gcs")  # a put is atomic; Azure's stream begins with an empty blob, so it is moved like a file
_READERS = 4
PATIENCE_SECONDS = 120.0  # for which a call is tried again while S3 does not answer

_T = TypeVar("_T")
_P = ParamSpec("_P")


def _reaching(method: Callable[Concatenate[Store, _P], _T]) -> Callable[Concatenate[Store, _P], _T]:
    """Wrap a method so that it waits while S3 does not answer, and then raises `Away`, as if the file system fails.

    An absent file is no failure.
    """

    @wraps(method)
    def guarded(store: Store, /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        try:
            return patiently(lambda: method(store, *args, **kwargs), store.patience)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise Away(one_line(error)) from error

    return guarded


@contextmanager
def _absent() -> Iterator[None]:
    """Treat a state whose folder is a file as absent."""
    try:
        yield
    except NotADirectoryError as error:
        raise FileNotFoundError(str(error)) from error


@dataclass(frozen=True)
class Stored:
    """An object as a listing shows it. Its path is relative to the store's root."""

    path: str
    bytes: int
    age_seconds: float


class Store:
    """A directory of states and records, shared by runs.

    Args:
        url: a path, or a URL that `pyarrow.fs.FileSystem.from_uri` takes, such as ``s3://bucket/folder``.
        create: whether to create the directory and require that it can be written. Otherwise nothing is created, and
            the store need only be readable.
        wait: whether to wait for an S3 server that does not answer, as every later call does. Otherwise it is refused
            within five seconds.

    Attributes:
        url: the URL as workers need it.
        shown: the URL without passwords, for messages.
        patience: the seconds for which a call is tried again while S3 does not answer.

    Raises:
        Refusal: if the store cannot be reached.

    Every method raises `Away` if the file system fails: it is full, unplugged or unreachable.

    On NFS, a file that was closed is on the server, and opening it reads what is there (close-to-open). A file is
    written, closed and synced before its name appears, and its name is announced only then, so a reader on another
    machine gets all of it. A client may remember for up to a minute that a name did not exist: a state is therefore
    looked up only by the process that writes it before others are told of it, and a driver writes into the folder in
    which it looks for requests and rivals, which makes its client look again.
    """

    def __init__(self, url: str, create: bool = True, wait: bool = False) -> None:
        self.url, self.shown, self.patience = url, without_password(url), PATIENCE_SECONDS
        with self._refused("written" if create else "read"):
            if "://" not in url:
                self.url = self.shown = str(Path(url).expanduser().absolute())
            patiently(partial(self._open, create), PATIENCE_SECONDS if wait else 0.0)
        self._fs = fs.SubTreeFileSystem(self._path, self._base)

    def _open(self, create: bool) -> None:
        """Connect to the file system, and check that the directory or bucket can be used."""
        self._base, self._path = connect(self.url, attempts=1)
        self._objects = self._base.type_name in _OBJECTS
        self._local = Path(self._path) if isinstance(self._base, fs.LocalFileSystem) else None
        if self._objects:
            check_bucket(self._base, self._path)
            self._base, self._path = connect(self.url)
        else:
            check_folder(self._base, self._path, create)

    def variables(self) -> dict[str, str]:
        """Return the environment variables with which this process reaches the store, secrets included."""
        return s3.variables() if self.url.startswith("s3://") else {}

    def impatient(self) -> Store:
        """Return the same store for calls that are repeated anyway, such as heartbeats: they hardly wait for S3."""
        store = copy.copy(self)
        store.patience = 1.0
        return store

    def require_writable(self) -> None:
        """Check that a store that was opened for reading can be written."""
        if not self._objects:
            with self._refused("written"):
                check_folder(self._base, self._path, create=True)

    @contextmanager
    def _refused(self, done: str) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError, RuntimeError) as error:  # a user who does not exist is a RuntimeError
            reason = s3.explained(one_line(error))
            words = f"must be a directory or URL that can be {done}"
            hint = f"Reason: {reason.replace(self.url, self.shown)}"
            raise Refusal("--store", self.shown, words, hint) from error

    @_reaching
    def save(self, key: str, header: Mapping[str, Any], payload: bytes) -> bool:
        """Write a state, unless a whole one is stored under its name: the first one stays.

        On a GPU, a worker of another driver may have trained other bits under the same name, and later states go on
        from the stored ones. On object stores the check and the write are two requests, between which the other worker
        may come; on a local file system they are one.

        Returns:
            Whether this state is stored; if not, the caller goes on from the stored one.
        """
        data = encode_state(header, payload)
        if self._has_whole(key):
            return False
        try:
            self._write(_state_path(key), data, replace=False)
        except FileExistsError:  # another worker was faster, or a damaged state is there
            if self._has_whole(key):
                return False
            self._write(_state_path(key), data)
        return True

    def _has_whole(self, key: str) -> bool:
        if not self._exists(_state_path(key)):
            return False
        with suppress(FileNotFoundError, Damaged):
            self.load(key)
            return True
        return False

    @_reaching
    def header(self, key: str) -> dict[str, Any]:
        """Return a state's header after checking it.

        Raises:
            FileNotFoundError: if there is no such state.
            Damaged: if the object is not the one that `save` wrote.
        """

        def read() -> bytes:
            with self._fs.open_input_file(_state_path(key)) as file:
                data: bytes = file.read(_FIRST)
                missing = head_end(data) - len(data)
                return data + file.read(missing) if 0 < missing < 1 << 32 else data

        with _absent():
            return _certain(read, lambda data: decode_header(key, data))

    @_reaching
    def load(self, key: str) -> tuple[dict[str, Any], bytes]:
        """Return a state's header and payload after checking them. Raise the errors of `header`."""
        with _absent():
            return _certain(lambda: self._read(_state_path(key)), lambda data: decode_state(key, data))

    @_reaching
    def probe(self, size: int) -> None:
        """Write so many bytes and delete them, to see whether a state could be saved."""
        path = f"nodes/probe-{secrets.token_hex(6)}"
        try:
            self._write(path, bytes(size))
        finally:
            with suppress(Away):
                self.delete_record(path)

    @_reaching
    def has(self, key: str) -> bool:
        """Return whether there is a state of this name, whole or damaged."""
        return self._exists(_state_path(key))

    def keys(self) -> set[str]:
        """Return the names of all states."""
        return set(self.sizes())

    def sizes(self) -> dict[str, int]:
        """Return the size of every state in bytes, by name, from a listing alone."""
        return {key: stored.bytes for key, stored in self.states().items()}

    def states(self) -> dict[str, Stored]:
        """Return every state by name, as a listing shows it. Nothing is read."""
        named = ((stored.path.rpartition("/")[2], stored) for stored in self.objects("states"))
        return {key: stored for key, stored in named if _HEX.fullmatch(key) and stored.path == _state_path(key)}

    @_reaching
    def objects(self, folder: str = "") -> list[Stored]:
        """Return all objects in a folder and below, including files that killed writers left."""
        now = datetime.now(UTC)
        return [
            Stored(info.path, info.size or 0, (now - info.mtime).total_seconds() if info.mtime else 0.0)
            for info in self._listed(folder, recursive=True)
            if info.type == fs.FileType.File
        ]

    def verify(self, keys: Iterable[str]) -> dict[str, str]:
        """Read states whole, and return the damaged ones with the reason. A state that has vanished is not damaged."""

        def damage(key: str) -> str:
            try:
                self.load(key)
            except FileNotFoundError:
                return ""
            except Damaged as error:
                return str(error)
            return ""

        names = list(keys)
        with ThreadPoolExecutor(_READERS) as readers:
            return {key: reason for key, reason in zip(names, readers.map(damage, names), strict=True) if reason}

    @_reaching
    def set_aside(self, key: str) -> str:
        """Move a damaged state to the folder `damaged`, so that it is trained again.

        Returns:
            The new path, relative to the store's root. "" if nothing was moved because another driver was first or
            because the state is whole by now.
        """
        aside = f"damaged/{key}.{secrets.token_hex(6)}"
        try:
            self.load(key)
        except FileNotFoundError:
            return ""
        except Damaged:
            try:
                if not self._objects:
                    self._fs.create_dir("damaged", recursive=True)
                self._fs.move(_state_path(key), aside)
            except OSError:
                if self._exists(_state_path(key)):
                    raise
                return aside if self._exists(aside) else ""
            if self._local:
                with suppress(FileNotFoundError):
                    os.utime(self._local / aside)  # its age is counted from here
            return aside
        return ""

    def drop(self, key: str) -> None:
        """Delete a state's tensors. Its header stays for `measures`. Raise the errors of `header`."""
        self.write_record(_measures_path(key), self.header(key))
        self.delete_record(_state_path(key))

    def measures(self, key: str) -> dict[str, Any]:
        """Return the header of a state, also if its tensors were dropped.

        Raises:
            FileNotFoundError: if there never was such a state.
            Damaged: see `header` and `read_record`.
        """
        try:
            return self.header(key)
        except FileNotFoundError:
            record = self.read_record(_measures_path(key))
            if record is None:
                raise
            return record

    @_reaching
    def write_record(self, path: str, record: Mapping[str, Any], durable: bool = True) -> None:
        """Write a JSON record under a path below the store's root, atomically.

        Args:
            path: the path.
            record: the JSON.
            durable: whether the record must outlive a power cut; a heartbeat need not.
        """
        self._write(path, encode_record(path, record), durable)

    @_reaching
    def create_record(self, path: str, record: Mapping[str, Any]) -> bool:
        """Write a record that does not exist yet, and need not outlive a power cut; return whether it was written.

        On a local file system, one of several writers succeeds. Elsewhere, the check and the write are two requests.
        Of writers that come between, the last one succeeds, and so does one that has read its own record back before.
        """
        if self._exists(path):
            return False
        data = encode_record(path, record)
        with suppress(FileExistsError, FileNotFoundError):
            self._write(path, data, durable=False, replace=False)
            return self._read(path) == data
        return False

    @_reaching
    def read_record(self, path: str) -> dict[str, Any] | None:
        """Return a record, or None if there is none.

        Raises:
            Damaged: if the object is not the record that was written.
        """

        def check(data: bytes) -> dict[str, Any]:
            try:
                return decode_record(path, data)
            except ValueError as error:
                raise Damaged(f"{self.shown}/{path} is not the record that was written") from error

        try:
            return _certain(lambda: self._read(path), check)
        except FileNotFoundError:
            return None

    @_reaching
    def delete_record(self, path: str) -> None:
        """Delete a record, if it exists."""
        try:
            self._fs.delete_file(path)
        except OSError:
            if self._exists(path):
                raise

    @_reaching
    def records(self, folder: str) -> list[str]:
        """Return the sorted names of the records and folders in a folder."""
        wanted = (fs.FileType.File, fs.FileType.Directory)
        listed = (info.base_name for info in self._listed(folder, recursive=False) if info.type in wanted)
        return sorted(name for name in listed if not name.endswith(".tmp"))

    def _read(self, path: str) -> bytes:
        with self._fs.open_input_file(path) as file:
            data: bytes = file.read()
        return data

    def _listed(self, folder: str, recursive: bool) -> list[Any]:
        selector = fs.FileSelector(folder, recursive=recursive, allow_not_found=True)
        while True:
            # Arrow lists a folder, and asks whether it exists if the listing fails. If the folder is created in
            # between, Arrow raises FileNotFoundError although it exists.
            with suppress(FileNotFoundError):
                listing: list[Any] = self._fs.get_file_info(selector)
                return listing

    def _exists(self, path: str) -> bool:
        return bool(self._fs.get_file_info(path).type == fs.FileType.File)

    def _write(self, path: str, data: bytes, durable: bool = True, replace: bool = True) -> None:
        """Write an object. Without `replace`, raise FileExistsError if a local file system has one already."""
        try:
            if self._objects:
                # Closing a stream early creates an object of the bytes so far. In a thread, no signal can close it.
                with ThreadPoolExecutor(1) as writer:
                    writer.submit(self._put, path, data).result()
            else:
                self._put_and_move(path, data, durable, replace)
        except FileExistsError:
            if not replace:
                raise
            raise Away(f"{path} cannot be replaced") from None
        except FileNotFoundError as error:  # its folder
            raise Away(one_line(error)) from error

    def _put(self, path: str, data: bytes) -> None:
        with self._fs.open_output_stream(path) as file:
            file.write(data)

    def _put_and_move(self, path: str, data: bytes, durable: bool, replace: bool) -> None:
        folder = path.rpartition("/")[0]
        temporary = f"{path}.{secrets.token_hex(6)}.tmp"
        entries = [folder]
        if self._local and not (self._local / folder).is_dir():
            entries += [*map(str, Path(folder).parents)]
        self._fs.create_dir(folder, recursive=True)
        try:
            self._put(temporary, data)
            if self._local and durable:
                sync(self._local / temporary)
            if replace or not self._local or not _linked(self._local / temporary, self._local / path):
                self._fs.move(temporary, path)
        except BaseException:
            self.delete_record(temporary)
            raise
        if self._local and durable:
            for entry in entries:
                sync(self._local / entry)


def _linked(temporary: Path, path: Path) -> bool:
    """Move a file to a path that does not exist, at once; return whether the file system has links, which this needs.

    Raises:
        FileExistsError: if the path exists.
    """
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without links
        return False
    temporary.unlink()
    return True


def _certain(read: Callable[[], bytes], check: Callable[[bytes], _T]) -> _T:
    # An object that is replaced while it is read is a mixture of two. One that reads the same twice is damaged.
    previous = None
    while True:
        data = read()
        try:
            return check(data)
        except Damaged:
            if data == previous:
                raise
        previous = data


def _state_path(key: str) -> str:
    return f"states/{key[:2]}/{key}"


def _measures_path(key: str) -> str:
    return f"measures/{key[:2]}/{key}.json"
