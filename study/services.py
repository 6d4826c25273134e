"""Whether what the user named, a server, a database or a cluster, can do its work: found out before all else."""

from __future__ import annotations

import ipaddress
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Sequence
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, urlsplit, urlunsplit

from study.errors import Refusal, one_line
from study.masking import without_password

if TYPE_CHECKING:
    from sqlalchemy.engine import URL

SECONDS = 2.0  # for each step of an answer
TOTAL = 2.5  # for an answer, with the look-up of its name

_PORTS = {"postgresql": 5432, "mysql": 3306, "mariadb": 3306}
_TRACKING = "http://HOST:PORT, databricks, or a database such as sqlite:////folder/mlflow.db would do"
_STORAGE = "a database such as sqlite:////folder/optuna.db or postgresql://USER@HOST/NAME would do"
_LONGEST = 504  # bytes of a file's name: more, and SQLite cannot open its journal


def reachable(url: str) -> str:
    """Why a server does not answer, found within `TOTAL` seconds; "" if it does, or if the URL names none."""
    return _reasons([url])[0]


def require(*options: tuple[str, str]) -> None:
    """Refuse the first option whose URL names a server that does not answer; all are asked at the same time."""
    for (option, url), reason in zip(options, _reasons([url for _, url in options]), strict=True):
        if reason:
            remedy = f"a server that answers within {SECONDS:g} s would do ({reason})"
            raise Refusal(option, without_password(url), remedy)


def _reasons(urls: Sequence[str]) -> list[str]:
    return within([lambda url=url: _ask(url) for url in urls])  # type: ignore[misc]


def within(questions: Sequence[Callable[[], str]]) -> list[str]:
    """The answers, asked in threads that may stay behind: a name's look-up takes no timeout."""
    answers = [f"no answer within {TOTAL:g} s"] * len(questions)

    def ask(number: int) -> None:
        answers[number] = questions[number]()

    threads = [threading.Thread(target=ask, args=(number,), daemon=True) for number in range(len(questions))]
    for thread in threads:
        thread.start()
    end = time.monotonic() + TOTAL
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    return answers.copy()


def _ask(url: str) -> str:
    try:
        scheme = urlsplit(url).scheme
        if scheme in ("http", "https"):
            return _ask_http(urlsplit(url))
        if scheme.partition("+")[0] in _PORTS:
            return _ask_database(url)
    except ValueError:  # whose text may hold a part of a password
        return "its host or port cannot be read"
    return ""


def _ask_http(parts: SplitResult) -> str:
    """Whether a server says anything, be it that it refuses: no credentials are sent, no certificate is checked."""
    import ssl
    from urllib.error import HTTPError, URLError
    from urllib.request import HTTPRedirectHandler, HTTPSHandler, ProxyHandler, build_opener

    class Stay(HTTPRedirectHandler):
        def redirect_request(self, *_: object) -> None:
            """A redirection is an answer."""

    host = parts.hostname or ""
    place = (f"[{host}]" if ":" in host else host) + ("" if parts.port is None else f":{parts.port}")
    # Whether the certificate is trusted is between MLflow and its own settings.
    opener = build_opener(
        ProxyHandler({} if _is_loopback(host) else None),
        HTTPSHandler(context=ssl._create_unverified_context()),  # noqa: S323
        Stay,
    )
    try:
        url = urlunsplit((parts.scheme, place, parts.path.rstrip("/") + "/health", "", ""))
        opener.open(url, timeout=SECONDS).close()
    except HTTPError:
        return ""
    except (OSError, HTTPException) as error:
        reason = error.reason if isinstance(error, URLError) else error
        if isinstance(reason, ssl.SSLError) and "ALERT" in (reason.reason or ""):  # it wants a client's certificate
            return ""
        return (
            "it does not speak HTTP"
            if isinstance(error, HTTPException)
            else one_line(reason)
            if isinstance(reason, BaseException)
            else reason
        )
    return ""


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _ask_database(url: str) -> str:
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        parsed = make_url(url)
    except ArgumentError as error:
        return one_line(error)
    if not parsed.host:  # a local socket
        return ""
    return ask_port(parsed.host, parsed.port or _PORTS[parsed.get_backend_name()])


def ask_port(host: str, port: int) -> str:
    """Why nothing answers at a port; "" if something does."""
    try:
        with socket.create_connection((host, port), timeout=SECONDS):
            return ""
    except (OSError, OverflowError, UnicodeError) as error:
        return one_line(error)


