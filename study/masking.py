"""URLs without their secrets, so that they may be shown and stored."""

from __future__ import annotations

import re

_SECRET = re.compile(
    r"(?i)((?:^|[?&;])(?:[^=&;]*(?:pass|pwd|token|secret|(?<!ssl)key|credential|signature)[^=&;]*|sas|sig|odbc_connect)=)"
    r"[^&]*"
)

_URL = re.compile(r"[A-Za-z][\w+.-]*://(?:(?![A-Za-z][\w+.-]*://)\S)+")


def without_password(url: str) -> str:
    """Return the URL with each password or key, also in its query, replaced by ``***``."""
    url = re.sub(r"^([^:/?#]*://[^:@/?#]*|[^:@/?#]*(?=:(?!/))):[^@]*@(?:[^?]*@)?", r"\1:***@", url)
    head, mark, query = url.partition("?")
    query = re.sub(r"(://[^:@/?#&]*):[^&]*@", r"\1:***@", query)
    return head + mark + _SECRET.sub(r"\1***", query)


def masked(text: str) -> str:
    """Return a text without the passwords and keys of the URLs in it."""
    text = re.sub(r"\S+", lambda word: without_password(word[0]) if "://" in word[0] else word[0], text)
    return _URL.sub(lambda url: without_password(url[0]), text)  # several may be in one word
