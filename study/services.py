"""Whether a service that the user named is there, found out before anything is written."""

from __future__ import annotations

import re
import socket
from urllib.parse import urlsplit

from study.refusal import Refusal

SECONDS = 2.0

_PORTS = {"http": 80, "https": 443, "postgresql": 5432, "mysql": 3306}


def reachable(url: str) -> str:
    """Why a server cannot be reached within two seconds, or "" if it can, or if the URL names no server."""
    try:
        parts = urlsplit(url)
        scheme = parts.scheme.partition("+")[0]
        if scheme not in _PORTS:
            return ""
        address = (parts.hostname or "localhost", parts.port or _PORTS[scheme])
        with socket.create_connection(address, timeout=SECONDS):
            return ""
    except (OSError, ValueError) as error:
        return str(error) or type(error).__name__


def require(option: str, url: str) -> None:
    """Refuse a URL whose server cannot be reached; a password in it is not repeated."""
    reason = reachable(url)
    if reason:
        raise Refusal(option, without_password(url), f"a server that answers within {SECONDS:g} s would do ({reason})")


def without_password(url: str) -> str:
    """The URL, fit to be shown and stored: a password, also one in the query, becomes ``***``."""
    url = re.sub(r"(://[^:@/?]*):[^?]*@", r"\1:***@", url)
    return re.sub(r"(?i)((?:pass|pwd|token|secret|key)[^=&]*=)[^&]*", r"\1***", url)
