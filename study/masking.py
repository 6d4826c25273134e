"""What of a URL may be shown and stored: all but its secrets."""

from __future__ import annotations

import re

_SECRET = re.compile(
    r"(?i)((?:^|[?&;])(?:[^=&;]*(?:pass|pwd|token|secret|(?<!ssl)key|credential|signature)[^=&;]*|sas|sig|odbc_connect)=)"
    r"[^&]*"
)


def without_password(url: str) -> str:
    """The URL, fit to be shown and stored: a password or key, also one in the query, becomes ``***``."""
    url = re.sub(r"^((?:[^:/?#]*://)?[^:@/?#]*):(?!/)[^@]*@(?:[^?]*@)?", r"\1:***@", url)
    head, mark, query = url.partition("?")
    query = re.sub(r"(://[^:@/?#&]*):[^&]*@", r"\1:***@", query)
    return head + mark + _SECRET.sub(r"\1***", query)
