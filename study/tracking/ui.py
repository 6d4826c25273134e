"""MLflow's own UI for a home."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from http.client import INTERNAL_SERVER_ERROR, OK, HTTPConnection
from pathlib import Path

import click

from study.errors import Refusal
from study.tracking import views

JSON = {"Content-Type": "application/json"}
STDERR = 2  # the server's log goes there, because stdout holds the links


def serve(uri: str, artifacts: Path, host: str, port: int) -> int:
    """Run MLflow's server on a tracking store until it is stopped. Return the exit code.

    Print the server's address at once and, when it answers, links to the tables of the latest run. If the tracking
    store is itself a running server, only print its address, because it has a UI.

    Raises:
        Refusal: if no server can listen on this port.
    """
    if uri.startswith(("http:", "https:")):
        click.echo(uri)
        return 0
    _check_port(host, port)
    address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    click.echo(address)
    click.echo("MLflow starts in about 15 s. Press Ctrl-C to stop it", err=True)
    command = [sys.executable, "-m", "mlflow", "server", "--host", host, "--port", str(port), "--workers", "1"]
    command += ["--default-artifact-root", artifacts.as_uri()]
    environment = {
        **os.environ,
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_BACKEND_STORE_URI": uri,  # not an argument: it may hold a password, and other users see arguments
    }
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # like Ctrl-C: the server must not outlive this process
    process = subprocess.Popen(command, env=environment, stdout=STDERR)
    try:
        for name, link in _links(host, port, address, process).items():
            click.echo(f"{name}: {link}")
        return process.wait()
    except KeyboardInterrupt:
        process.terminate()
        process.wait()
        return 0


def _check_port(host: str, port: int) -> None:
    """Check that the port is free.

    MLflow would report a used port only after some seconds. Until then, the program that uses the port would answer.
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        socket.create_server((host, port), family=family).close()
    except OSError as error:
        reason = str(error.strerror).partition(" (")[0]
        if error.errno == socket.EAI_NONAME:
            raise Refusal("--host", host, "must be an address of this machine", hint=f"Reason: {reason}") from error
        raise Refusal("--port", port, f"must be free on {host}", hint=f"Reason: {reason}") from error


def _links(host: str, port: int, address: str, process: subprocess.Popen[bytes]) -> Mapping[str, str]:
    """Return links to the views of the latest run as soon as the server answers; none if it ends before that."""
    query = {"max_results": 1, "order_by": ["creation_time DESC"], "filter": "tags.`study.run` LIKE '%'"}
    while process.poll() is None:
        connection = HTTPConnection(host, port, timeout=20)
        try:
            connection.request("POST", "/api/2.0/mlflow/experiments/search", json.dumps(query), JSON)
            answer = connection.getresponse()
            if answer.status < INTERNAL_SERVER_ERROR:
                experiments = json.load(answer).get("experiments", ()) if answer.status == OK else ()
                return views.links(address, experiments[0]) if experiments else {}
        except OSError:  # the server does not listen yet
            pass
        finally:
            connection.close()
        time.sleep(0.5)
    return {}
