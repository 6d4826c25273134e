"""The standard streams of the command line. No locale, closed pipe or closed terminal ends what a command does."""

from __future__ import annotations

import codecs
import io
import os
import sys
import unicodedata
from typing import TextIO

_CHARACTERS = {  # by what is shown instead
    "->": "⇒→",
    "<-": "←",
    "^": "↑",
    "v": "↓",
    "x": "×",
    "*": "·",
    "-": "−–—",
    "+-": "±",
    "<=": "≤",
    ">=": "≥",
    "~": "≈∝",
    "||": "‖",
    "inf": "∞",
    "sqrt": "√",
    "sum": "Σ",
    "'": "‘’",
    '"': "“”",
    "+": "†",
}
READABLE = {character: shown for shown, characters in _CHARACTERS.items() for character in characters}
_ERRORS = "study.readable"  # the name of the streams' error handler
_ASCII = "study_ascii"  # ASCII by a name that click does not know: instead of ASCII, click would write UTF-8


class _Lasting(io.FileIO):
    """A file descriptor that drops its output once it cannot be written: its reader has gone, or the disk is full."""

    error: OSError | None = None

    def write(self, data: bytes, /) -> int | None:  # type: ignore[override]
        """Write the data, or drop them."""
        if self.error is None:
            try:
                return super().write(data)
            except OSError as error:
                self.error = error
        return len(data)


def prepare() -> None:
    """Make stdout and stderr last, and let them replace characters that their encoding does not have.

    A descriptor that the caller has closed becomes the null device. Otherwise the next file that is opened would get
    its number, and whatever a library prints would be written into that file.
    """
    codecs.register_error(_ERRORS, _replace)
    codecs.register(_ascii)
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number: this one
    sys.stdout, sys.stderr = _lasting(sys.stdout, 1), _lasting(sys.stderr, 2)


def error_of_stdout() -> str:
    """Return why not all output could be written; "" if it was, or if its reader wanted no more, as ``head``."""
    sys.stdout.flush()
    error: OSError | None = sys.stdout.buffer.raw.error  # type: ignore[union-attr]  # made by `prepare`
    return "" if error is None or isinstance(error, BrokenPipeError) else str(error.strerror)


def readable(character: str) -> str:
    """Return a character in ASCII: é is e, ² is 2, ⇒ is ->, τ is tau; a question mark if it has no such form."""
    normal = unicodedata.normalize("NFKD", character)
    plain = READABLE.get(character) or normal.encode("ascii", "ignore").decode()
    if plain or unicodedata.combining(character):
        return plain
    name = unicodedata.name(normal[0], "")
    return name.rpartition(" ")[2].lower() if name.startswith("GREEK") else "?"


def _lasting(stream: TextIO | None, number: int) -> TextIO:
    encoding = "utf-8" if stream is None else codecs.lookup(stream.encoding).name
    raw = _Lasting(number, "w", closefd=False)
    by_line = number == 2 or raw.isatty()
    return io.TextIOWrapper(
        io.BufferedWriter(raw),  # type: ignore[type-var]
        _ASCII if encoding == "ascii" else encoding,
        _ERRORS,
        line_buffering=by_line,
    )


def _ascii(name: str) -> codecs.CodecInfo | None:
    known = codecs.lookup("ascii")
    functions = (known.encode, known.decode, known.streamreader, known.streamwriter)
    return (
        codecs.CodecInfo(*functions, known.incrementalencoder, known.incrementaldecoder, _ASCII)
        if name == _ASCII
        else None
    )


def _replace(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(readable, error.object[error.start : error.end])), error.end
