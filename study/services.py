"""Checks that the servers and databases that the user names can be used, before anything else is done."""

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
_DRIVERS = {"psycopg": '"longtail-study[postgres]"', "psycopg2": "psycopg2-binary", "MySQLdb": "mysqlclient"}
# In the reasons of databases that refuse a connection now, but may accept it later.
_MAY_PASS = re.compile(
    r"starting up|shutting down|recovery|not yet accepting|[Tt]oo many|connection slots|time[d ]*out|within \d|refused"
    r"|reset|closed|resolve|not known|unreachable|[Cc]an't connect|Lost connection"
)
_TRACKING = "must be http://HOST:PORT, databricks, or a database such as sqlite:////folder/mlflow.db"
_STORAGE = "must be a database such as sqlite:////folder/optuna.db or postgresql://USER@HOST/NAME"
_LONGEST = 504  # bytes of a file's name: more, and SQLite cannot open its journal


def reachable(url: str) -> str:
    """Return why a server does not answer, within `TOTAL` seconds; "" if it does, or if the URL names none."""
    return _reasons([url])[0]


def require(*options: tuple[str, str]) -> None:
    """Check that the servers of all options answer; all are asked at the same time.

    Args:
        options: the name and the URL of each option.

    Raises:
        Refusal: for the first one that does not answer.
    """
    for (option, url), reason in zip(options, _reasons([url for _, url in options]), strict=True):
        if reason:
            words = f"{option}: {without_password(url)!r} does not answer within {SECONDS:g} s ({reason})"
            raise Refusal(option, without_password(url), words, hint="Start the server, or name another one")


def _reasons(urls: Sequence[str]) -> list[str]:
    return within([lambda url=url: _ask(url) for url in urls])  # type: ignore[misc]


def within(questions: Sequence[Callable[[], str]], seconds: float | None = None) -> list[str]:
    """Return the answers of threads that may outlive this call, because the look-up of a host name has no timeout.

    Args:
        questions: functions that return an answer; all are called at the same time.
        seconds: how long to wait for them; by default `TOTAL`.
    """
    seconds = TOTAL if seconds is None else seconds
    answers = [f"no answer within {seconds:g} s"] * len(questions)

    def ask(number: int) -> None:
        try:
            answers[number] = questions[number]()
        except Exception as error:  # noqa: BLE001  of a library, such as a database's driver
            answers[number] = one_line(error, named=True)

    threads = [threading.Thread(target=ask, args=(number,), daemon=True) for number in range(len(questions))]
    for thread in threads:
        thread.start()
    end = time.monotonic() + seconds
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
    """Return why a server does not answer; a refusal is an answer.

    No credentials are sent, and no certificate is checked.
    """
    import ssl
    from urllib.error import HTTPError, URLError
    from urllib.request import HTTPRedirectHandler, HTTPSHandler, ProxyHandler, build_opener

    class Stay(HTTPRedirectHandler):
        def redirect_request(self, *_: object) -> None:
            """Treat a redirection as an answer."""

    host = parts.hostname or ""
    netloc = (f"[{host}]" if ":" in host else host) + ("" if parts.port is None else f":{parts.port}")
    # MLflow has its own settings for the certificates that it trusts.
    opener = build_opener(
        ProxyHandler({} if _is_loopback(host) else None),
        HTTPSHandler(context=ssl._create_unverified_context()),  # noqa: S323
        Stay,
    )
    try:
        url = urlunsplit((parts.scheme, netloc, parts.path.rstrip("/") + "/health", "", ""))
        opener.open(url, timeout=SECONDS).close()
    except HTTPError:
        return ""
    except (OSError, HTTPException) as error:
        reason = error.reason if isinstance(error, URLError) else error
        if isinstance(reason, ssl.SSLError) and "ALERT" in (
            reason.reason or ""
        ):  # the server asks for a client's certificate
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
    """Return why nothing answers at a port; "" if something does."""
    try:
        with socket.create_connection((host, port), timeout=SECONDS):
            return ""
    except (OSError, OverflowError, UnicodeError) as error:
        return one_line(error)


def require_login(*options: tuple[str, str]) -> None:
    """Check that no database refuses its user, password or name. One that does not answer now is not refused.

    Args:
        options: the name and the URL of each option.

    Raises:
        Refusal: for the first one that is refused, within `TOTAL` seconds.
    """
    reasons = within([lambda url=url: _log_in(url) for _, url in options])  # type: ignore[misc]
    for (option, url), reason in zip(options, reasons, strict=True):
        if reason and not _MAY_PASS.search(re.sub(r'(user|role|database) "[^"]*"', "", reason)):
            words = f"{option}: {without_password(url)!r} refuses the connection ({reason})"
            hint = "Check the user, the password and the database's name; PGPASSWORD or ~/.pgpass may hold the password"
            raise Refusal(option, without_password(url), words, hint)


