"""The folder of a recipe: its files are written for their user, and passwords only once."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from study.errors import Refusal, one_line

PRIVATE = ("secrets.env", ".env")  # files of passwords: mode 600, and never replaced


def write(out: str, force: bool, texts: Mapping[str, str]) -> list[Path]:
    """Write files into a folder, and return their paths. Passwords are readable by their user only.

    Args:
        out: the folder.
        force: replace files that exist, but for those of passwords.
        texts: the files' texts by name; scripts end in ``.sh``.

    Raises:
        Refusal: if one exists and may not be replaced, or cannot be written.
    """
    try:
        folder = Path(out).expanduser()
    except RuntimeError as error:  # an unknown user in ~USER
        raise Refusal("--out", out, "must be a writable folder", hint=one_line(error)) from error
    present = [name for name in texts if (folder / name).exists()]
    if present and not force:
        hint = f"--force replaces it; {' and '.join(PRIVATE)} stay as they are"
        raise Refusal("--out", str(folder / present[0]), "must hold no file of that name", hint=hint)
    paths = {folder / name: name for name in texts if name not in PRIVATE or name not in present}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in {*texts} & {*PRIVATE} & {*present}:
            (folder / name).chmod(0o600)
        for path, name in paths.items():
            if path.parent != folder:  # a volume of containers, whose user is another one, whatever the umask is
                path.parent.mkdir(exist_ok=True)
                path.parent.chmod(0o755)
            path.unlink(missing_ok=True)
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
                file.write(texts[name])
            path.chmod(0o600 if name in PRIVATE else 0o755 if path.suffix == ".sh" else 0o644)
    except OSError as error:
        raise Refusal("--out", out, "must be a writable folder", hint=one_line(error)) from error
    return list(paths)
