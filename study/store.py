"""States under content names, and the plans beside them, on any file system that `pyarrow.fs` reaches.

A state is one object: a header in JSON with the measures of every epoch so far, then a payload of bytes that only the
trainables understand. It is written under a temporary name and moved, so it is whole or absent; a checksum over each
part tells damage. ::

    magic (8) | length of the header (8, little-endian) | SHA-256 of the header (32) | header | payload
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pyarrow import fs

from study.refusal import Damaged, Refusal
from study.services import without_password

MAGIC = b"LTSTATE1"
_PREFIX = len(MAGIC) + 8 + 32


class Store:
    """A directory of states and records, shared by runs.

    Args:
        url: a path, or a URL that `pyarrow.fs.FileSystem.from_uri` takes, such as ``s3://bucket/folder``.

    Raises:
        Refusal: if it cannot be reached or written.
    """

    def __init__(self, url: str) -> None:
        self.url = url if "://" in url else str(Path(url).expanduser().absolute())
        try:
            base, path = fs.FileSystem.from_uri(self.url)
            base.create_dir(path, recursive=True)
            if isinstance(base, fs.LocalFileSystem) and not os.access(path, os.W_OK):
                raise PermissionError("it is not writable")
        except (OSError, ValueError, NotImplementedError) as error:
            reason = str(error).splitlines()[0]
            raise Refusal(
                "--store", without_password(url), f"a directory or URL that can be written would do ({reason})"
            ) from error
        self._fs = fs.SubTreeFileSystem(path, base)

    def save(self, key: str, header: Mapping[str, Any], payload: bytes) -> None:
        """Write a state. A name always stands for the same content, so whoever comes last changes nothing."""
        described = {**header, "payload_bytes": len(payload), "payload_sha256": hashlib.sha256(payload).hexdigest()}
        head = json.dumps(described, separators=(",", ":"), allow_nan=False).encode()
        prefix = MAGIC + len(head).to_bytes(8, "little") + hashlib.sha256(head).digest()
        self._write(_state_path(key), prefix + head + payload)

    def header(self, key: str) -> dict[str, Any]:
        """A state's header, checked.

        Raises:
            FileNotFoundError: if there is no such state.
            Damaged: if what is there was not written by `save`.
        """
        with self._fs.open_input_file(_state_path(key)) as file:
            return _header(key, file.read(_PREFIX), lambda size: file.read(size))

    def load(self, key: str) -> tuple[dict[str, Any], bytes]:
        """A state's header and payload, checked; raises as `header` does."""
        with self._fs.open_input_file(_state_path(key)) as file:
            header = _header(key, file.read(_PREFIX), lambda size: file.read(size))
            payload = file.read()
        if len(payload) != header["payload_bytes"] or hashlib.sha256(payload).hexdigest() != header["payload_sha256"]:
            raise Damaged(f"state {key}: its tensors are not those that were written")
        return header, payload

    def keys(self) -> set[str]:
        """The names of all states."""
        return {name for name in self._names("states", recursive=True) if "." not in name}

    def write_record(self, path: str, record: Mapping[str, Any]) -> None:
        """Write a JSON record under a path below the store's root, atomically."""
        self._write(path, json.dumps(record, indent=1, allow_nan=False).encode())

    def read_record(self, path: str) -> dict[str, Any] | None:
        """A record, or None if there is none.

        Raises:
            Damaged: if it is not JSON.
        """
        try:
            with self._fs.open_input_file(path) as file:
                record: dict[str, Any] = json.loads(file.read())
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise Damaged(f"{self.url}/{path} is not a JSON record") from error
        return record

    def records(self, folder: str) -> list[str]:
        """The names of the records and folders in a folder, sorted."""
        return sorted(name for name in self._names(folder, recursive=False) if not name.endswith(".tmp"))

    def _names(self, folder: str, recursive: bool) -> list[str]:
        selector = fs.FileSelector(folder, recursive=recursive, allow_not_found=True)
        wanted = (fs.FileType.File,) if recursive else (fs.FileType.File, fs.FileType.Directory)
        return [info.base_name for info in self._fs.get_file_info(selector) if info.type in wanted]

    def _write(self, path: str, data: bytes) -> None:
        folder = path.rpartition("/")[0]
        self._fs.create_dir(folder, recursive=True)
        temporary = f"{path}.{secrets.token_hex(6)}.tmp"
        try:
            with self._fs.open_output_stream(temporary) as file:
                file.write(data)
            self._fs.move(temporary, path)
        except BaseException:
            if self._fs.get_file_info(temporary).type == fs.FileType.File:
                self._fs.delete_file(temporary)
            raise


def _state_path(key: str) -> str:
    return f"states/{key[:2]}/{key}"


def _header(key: str, prefix: bytes, read: Any) -> dict[str, Any]:
    if len(prefix) == _PREFIX and prefix.startswith(MAGIC):
        size = int.from_bytes(prefix[8:16], "little")
        head = read(size) if size < 1 << 32 else b""
        if len(head) == size and hashlib.sha256(head).digest() == prefix[16:]:
            header: dict[str, Any] = json.loads(head)
            if header.get("key") == key:
                return header
    raise Damaged(f"state {key}: its header is not the one that was written")