def check_tracking(option: str, uri: str, made: Path | None = None) -> None:
    """Refuse an MLflow tracking URI that MLflow cannot use; asks no server, and does not import MLflow.

    Args:
        option: what the user called it.
        uri: where MLflow is.
        made: a folder that will be made.
    """
    scheme = uri.partition(":")[0].lower() if ":" in uri else ""
    if uri == "databricks" or scheme == "databricks":
        return
    if scheme in ("http", "https"):
        _check_http(option, uri)
    elif scheme.partition("+")[0] in ("sqlite", "postgresql", "mysql", "mssql"):
        _check_database(option, uri, made, _TRACKING)
    elif scheme in ("", "file"):
        raise Refusal(option, without_password(uri), f"MLflow keeps no records in plain files any more: {_TRACKING}")
    else:
        raise Refusal(option, without_password(uri), _TRACKING)


def _check_http(option: str, uri: str) -> None:
    try:
        host, _ = urlsplit(uri).hostname, urlsplit(uri).port
    except ValueError:
        host = ""
    if not host or re.search(r"\s", uri):
        raise Refusal(option, without_password(uri), f"its host or port cannot be read: {_TRACKING}")


def check_storage(option: str, url: str, made: Path | None = None) -> None:
    """Refuse a storage that Optuna cannot use, as `check_tracking` does; journals and Redis are such."""
    try:
        filled = url.format(SCHEMA_VERSION="")  # as Optuna does
    except (LookupError, ValueError, AttributeError):
        raise Refusal(option, without_password(url), "Optuna takes { and } only when doubled") from None
    if filled.partition(":")[0].partition("+")[0] not in ("sqlite", *_PORTS):
        raise Refusal(option, without_password(url), _STORAGE)
    _check_database(option, filled, made, _STORAGE)


def check_apart(storage_option: str, storage: str, tracking_uri: str) -> None:
    """Refuse one database for both: MLflow and Optuna would each take the other's tables for their own."""
    if "://" in tracking_uri and _database(storage) == _database(tracking_uri):
        raise Refusal(storage_option, without_password(storage), "a database other than MLflow's would do")


def _database(url: str) -> tuple[object, ...]:
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):  # a server of MLflow's, which need not be a database
        return (url,)
    backend = parsed.drivername.partition("+")[0]
    if backend == "sqlite":
        return (backend, os.path.realpath(parsed.database or ""))
    return (backend, parsed.host, parsed.port or _PORTS.get(backend), parsed.database)


def _check_database(option: str, url: str, made: Path | None, remedy: str) -> None:
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import SQLAlchemyError

    def refused(reason: str) -> Refusal:
        return Refusal(option, without_password(url), f"{reason}: {remedy}")

    try:
        parsed = make_url(url)
        dialect = parsed.get_dialect()
        dialect.import_dbapi()
    except ValueError:  # whose text may hold a part of a password
        raise refused("its host or port cannot be read") from None
    except ImportError as error:
        raise Refusal(
            option,
            without_password(url),
            f"its driver is not installed: with the Python module {error.name} it would do",
        ) from error
    except SQLAlchemyError as error:
        raise refused(one_line(error)) from error
    if dialect.is_async:
        raise refused(f"{dialect.driver} is for asynchronous programs")
    reason = _sqlite_reason(parsed, made) if dialect.name == "sqlite" else ""
    if reason:
        raise refused(reason)


def _sqlite_reason(url: URL, made: Path | None) -> str:
    """Why SQLite could not keep a database there, or ""."""
    name = url.database or ""
    if url.host:
        return "a file's path begins after three slashes"
    if name in ("", ":memory:") or name.startswith("file:"):
        return "another process could not see it"
    path = Path(name).absolute()
    try:
        if len(os.fsencode(path)) > _LONGEST:
            return f"SQLite opens no path of more than {_LONGEST} bytes"
        if path.is_file():
            return _file_reason(path, url.get_driver_name())
        if path.exists():
            return "it is not a file"
        if path.parent == made:
            return ""
        if not path.parent.is_dir():
            return f"there is no folder {path.parent}"
    except (OSError, ValueError) as error:
        return one_line(error)
    return "" if os.access(path.parent, os.W_OK) else f"{path.parent} cannot be written"


def _file_reason(path: Path, driver: str) -> str:
    with path.open("rb") as file:
        begin = file.read(16)
    if driver == "pysqlite" and begin not in (b"", b"SQLite format 3\0"):
        return "the file is no SQLite database"
    return "" if os.access(path, os.W_OK) and os.access(path.parent, os.W_OK) else "it cannot be written"
