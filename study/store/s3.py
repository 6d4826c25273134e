"""The connection to a bucket of S3, on AWS or on a server of one's own: its settings, and errors that may pass.

Settings come from the URL, else from AWS's environment variables, else from AWS's files and the machine's own role. The
S3 client itself reads these last two.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Mapping
from contextlib import suppress
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from pyarrow import fs

CONNECT_SECONDS = 2.0
METADATA_SECONDS = 1.0
AWS = "https://s3.amazonaws.com"  # knows the region of every bucket on AWS
_METADATA = "http://169.254.169.254"  # gives machines of AWS the credentials of their role
_METADATA_DISABLED = "AWS_EC2_METADATA_DISABLED"

# The variables that a driver hands to its workers. Those that name files hold for one machine only.
_VARIABLES = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_PROFILE",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
)
_PARAMETERS = ("endpoint_override", "scheme", "region")
_MAY_PASS = re.compile(
    r"NETWORK_CONNECTION|SLOW_DOWN|THROTTLING|SERVICE_UNAVAILABLE|INTERNAL_FAILURE|REQUEST_TIMEOUT|status (?:429|5\d\d)"
)
_REFUSED = re.compile(r"ACCESS_DENIED|INVALID_ACCESS_KEY|INVALID_CLIENT_TOKEN|SIGNATURE|UNRECOGNIZED_CLIENT|EXPIRED")


def connect(url: str, attempts: int = 3) -> tuple[Any, str]:
    """Return the file system of an ``s3://`` URL, and the path in it.

    Args:
        url: ``s3://[KEY:SECRET@]BUCKET/FOLDER``, which ``?endpoint_override=…&scheme=…&region=…`` may follow.
        attempts: how often a request is sent, if it gets no answer within seconds.

    Raises:
        ValueError: if the URL is malformed, or its bucket does not exist.
        OSError: if AWS does not say the bucket's region.
    """
    parts = urlsplit(url)
    user, at, bucket = parts.netloc.rpartition("@")
    if not re.fullmatch(r"[\w.-]*", bucket):
        raise ValueError("the name of its bucket cannot be read")
    parameters = dict(parse_qsl(parts.query))
    unknown = sorted(parameters.keys() - set(_PARAMETERS))
    if unknown:
        raise ValueError(f"the URL has an unknown parameter {unknown[0]!r}: {', '.join(_PARAMETERS)} are known")
    key, _, secret = user.partition(":")
    endpoint, scheme = _endpoint(parameters)
    region = parameters.get("region") or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if bucket and not region and not endpoint:
        region = _region(bucket)
    if not at and not os.environ.get("AWS_ACCESS_KEY_ID"):
        _look_for_metadata()
    client = fs.S3FileSystem(
        access_key=unquote(key) if at else None,
        secret_key=unquote(secret) if at else None,
        region=region,
        scheme=scheme,
        endpoint_override=endpoint or None,
        tls_ca_file_path=os.environ.get("AWS_CA_BUNDLE") or None,
        connect_timeout=CONNECT_SECONDS,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=attempts),
        allow_delayed_open=True,  # reads a small object with one request instead of three
    )
    return client, f"{bucket}{unquote(parts.path)}".strip("/")


def _endpoint(parameters: dict[str, str]) -> tuple[str, str]:
    """Return HOST:PORT of the server, "" for AWS itself, and the scheme."""
    variable = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
    scheme, _, endpoint = (parameters.get("endpoint_override") or variable).rpartition("://")
    return endpoint.rstrip("/"), scheme or parameters.get("scheme", "https")


def _region(bucket: str) -> str:
    """Return the region of a bucket on AWS. The S3 client itself would try for minutes.

    Raises:
        ValueError: if there is no such bucket.
        OSError: if AWS does not answer.
    """
    server = urlsplit(AWS)
    connection = (HTTPSConnection if server.scheme == "https" else HTTPConnection)(
        server.netloc, timeout=CONNECT_SECONDS
    )
    try:
        connection.request("HEAD", f"/{quote(bucket)}")
        region = connection.getresponse().getheader("x-amz-bucket-region")
    except (OSError, HTTPException) as error:
        hint = "for a server of your own, set AWS_ENDPOINT_URL; otherwise set AWS_REGION"
        raise ConnectionError(f"AWS does not say the region of the bucket ({error}): {hint}") from error
    finally:
        connection.close()
    if not region:
        raise ValueError(f"the bucket {bucket} does not exist on AWS; for a server of your own, set AWS_ENDPOINT_URL")
    return region


def _look_for_metadata() -> None:
    """Disable the look-up of a machine's role where nothing answers it. The S3 client would repeat it for minutes."""
    if os.environ.get(_METADATA_DISABLED):
        return
    server = urlsplit(os.environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT") or _METADATA)
    try:
        socket.create_connection((server.hostname or "", server.port or 80), timeout=METADATA_SECONDS).close()
    except (OSError, ValueError):
        os.environ[_METADATA_DISABLED] = "true"


def explained(text: str) -> str:
    """Return an error of the S3 client with what is wrong in front: the endpoint, the credentials or the region."""
    if "NETWORK_CONNECTION" in text:
        return f"its endpoint does not answer ({text.rpartition('Details: ')[2]})"
    if _REFUSED.search(text):
        names = "the URL, AWS_ACCESS_KEY_ID, AWS_PROFILE or ~/.aws"
        return f"its endpoint refuses the credentials, which come from {names} ({text})"
    if "HTTP status 301" in text:
        return f"its bucket is in another region, which AWS_REGION or ?region= must name ({text})"
    return text


def may_pass(error: BaseException) -> bool:
    """Return whether a request failed because S3 does not answer, or answers that it is busy."""
    return isinstance(error, OSError) and _MAY_PASS.search(str(error)) is not None


def variables() -> dict[str, str]:
    """Return the variables that a driver hands to its workers, with the secrets that are among them."""
    return {name: os.environ[name] for name in _VARIABLES if os.environ.get(name)}


def set_variables(given: Mapping[str, str]) -> None:
    """Set the variables of a driver in this process. Keys of its own machine would not go with them."""
    if "AWS_ACCESS_KEY_ID" in given:
        for name in ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
            with suppress(KeyError):
                del os.environ[name]
    os.environ.update(given)
