"""The classes of MLflow's answers: which may be others later, which deny access, and which will never be others."""

from __future__ import annotations

import json
import ssl

import study.tracking.environment  # noqa: F401  # isort: skip  # before MLflow
from mlflow.exceptions import MlflowException

# Error codes of answers that may be others later. INTERNAL_ERROR is also the code of lost connections, of answers that
# are not JSON, and of every HTTP status that MLflow does not know; ENDPOINT_NOT_FOUND is a 404 of a proxy.
_AWAY = {
    "INTERNAL_ERROR",
    "TEMPORARILY_UNAVAILABLE",
    "REQUEST_LIMIT_EXCEEDED",
    "DEADLINE_EXCEEDED",
    "RESOURCE_EXHAUSTED",
    "RESOURCE_CONFLICT",
    "ABORTED",
    "ALREADY_EXISTS",  # a 409 of a proxy
    "CANCELLED",
    "ENDPOINT_NOT_FOUND",
}
_DENIED = {"PERMISSION_DENIED", "UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED"}
# The packages of the clients of databases and artifact stores that MLflow uses.
_CLIENTS = {"requests", "urllib3", "sqlalchemy", "sqlite3", "botocore", "boto3", "google", "azure", "databricks"}


def is_outage(error: BaseException) -> bool:
    """Return whether an MLflow call failed for a reason that may be gone later.

    The server, its proxy, its database or its artifact store is unavailable, answers with a page instead of JSON, or
    denies access: MLflow reads tokens and passwords anew for each call.
    """
    if isinstance(error, MlflowException):
        return error.error_code in _AWAY | _DENIED and not is_too_large(error)
    return type(error).__module__.partition(".")[0] in _CLIENTS or isinstance(error, json.JSONDecodeError)


def is_denied(error: BaseException) -> bool:
    """Return whether MLflow denies access, or its certificate is not trusted: a mistake, if it happens at the start."""
    if isinstance(error, MlflowException) and error.error_code in _DENIED:
        return True
    chain: BaseException | None = error
    while chain is not None:
        if isinstance(chain, ssl.SSLError) or "CERTIFICATE_VERIFY_FAILED" in str(chain):
            return True
        chain = chain.__cause__ or chain.__context__
    return False


def is_rejection(error: BaseException) -> bool:
    """Return whether MLflow will not take what was sent, however often it is sent."""
    return isinstance(error, MlflowException) and not is_outage(error)


def is_too_large(error: MlflowException) -> bool:
    """Return whether a proxy takes only smaller requests."""
    return "error code 413" in str(error)
