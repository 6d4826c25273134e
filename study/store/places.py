"""The locations of stores (folders and buckets): connecting, checking, and making writes survive a power cut."""

from __future__ import annotations

import errno
import os
import socket
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from pyarrow import fs

ANSWER_SECONDS = 5.0


def connect(url: str) -> tuple[Any, str]:
    """Return the file system of a URL, and the path in it. Raise OSError or ValueError if it cannot be reached."""
    parts = urlsplit(url)
    if parts.scheme == "s3":
        options = parse_qs(parts.query)
        default = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
        endpoint = options.get("endpoint_override", [default])[0]
        if endpoint:
            _require_answer(endpoint if "://" in endpoint else f"{options.get('scheme', ['https'])[0]}://{endpoint}")
        with suppress(ValueError):  # unknown to pyarrow 18; reads a small object with one request instead of three
            delayed: tuple[Any, str] = fs.FileSystem.from_uri(
                f"{url}{'&' if parts.query else '?'}allow_delayed_open=true"
            )
            return delayed
    connection: tuple[Any, str] = fs.FileSystem.from_uri(url)
    return connection


def _require_answer(endpoint: str) -> None:
    """Check that a server answers within five seconds, or raise OSError. The S3 client would wait for minutes."""
    parts = urlsplit(endpoint)
    address = (parts.hostname or "", parts.port or (80 if parts.scheme == "http" else 443))
    with socket.create_connection(address, timeout=ANSWER_SECONDS) as server:
        server.sendall(b"HEAD / HTTP/1.1\r\nHost: store\r\nConnection: close\r\n\r\n")
        server.recv(1)


def check_bucket(base: Any, path: str) -> None:
    """Check that a path is in an existing bucket, or raise ValueError; OSError if it cannot be listed."""
    if not path:
        raise ValueError("the URL names no bucket")
    base.get_file_info(fs.FileSelector(f"{path}/none", recursive=True, allow_not_found=True))
    bucket = path.partition("/")[0]
    with suppress(OSError):  # a user who may list the folder need not see the bucket
        if base.get_file_info(bucket).type == fs.FileType.NotFound:
            raise ValueError(f"the bucket {bucket} does not exist")


def check_folder(base: Any, path: str, create: bool) -> None:
    """Create a folder, or check that it exists. Raise OSError unless it can be written (`create`), or else read."""
    if create:
        base.create_dir(path, recursive=True)
    elif base.get_file_info(path).type != fs.FileType.Directory:
        raise FileNotFoundError("there is no such directory")
    if isinstance(base, fs.LocalFileSystem) and not os.access(path, os.R_OK | os.X_OK | (os.W_OK if create else 0)):
        raise PermissionError(f"the directory is not {'writable' if create else 'readable'}")


def sync(path: Path) -> None:
    """Make the content of a file, or the names in a folder, survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # a file system that cannot sync
            raise
    finally:
        os.close(handle)
