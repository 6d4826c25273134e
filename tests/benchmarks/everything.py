"""Every table and figure on digits-LT from a clean home: how long it takes, and the report.

    python tests/benchmarks/everything.py --out tests/benchmarks/results/everything.json \
        --report search_spaces/results/all-digits.md

Runs ``study run all --seeds 1`` (ten runs where a table needs them) as a user would, in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from measuring import environment

COMMAND = ["run", "all", "--seeds", "1"]


def main() -> None:
    """Run it once, write what it took and what it reports."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--report", type=Path, required=True)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:

        def study(*words: str) -> str:
            command = [sys.executable, "-m", "study", *words, "--home", folder]
            return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout

        began = time.perf_counter()
        study(*COMMAND)
        seconds = time.perf_counter() - began
        (status,) = json.loads(study("status", "--json"))
        report = study("report", status["run"], "--format", "markdown")
    found = {
        "what": "study " + " ".join(COMMAND),
        "n": 1,
        "wall_seconds": round(seconds, 1),
        **{name: status[name] for name in ("outcome", "complete", "epochs_needed", "epochs_trained")},
        "command": "python tests/benchmarks/everything.py --out RESULT --report REPORT",
        **environment(),
    }
    options.out.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    made = f"By `{found['what']}` on {found['hardware']}, commit {found['commit']}, {found['date']}.\n\n"
    options.report.write_text(made + report, encoding="utf-8")
    print(json.dumps(found, indent=2, ensure_ascii=False))


if __name__ == "__main__":
    main()
