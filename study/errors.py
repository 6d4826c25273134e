"""What goes wrong, and how it is said in one line."""

from __future__ import annotations

from study.masking import without_password


class StudyError(Exception):
    """What the command line prints as one line, without a traceback."""


class Refusal(StudyError):
    """A user's mistake: a value that was refused where it entered. The exit code is 2.

    Args:
        field: what was wrong, in the user's words: an option, a config field, a file.
        value: the value as it was given.
        remedy: what would do instead.
    """

    def __init__(self, field: str, value: object, remedy: str) -> None:
        self.field, self.value, self.remedy = field, value, remedy
        super().__init__(f"{field} = {value!r}: {remedy}".replace("\n", " "))

    def __reduce__(self) -> tuple[type[Refusal], tuple[str, object, str]]:
        return Refusal, (self.field, self.value, self.remedy)


class Damaged(StudyError):
    """An object of the store that is not what was written there.

    Args:
        words: which, and what is wrong with it.
        key: the state's name, if it is one.
    """

    def __init__(self, words: str, key: str = "") -> None:
        self.key = key
        super().__init__(words)

    def __reduce__(self) -> tuple[type[Damaged], tuple[str, str]]:
        return Damaged, (str(self), self.key)


class Away(StudyError):
    """A store or a service that cannot be used now: full, unplugged or unreachable. What asked may ask again."""


def one_line(error: BaseException, named: bool = False, whole: bool = False) -> str:
    """An error in one line, without a password that a URL in it may hold.

    Args:
        error: what was raised.
        named: with its type in front, unless it is one of ours.
        whole: all of its lines, and not only the first.
    """
    kind, lines = type(error).__name__, str(error).strip().splitlines()
    text = " ".join(lines if whole else lines[:1])
    shown = " ".join(without_password(word) if "://" in word else word for word in text.split(" "))
    if named and not isinstance(error, StudyError):
        return f"{kind}: {shown}" if shown else kind
    return shown or kind
