"""The process of the command line: its signals, errors in one line, and the exit code."""

from __future__ import annotations

import difflib
import os
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

import click

from study import scratch, streams
from study.errors import Away, StudyError, note, one_line

INTERRUPTED = 130  # the exit code


def run(command: Callable[[], int | None]) -> NoReturn:
    """Run a command of click, and end this process with its exit code. An error is one line.

    Args:
        command: returns an exit code or raises. Not standalone: click then leaves errors to the caller.
    """
    streams.prepare()
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:  # 'nohup study …' ignores SIGHUP, and so it stays
            signal.signal(number, _interrupt)
    code = 0
    try:
        _require_folder()
        code = command() or 0
    except (OSError, Away) as error:  # a disk that is full or a store that does not answer: no fault of the program
        note(error)
        click.echo(f"error: {_with_notes(one_line(error), error)}", err=True)
        code = 1
    except StudyError as error:
        note(error)
        click.echo(f"error: {error}", err=True)
        code = 2
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        code = error.exit_code
    except click.ClickException as error:
        path = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else "study"
        message = " ".join(error.format_message().split()).rstrip(".")
        if isinstance(error, click.NoSuchOption):
            close = difflib.get_close_matches(error.option_name, error.possibilities or (), 1)
            message = f"unknown option {error.option_name!r}" + (f". Did you mean {close[0]!r}?" if close else "")
        end = "" if message.endswith("?") else "."
        click.echo(f"error: {message[:1].lower()}{message[1:]}{end} '{path} --help' shows the usage", err=True)
        code = error.exit_code
    except (KeyboardInterrupt, click.Abort) as error:
        noted = error.__cause__ or error  # click raises Abort from KeyboardInterrupt
        otherwise = "Nothing was stored" if sys.argv[1:2] == ["run"] else ""
        click.echo(_with_notes("stopped at once", noted, otherwise), err=True)
        code = INTERRUPTED
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0
    scratch.end()
    reason = streams.error_of_stdout()
    if reason:
        click.echo(f"error: stdout cannot be written: {reason}", err=True)
        code = code or 1
    os._exit(code)  # all files are closed, and torch, Ray and MLflow would take 3 s to delete their objects


def _require_folder() -> None:
    """Check that the current folder exists: Python, Ray and MLflow make paths absolute with it."""
    try:
        os.getcwd()
    except FileNotFoundError as error:
        raise StudyError("the current folder no longer exists. Change to another folder") from error


def _interrupt(number: int, _frame: FrameType | None) -> None:
    """End as at Ctrl-C. A terminal that closes sends several SIGHUP: the others must not disturb the end."""
    if number == signal.SIGHUP:
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def _with_notes(message: str, error: BaseException, otherwise: str = "") -> str:
    """Return a message and what `launch` has noted about going on."""
    notes = getattr(error, "__notes__", None) or filter(None, [otherwise])
    return ". ".join((message, *notes))
