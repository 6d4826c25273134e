"""SQLite databases are created whole, whoever else creates them at the same time."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from pathlib import Path


def create_whole(url: str, create: Callable[[str], object]) -> None:
    """Create a new SQLite database under a temporary name and move it into place. Other databases are left alone.

    Neither MLflow nor Optuna can use a database whose creation was interrupted, nor create one while another process
    does.

    Args:
        url: the URL of the database.
        create: creates the database of a URL, and closes it.
    """
    from sqlalchemy.engine import make_url

    if not url.startswith("sqlite") or "{" in url:  # Optuna fills in what stands in braces
        return
    parsed = make_url(url)
    path = Path(parsed.database or "")
    if not parsed.database or path.exists() or not path.parent.is_dir():
        return
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(6)}.tmp")
    try:
        temporary.touch()  # MLflow would try for minutes where no file can be made
        create(parsed.set(database=str(temporary)).render_as_string(hide_password=False))
        try:
            os.link(temporary, path)  # unlike a rename, it never replaces the database that another run has created
        except OSError:  # there is one, or the file system has no hard links
            if not path.exists():
                temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
