"""What the command line prints as one line: a user's mistake, and damage to what was stored."""

from __future__ import annotations


class Refusal(ValueError):
    """A value that was refused where it entered; the command line prints it as one line and exits with 2.

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


class Damaged(OSError):
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
