import socket

import pytest

from study.refusal import Refusal
from study.services import reachable, require, without_password


@pytest.fixture
def listening():
    """The address of a server that is there."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def refusing():
    """An address at which nobody listens: bound, so that nobody will."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{bound.getsockname()[1]}"


@pytest.mark.parametrize("url", ["http://{}", "http://{}/path", "postgresql+psycopg2://me:secret@{}/optuna"])
def test_a_server_that_listens_is_there(listening, url):
    assert reachable(url.format(listening)) == ""
    require("--storage", url.format(listening))


@pytest.mark.parametrize(
    "url", ["http://{}", "mysql+pymysql://me:secret@{}/optuna", "postgresql://me:secret@{}/optuna"]
)
def test_a_server_that_does_not_listen_is_refused_in_one_line_without_its_password(refusing, url):
    assert "refused" in reachable(url.format(refusing)).lower()
    with pytest.raises(Refusal) as refused:
        require("--tracking", url.format(refusing))
    message = str(refused.value)
    assert refused.value.field == "--tracking"
    assert refusing in message
    assert "secret" not in message
    assert "\n" not in message


@pytest.mark.parametrize("url", ["http://127.0.0.1:http", "http://127.0.0.1:70000"])
def test_a_port_that_is_none_is_refused(url):
    assert "port" in reachable(url).lower()


@pytest.mark.parametrize(
    "url", ["", "optuna.db", "sqlite:///optuna.db", "sqlite:////folder/optuna.db", "/folder/mlruns", "file:///mlruns"]
)
def test_a_file_names_no_server(url):
    assert reachable(url) == ""
    assert without_password(url) == url


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://me:secret@db:5432/optuna?x=1", "postgresql://me:***@db:5432/optuna?x=1"),
        ("postgresql+psycopg2://me:se@cret@db/optuna", "postgresql+psycopg2://me:***@db/optuna"),
        ("http://:secret@host", "http://:***@host"),
        ("https://me@host/path", "https://me@host/path"),
        ("https://host", "https://host"),
    ],
)
def test_a_password_is_not_shown(url, shown):
    assert without_password(url) == shown
