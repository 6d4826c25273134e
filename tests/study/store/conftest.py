"""Stores to test: a directory, the same as a URL, and S3, which moto's server is on loopback."""

import secrets

import pytest
from helpers import s3_url

from study.store.states import Store


def a_place(kind, request):
    """A URL or path of that kind, at which there is nothing yet."""
    folder = request.getfixturevalue("tmp_path_factory").mktemp("place") / "store"
    if kind == "s3":
        return s3_url(request.getfixturevalue("s3"), secrets.token_hex(6))
    return f"file://{folder}" if kind == "file" else str(folder)


@pytest.fixture(params=["path", "file", "s3"])
def url(request):
    return a_place(request.param, request)


@pytest.fixture
def store(url):
    return Store(url)


@pytest.fixture(scope="module", params=["path", "file", "s3"])
def shared(request):
    """One for all examples of a test."""
    return Store(a_place(request.param, request))


@pytest.fixture
def local(tmp_path):
    return Store(str(tmp_path / "local"))
