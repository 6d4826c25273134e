"""What the answers of MLflow and of a proxy before it mean."""

import json
import ssl

import pytest
from mlflow.exceptions import MlflowException
from mlflow.utils.rest_utils import verify_rest_response

from study.tracking import answers


def answer(code, text="", **body):
    """Return the error that MLflow's client raises for an answer with a status code."""
    from requests import Response

    response = Response()
    response.status_code, response._content = code, (json.dumps(body) if body else text).encode()
    with pytest.raises(MlflowException) as caught:
        verify_rest_response(response, "/api/2.0/mlflow/runs/log-batch")
    return caught.value


@pytest.mark.parametrize(
    ("error", "outage", "denied"),
    [
        (answer(400, error_code="INVALID_PARAMETER_VALUE", message="no such run"), False, False),
        (answer(400, "<html>bad"), False, False),
        (answer(401, "You are not authenticated"), True, True),
        (answer(403, error_code="PERMISSION_DENIED", message="expired"), True, True),
        (answer(403, "<html>"), True, True),
        (answer(404, error_code="RESOURCE_DOES_NOT_EXIST", message="no run"), False, False),
        (answer(404, "default backend - 404"), True, False),
        (answer(409, "<html>conflict"), True, False),
        (answer(400, error_code="RESOURCE_ALREADY_EXISTS", message="it exists"), False, False),
        (answer(413, "<html>too large"), False, False),
        (answer(429, error_code="REQUEST_LIMIT_EXCEEDED", message="slow down"), True, False),
        (answer(500, "oops"), True, False),
        (answer(502, "<html>bad gateway"), True, False),
        (answer(503, error_code="TEMPORARILY_UNAVAILABLE", message="soon"), True, False),
        (answer(200, "<html>log in"), True, False),
        (answer(501, error_code="NOT_IMPLEMENTED", message="never"), False, False),
    ],
    ids=lambda value: str(value)[:60],
)
def test_the_classes_of_answers(error, outage, denied):
    """What is no outage is a record that MLflow does not take."""
    assert (answers.is_outage(error), answers.is_rejection(error), answers.is_denied(error)) == (
        outage,
        not outage,
        denied,
    )


def test_a_certificate_that_is_not_trusted_is_a_mistake_at_the_start():
    error = MlflowException("API request failed")  # as MLflow raises it, without a cause
    error.__context__ = ssl.SSLCertVerificationError("self-signed certificate")
    assert answers.is_denied(error)
    assert not answers.is_denied(MlflowException("connection refused"))


def test_a_mistake_of_ours_is_neither_an_outage_nor_a_rejection():
    assert not answers.is_outage(KeyError("ours"))
    assert not answers.is_rejection(KeyError("ours"))
