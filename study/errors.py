"""Errors, and their messages in one line."""

from __future__ import annotations

import logging
import os
import shlex

from study.masking import masked

_TRACEBACKS = logging.getLogger("study.tracebacks")  # of errors that are shown as one line; silent by default


class StudyError(Exception):
    """An error that the command line and notebooks show as one line, without a traceback."""

    def _render_traceback_(self) -> list[str]:
        """Return the lines that IPython shows."""
        return [f"{type(self).__name__}: {self}"]


class Refusal(StudyError):
    """A user's mistake: a value that was refused where it entered. The exit code is 2.

    Args:
        field: what is wrong, in the user's words: an option, a field of a configuration, a file.
        value: the value that the user gave.
        words: what is allowed, if it begins with ``must``: the message is then ``{field} {words} (got {value})``. Other
            words are the whole message and must name the value.
        hint: what to do, as a sentence.
    """

    def __init__(self, field: str, value: object, words: str, hint: str = "") -> None:
        self.field, self.value, self.words, self.hint = field, value, words, hint
        message = f"{field} {words} (got {value!r})" if words.startswith("must ") else words
        super().__init__(f"{message}. {hint}".replace("\n", " ") if hint else message.replace("\n", " "))

    def __reduce__(self) -> tuple[type[Refusal], tuple[str, object, str, str]]:
        return Refusal, (self.field, self.value, self.words, self.hint)


class Damaged(StudyError):
    """A damaged object of the store: it differs from what was written there.

    Args:
        words: which object, and what is wrong with it.
        key: the name of the state, if the object is one.
    """

    def __init__(self, words: str, key: str = "") -> None:
        self.key = key
        super().__init__(words)

    def __reduce__(self) -> tuple[type[Damaged], tuple[str, str]]:
        return Damaged, (str(self), self.key)


class Away(StudyError):
    """A store or a service that cannot be used now: full, unplugged or unreachable. Trying again may help."""


def named_by(option: str, variable: str, value: str) -> str:
    """Return what a refusal of a value names: the environment variable that gave it, or else the option."""
    return variable if value and value == os.environ.get(variable) else option


def show_tracebacks() -> None:
    """Let `note` write tracebacks to stderr from now on (``--traceback``)."""
    if not _TRACEBACKS.handlers:
        _TRACEBACKS.addHandler(logging.StreamHandler())
    _TRACEBACKS.setLevel(logging.DEBUG)
    _TRACEBACKS.propagate = False


def note(error: BaseException) -> None:
    """Write the traceback of an error that is shown as one line, if the user wants tracebacks."""
    _TRACEBACKS.debug("traceback of the error below:", exc_info=error)


def as_argument(text: str) -> str:
    """Return an argument for a command that a message suggests: in double quotes, if it needs any.

    Messages put commands in single quotes, as `shlex.quote` does with arguments: nobody could copy the command.
    """
    if shlex.quote(text) == text:
        return text
    return shlex.quote(text) if set(text) & set('"$`\\!') else f'"{text}"'


def one_line(error: BaseException, named: bool = False, whole: bool = False) -> str:
    """Return an error in one line, without a password that a URL in it may hold.

    Args:
        error: the exception.
        named: put its type in front, unless it is one of ours.
        whole: take all of its lines instead of the first.
    """
    kind, lines = type(error).__name__, str(error).strip().splitlines()
    text = " ".join(lines if whole else lines[:1])
    shown = masked(text)
    if named and not isinstance(error, StudyError):
        return f"{kind}: {shown}" if shown else kind
    return shown or kind
