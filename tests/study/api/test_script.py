"""Ten lines of Python: load a run, frame, plot, compare, and one image's prediction."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from click.testing import Result

SCRIPT = """
import matplotlib, study, torch
matplotlib.use("agg")
run = study.load("mine")
frame = run.frame()
print(frame.groupby("combination")["test/top1"].mean())
curves = run.curves("test/top1").groupby(["epoch", "trial"])["value"].mean().unstack()
curves.plot(ylabel="top-1 accuracy in %").figure.savefig("curves.png")
print(run.compare("IB⇒CR", "IB⇒IB"))
print("class", run.model("IB⇒CR")(torch.rand(1, 1, 8, 8)).argmax().item())
""".strip()


def test_ten_lines_read_plot_compare_and_predict(
    finished: tuple[Callable[..., Result], Path, str], tmp_path: Path
) -> None:
    assert len(SCRIPT.splitlines()) <= 10
    environment = {"PATH": "/usr/bin:/bin", "STUDY_HOME": str(finished[1] / "home"), "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", SCRIPT],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "IB⇒CR (digits-LT IF 50) − IB⇒IB (digits-LT IF 50), test/top1: " in done.stdout
    assert "class " in done.stdout
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
