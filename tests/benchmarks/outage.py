"""MLflow's server is killed in the middle of a run and is back a minute later: nothing is lost, nothing doubled.

    python tests/benchmarks/outage.py --out tests/benchmarks/results/outage.json

Says whether the report, every MLflow metric and every Optuna trial equal those of the same run undisturbed.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import suppress
from pathlib import Path

import kills
from measuring import environment


def serve(home: Path, port: int) -> subprocess.Popen[bytes]:
    """A real MLflow server on loopback that answers."""
    words = ["--backend-store-uri", f"sqlite:///{home / 'mlflow.db'}", "--artifacts-destination", str(home / "served")]
    words += ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    process = subprocess.Popen(
        [sys.executable, "-m", "mlflow", "server", *words],
        env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        with suppress(OSError):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
            return process
        time.sleep(0.2)
    raise SystemExit("the MLflow server did not start")


def main() -> None:
    """One run undisturbed, one with the outage; print and write the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--epochs", type=int, default=600, help="of each of eight trainings, half of them shared")
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        space, home = kills.write_space(Path(folder), asked.epochs), Path(folder, "disturbed")
        expected = kills.undisturbed(space, Path(folder, "undisturbed"))
        home.mkdir()
        server = serve(home, port)
        try:
            url = f"http://127.0.0.1:{port}"
            words = ["run", space, "--seeds", str(kills.SEEDS), "--name", kills.RUN, "--tracking-uri", url]
            process = kills.study(*words, home=home)
            while kills.epochs_trained(home) < asked.epochs and process.poll() is None:
                time.sleep(0.1)
            at = kills.epochs_trained(home)
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()
            time.sleep(asked.seconds)
            during, ended = kills.epochs_trained(home) - at, process.poll() is not None
            server = serve(home, port)
            output, _ = process.communicate(timeout=600)
            if process.returncode:
                raise SystemExit(output)
        finally:
            os.killpg(server.pid, signal.SIGKILL)
        found = kills.everything(home)
        metrics = sum(
            len(values) for each in found["mlflow"].values() if isinstance(each, dict) for values in each.values()
        )
        lost, doubled = kills.difference(expected, found)
        said = [line for line in output.splitlines() if "MLflow is" in line]
    result = {
        "command": " ".join(["python", *sys.argv]),
        "seconds_away": asked.seconds,
        "epochs_before": at,
        "epochs_trained_meanwhile": during,
        "ended_meanwhile": ended,
        "said": said,
        "metrics_compared": metrics,
        "equal": found == expected,
        "lost": lost,
        "doubled": doubled,
        **environment(),
    }
    print(json.dumps(result, indent=1, ensure_ascii=False))
    if asked.out:
        asked.out.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    sys.exit(found != expected)


if __name__ == "__main__":
    main()
