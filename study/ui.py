"""MLflow's own UI on a home."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import click


def serve(uri: str, artifacts: Path, host: str, port: int) -> int:
    """Run MLflow's server on a tracking store until it is stopped; returns the exit code.

    A tracking server that is already running has a UI of its own: its address is printed.
    """
    if uri.startswith(("http:", "https:")):
        click.echo(uri)
        return 0
    click.echo(f"http://{host}:{port}")
    click.echo("MLflow starts in about 15 s; Ctrl-C ends it", err=True)
    command = [sys.executable, "-m", "mlflow", "server", "--host", host, "--port", str(port), "--workers", "1"]
    command += ["--default-artifact-root", artifacts.as_uri()]
    environment = {
        **os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_BACKEND_STORE_URI": uri,  # not an argument: it may hold a password, and others see arguments
    }  # fmt: skip
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: the server must not stay behind
    process = subprocess.Popen(command, env=environment)
    try:
        return process.wait()
    except KeyboardInterrupt:
        process.terminate()
        process.wait()
        return 0
