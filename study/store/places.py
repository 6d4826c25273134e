"""The locations of stores (folders and buckets): connecting, checking, and making writes survive a power cut."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from pyarrow import fs

from study.store import s3

FIRST_RETRY_SECONDS = 0.25  # doubled by each further one
LONGEST_RETRY_SECONDS = 15.0

_T = TypeVar("_T")


def connect(url: str, attempts: int = 3) -> tuple[Any, str]:
    """Return the file system of a URL, and the path in it. Raise OSError or ValueError if it cannot be reached.

    Args:
        url: the URL.
        attempts: how often the client of S3 sends a request, if it gets no answer within seconds.
    """
    if url.startswith("s3://"):
        return s3.connect(url, attempts)
    connection: tuple[Any, str] = fs.FileSystem.from_uri(url)
    return connection


def patiently(call: Callable[[], _T], seconds: float) -> _T:
    """Return the result of a call that is repeated, with growing pauses, while it fails with an error that may pass.

    Such an error is that of an S3 server that does not answer or is busy, or of NFS about a file that another machine
    has just replaced.

    Args:
        call: what to call; it must be idempotent.
        seconds: for how long it is tried again.
    """
    end, delay = time.monotonic() + seconds, FIRST_RETRY_SECONDS
    while True:
        try:
            return call()
        except OSError as error:
            may_pass = s3.may_pass(error) or error.errno == errno.ESTALE
            if not may_pass or time.monotonic() + delay > end:
                raise
        time.sleep(delay)
        delay = min(2 * delay, LONGEST_RETRY_SECONDS)


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
