"""The bytes of states and records, with checksums that reveal damage. ::

    magic (8) | length of the header (8, little-endian) | SHA-256 of the header (32) | header | payload

is a state: a header in JSON, then a payload of bytes. A record is JSON whose first entry, ``sha256``, is the checksum
over its path and the text of the other entries.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from study.errors import Damaged

MAGIC = b"LTSTATE1"
_PREFIX = len(MAGIC) + 8 + 32
_SEAL = len('{"sha256": ""') + 64  # the bytes before a record's other entries


def encode_state(header: Mapping[str, Any], payload: bytes) -> bytes:
    """Return the bytes of a state. Its header also gets the payload's size and checksum."""
    described = {**header, "payload_bytes": len(payload), "payload_sha256": hashlib.sha256(payload).hexdigest()}
    head = json.dumps(described, separators=(",", ":"), allow_nan=False).encode()
    return MAGIC + len(head).to_bytes(8, "little") + hashlib.sha256(head).digest() + head + payload


def head_end(data: bytes) -> int:
    """Return where the header ends of a state that begins with `data`."""
    return _PREFIX + int.from_bytes(data[8:16], "little")


def decode_header(key: str, data: bytes) -> dict[str, Any]:
    """Return the header of a state; `data` holds it at least.

    Raises:
        Damaged: if these are not the bytes of a state of this name.
    """
    head = data[_PREFIX : head_end(data)]
    if data.startswith(MAGIC) and len(data) >= head_end(data) and hashlib.sha256(head).digest() == data[16:_PREFIX]:
        with suppress(ValueError):
            header = json.loads(head)
            if isinstance(header, dict) and header.get("key") == key:
                return header
    raise Damaged(f"state {key}: its header is not the one that was written", key)


def decode_state(key: str, data: bytes) -> tuple[dict[str, Any], bytes]:
    """Return the header and the payload of a state.

    Raises:
        Damaged: if these are not the bytes of a state of this name.
    """
    header, payload = decode_header(key, data), data[head_end(data) :]
    written = (header.get("payload_bytes"), header.get("payload_sha256"))
    if written != (len(payload), hashlib.sha256(payload).hexdigest()):
        raise Damaged(f"state {key}: its tensors are not those that were written", key)
    return header, payload


def encode_record(path: str, record: Mapping[str, Any]) -> bytes:
    """Return the bytes of a record for a path below the store's root."""
    assert "sha256" not in record
    return _sealed(path, json.dumps(record, indent=1, allow_nan=False).encode())


def decode_record(path: str, data: bytes) -> dict[str, Any]:
    """Return the record of a path below the store's root.

    Raises:
        ValueError: if these are not the bytes of a record of this path.
    """
    body = b"{" + data[_SEAL:].removeprefix(b",")
    if data != _sealed(path, body):
        raise ValueError(f"not the record of {path}")
    record: dict[str, Any] = json.loads(body)
    return record


def _sealed(path: str, body: bytes) -> bytes:
    checksum = hashlib.sha256(path.encode() + b"\n" + body).hexdigest().encode()
    return b'{"sha256": "%s"%s%s' % (checksum, b"" if body == b"{}" else b",", body[1:])
