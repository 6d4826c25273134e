"""The check of a user's credentials at an MLflow server."""

from __future__ import annotations

import study.tracking.environment  # noqa: F401  # isort: skip  # before MLflow
from mlflow import MlflowClient

from study.errors import Refusal, one_line
from study.masking import without_password
from study.services import within
from study.tracking.answers import is_denied


def require_login(option: str, uri: str) -> None:
    """Check that a server takes the credentials of the URI, or of MLflow's variables. One that is away is not refused.

    Args:
        option: the name of the option.
        uri: the URI of the server.

    Raises:
        Refusal: if it does not.
    """

    def ask() -> str:
        try:
            MlflowClient(uri).search_experiments(max_results=1)
        except Exception as error:
            if not is_denied(error):
                raise
            return f"denied: {one_line(error)}"
        return ""

    (reason,) = within([ask])
    if reason.startswith("denied: "):
        words = f"{option}: {without_password(uri)!r} denies access ({reason.removeprefix('denied: ')})"
        hint = "Give MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
        raise Refusal(option, without_password(uri), words, hint)
