"""What goes wrong: in one line, without secrets, and as it was after a process has sent it."""

import pickle
import shlex

import pytest

from study.errors import Away, Damaged, Refusal, StudyError, as_argument, one_line


@pytest.mark.parametrize(
    ("error", "how", "line"),
    [
        (ValueError("first\nsecond"), {}, "first"),
        (ValueError("first\nsecond"), {"whole": True}, "first second"),
        (ValueError("first\nsecond"), {"named": True}, "ValueError: first"),
        (ValueError("  \n "), {}, "ValueError"),
        (ValueError(), {"named": True}, "ValueError"),
        (OSError("cannot open s3://me:hunter2@host/x now"), {}, "cannot open s3://me:***@host/x now"),
        (Away("no space left"), {"named": True}, "no space left"),
        (Refusal("--seeds", 0, "must be 1"), {"named": True}, "--seeds must be 1 (got 0)"),
        (Refusal("--seeds", 0, "must be 1", hint="Take 1"), {}, "--seeds must be 1 (got 0). Take 1"),
        (Refusal("run", "x", "run 'x' is not\nthere", "See\n1"), {}, "run 'x' is not there. See 1"),
    ],
)
def test_an_error_is_one_line(error: Exception, how: dict[str, bool], line: str) -> None:
    assert one_line(error, **how) == line


@pytest.mark.parametrize(
    "error", [Refusal("--seeds", (1, 2), "must be\none", "Take\none"), Damaged("bad", "ab12"), Away("full")]
)
def test_what_is_ours_crosses_processes_whole(error: StudyError) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))
    assert not isinstance(error, OSError | ValueError), "so nobody takes it for something else"
    assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("text", "argument"),
    [
        ("/home/me", "/home/me"),
        ("s3://bucket/a?scheme=http&region=us", '"s3://bucket/a?scheme=http&region=us"'),
        ("it's mine", '"it\'s mine"'),
        ('a "b" $c', "'a \"b\" $c'"),
    ],
)
def test_an_argument_of_a_suggested_command_needs_no_single_quotes(text: str, argument: str) -> None:
    assert as_argument(text) == argument
    assert shlex.split(argument) == [text]
