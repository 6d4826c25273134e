"""A home that was moved or copied: MLflow keeps the absolute paths of artefacts, which must be those in the home."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

SECONDS = 20.0  # how long another process that writes to the database is waited for
# The tables and columns in which MLflow keeps the places of artefacts.
_PLACES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "storage_location"),
)


def follow_home(uri: str, artifacts: Path) -> None:
    """Let the records in a home's own database name the artefacts in this home, if it was moved or copied.

    A server, and a database that the user names, keep the places that they have.

    Args:
        uri: the URI of the tracking store.
        artifacts: the home's folder of artefacts.
    """
    path = artifacts.parent / "mlflow.db"
    if uri != f"sqlite:///{path}" or not path.exists():
        return
    with closing(sqlite3.connect(path, timeout=SECONDS)) as connection, connection:
        for name, old in connection.execute("SELECT name, artifact_location FROM experiments").fetchall():
            folder = artifacts / name
            new = folder.as_uri()
            if old == new or not folder.is_dir():
                continue
            for table, column in _PLACES:
                connection.execute(
                    f"UPDATE {table} SET {column} = :new || substr({column}, length(:old) + 1)"  # noqa: S608
                    f" WHERE {column} = :old OR substr({column}, 1, length(:old) + 1) = :old || '/'",
                    {"old": old, "new": new},
                )
