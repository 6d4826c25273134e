"""`study ui` before MLflow starts. `test_browser` tests what it shows."""

import socket
from pathlib import Path

import pytest

from study.errors import Refusal
from study.tracking import ui


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_port_in_use_is_refused_at_once(host):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        taken = socket.create_server((host, 0), family=family)
    except OSError:
        pytest.skip(f"{host} is no address of this machine")
    with taken, pytest.raises(Refusal, match=r"--port must be free on .* \(got \d+\)\. Reason: .*in use"):
        ui.serve("sqlite:///never.db", Path("never"), host, taken.getsockname()[1])


def test_an_address_of_another_machine_is_refused():
    with pytest.raises(Refusal, match=r"192\.0\.2\.1"):
        ui.serve("sqlite:///never.db", Path("never"), "192.0.2.1", 5000)


def test_a_name_of_no_machine_is_refused():
    with pytest.raises(Refusal, match=r"--host must be an address of this machine \(got 'no\.such\.host\.invalid'\)"):
        ui.serve("sqlite:///never.db", Path("never"), "no.such.host.invalid", 5000)


def test_a_server_that_runs_already_is_named(capsys):
    assert ui.serve("http://example.org:5000", Path("never"), "127.0.0.1", 5000) == 0
    assert capsys.readouterr().out == "http://example.org:5000\n"
