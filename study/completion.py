"""Shell completion: click's script of a shell, and where that shell finds it."""

from __future__ import annotations

import os
from pathlib import Path

import click
from click.shell_completion import get_completion_class

from study.errors import Refusal, one_line

_RC = {"bash": ".bashrc", "zsh": ".zshrc"}  # fish looks into its own folder
_MARK = "# completion of `study`"
_ZSH = "(( $+functions[compdef] )) || { autoload -Uz compinit && compinit }\n"


def script(command: click.Command, shell: str) -> str:
    """Return the completion script for bash, zsh or fish."""
    kind = get_completion_class(shell)
    assert kind is not None
    source = kind(command, {}, "study", "_STUDY_COMPLETE").source()
    return _ZSH + source if shell == "zsh" else source


def install(command: click.Command, shell: str, user: Path) -> list[Path]:
    """Write the script where the shell reads it, and return the files that were written.

    fish reads a folder. For bash and zsh, a line of the user's ``.bashrc`` or ``.zshrc`` reads the script; it is added
    once.

    Args:
        command: what is completed.
        shell: bash, zsh or fish.
        user: the user's home directory.

    Raises:
        Refusal: if a file cannot be written.
    """
    if user == Path("/"):  # of a user without one; see `study/__init__.py`
        words = f"the completion for {shell} cannot be installed: there is no HOME. '--print' prints the script"
        raise Refusal("HOME", os.environ.get("HOME"), words)
    try:
        if shell == "fish":
            folder = Path(os.environ.get("XDG_CONFIG_HOME") or user / ".config") / "fish" / "completions"
            return [_written(folder / "study.fish", script(command, shell))]
        folder = Path(os.environ.get("XDG_DATA_HOME") or user / ".local" / "share") / "longtail-study"
        written = [_written(folder / f"study.{shell}", script(command, shell))]
        rc, line = user / _RC[shell], f'. "{written[0]}"  {_MARK}\n'
        text = rc.read_text(encoding="utf-8") if rc.is_file() else ""
        if line not in text:
            kept = "".join(each for each in text.splitlines(keepends=True) if _MARK not in each)
            separator = "" if not kept or kept.endswith("\n") else "\n"
            written.append(_written(rc, kept + separator + line))
    except (OSError, UnicodeDecodeError) as error:
        words = f"the completion for {shell} cannot be installed: {one_line(error)}. '--print' prints the script"
        raise Refusal("shell", shell, words) from error
    return written


def _written(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path
