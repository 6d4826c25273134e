"""URLs without their secrets, so that they may be shown and stored."""

from __future__ import annotations

import re

_SECRET = re.compile(
    r"(?i)((?:^|[?&;])(?:[^=&;]*(?:pass|pwd|token|secret|(?<!ssl)key|credential|signature)[^=&;]*|sas|sig|odbc_connect)=)"
    r"[^&]*"
)

_BEFORE_URL = re.compile(r"(?<![\w+.-])(?=[\w+.-]+://)")


def without_password(url: str) -> str:
    """Return the URL with each password or key, also in its query, replaced by ``***``."""
    url = re.sub(r"^([^:/?#]*://[^:@/?#]*|[^:@/?#]*(?=:(?!/))):[^@]*@(?:[^?]*@)?", r"\1:***@", url)
    head, mark, query = url.partition("?")
    query = re.sub(r"(://[^:@/?#&]*):[^&]*@", r"\1:***@", query)
    return head + mark + _SECRET.sub(r"\1***", query)


def masked(text: str) -> str:
    """Return a text without the passwords and keys of the URLs in it, of which one word may have several."""
    return re.sub(r"\S+", lambda word: _masked_word(word[0]) if "://" in word[0] else word[0], text)


def _masked_word(word: str) -> str:
    return "".join(map(without_password, _BEFORE_URL.split(without_password(word))))