def _log_in(url: str) -> str:
    """Return why a connection to a database on a server cannot be made; "" if it can, or if the URL names none."""
    if urlsplit(url).scheme.partition("+")[0] not in _PORTS:
        return ""
    from sqlalchemy import create_engine
    from sqlalchemy.exc import DBAPIError
    from sqlalchemy.pool import NullPool

    try:
        create_engine(url, poolclass=NullPool).connect().close()
    except DBAPIError as error:
        return one_line(error.orig or error).rpartition("FATAL:")[2].strip()
    return ""


def check_tracking(option: str, uri: str, new_folder: Path | None = None) -> None:
    """Check that MLflow can use a tracking URI, without asking the server or importing MLflow.

    Args:
        option: its name on the command line.
        uri: where MLflow is.
        new_folder: a folder that will be made.

    Raises:
        Refusal: if it cannot.
    """
    scheme = uri.partition(":")[0].lower() if ":" in uri else ""
    if uri == "databricks" or scheme == "databricks":
        return
    if scheme in ("http", "https"):
        _check_http(option, uri)
    elif scheme.partition("+")[0] in ("sqlite", "postgresql", "mysql", "mssql"):
        _check_database(option, uri, new_folder, _TRACKING)
    elif scheme in ("", "file"):
        raise Refusal(option, without_password(uri), _TRACKING, hint="MLflow no longer keeps records in plain files")
    else:
        raise Refusal(option, without_password(uri), _TRACKING)


def _check_http(option: str, uri: str) -> None:
    try:
        host, _ = urlsplit(uri).hostname, urlsplit(uri).port
    except ValueError:
        host = ""
    if not host or re.search(r"\s", uri):
        raise Refusal(option, without_password(uri), _TRACKING, hint="Its host or port cannot be read")


def check_storage(option: str, url: str, new_folder: Path | None = None) -> None:
    """Check that Optuna can use a storage, as `check_tracking` does; journals and Redis are refused."""
    try:
        filled = url.format(SCHEMA_VERSION="")  # as Optuna does
    except (LookupError, ValueError, AttributeError):
        words = f"{option}: {without_password(url)!r} has a single {{ or }}. Double it, as Optuna requires"
        raise Refusal(option, without_password(url), words) from None
    if filled.partition(":")[0].partition("+")[0] not in ("sqlite", *_PORTS):
        raise Refusal(option, without_password(url), _STORAGE)
    _check_database(option, filled, new_folder, _STORAGE)


def check_apart(storage_option: str, storage: str, tracking_uri: str) -> None:
    """Check that MLflow and Optuna use different databases: each would take the other's tables for its own."""
    if "://" in tracking_uri and _database(storage) == _database(tracking_uri):
        raise Refusal(storage_option, without_password(storage), "must be another database than MLflow's")


def _database(url: str) -> tuple[object, ...]:
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):  # an MLflow server, no database
        return (url,)
    backend = parsed.drivername.partition("+")[0]
    if backend == "sqlite":
        return (backend, os.path.realpath(parsed.database or ""))
    return (backend, parsed.host, parsed.port or _PORTS.get(backend), parsed.database)


def _check_database(option: str, url: str, new_folder: Path | None, words: str) -> None:
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import SQLAlchemyError

    def refused(reason: str) -> Refusal:
        return Refusal(option, without_password(url), words, hint=reason[:1].upper() + reason[1:])

    try:
        parsed = make_url(url)
        dialect = parsed.get_dialect()
        dialect.import_dbapi()
    except ValueError:  # whose text may hold a part of a password
        raise refused("its host or port cannot be read") from None
    except ImportError as error:
        shown = without_password(url)
        package = _DRIVERS.get(str(error.name), error.name)
        missing = f"{option}: the driver of {shown!r} is not installed. 'pip install {package}' installs it"
        raise Refusal(option, shown, missing) from error
    except SQLAlchemyError as error:
        raise refused(one_line(error)) from error
    if dialect.is_async:
        raise refused(f"The driver {dialect.driver} is for asynchronous programs")
    reason = _sqlite_reason(parsed, new_folder) if dialect.name == "sqlite" else ""
    if reason:
        raise refused(reason)


def _sqlite_reason(url: URL, new_folder: Path | None) -> str:
    """Return why SQLite cannot keep a database there, or ""."""
    name = url.database or ""
    if url.host:
        return "a file's path begins after three slashes"
    if name in ("", ":memory:") or name.startswith("file:"):
        return "other processes could not see a database in memory"
    path = Path(name).absolute()
    try:
        if len(os.fsencode(path)) > _LONGEST:
            return f"SQLite opens no path of more than {_LONGEST} bytes"
        if path.is_file():
            return _file_reason(path, url.get_driver_name())
        if path.exists():
            return "it is not a file"
        if path.parent == new_folder:
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
