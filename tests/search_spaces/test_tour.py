"""The notebook `search_spaces/tour.ipynb` runs from the first cell to the last, as it is committed.

python tests/search_spaces/test_tour.py      # executes it, and writes its outputs into the file
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

TOUR = Path(__file__).parents[2] / "search_spaces" / "tour.ipynb"
KERNEL = {"MLFLOW_TRACKING_URI", "STUDY_HOME", "STUDY_DATA"}  # what the kernel must not have from here


def executed(folder: Path) -> Any:
    """The notebook after its execution in a folder; raises what a cell raises."""
    notebook = nbformat.read(TOUR, as_version=4)
    resources = {"metadata": {"path": str(folder)}}
    environment = {name: value for name, value in os.environ.items() if name not in KERNEL}
    client = NotebookClient(notebook, timeout=500, kernel_name="python3", resources=resources, record_timing=False)
    client.execute(env=environment)
    return notebook


def outputs(notebook: Any) -> list[str]:
    """The text of each code cell's outputs."""
    return [
        "".join(output.get("text", "") or output.get("data", {}).get("text/plain", "") for output in cell.outputs)
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]


@pytest.mark.slow
def test_the_tour_runs_and_says_what_is_committed(tmp_path: Path) -> None:
    notebook = executed(tmp_path)
    now, committed = outputs(notebook), outputs(nbformat.read(TOUR, as_version=4))
    assert len(now) == len(committed) >= 12
    for new, old in zip(now, committed, strict=True):
        assert shape(new) == shape(old)
    assert any("594 after sharing prefixes, 594 to train" in text for text in now)
    assert any(re.search(r"594/594 epochs, 18/18 replicates, best so far", text) for text in now), (
        "the line that rewrites itself"
    )
    assert any("unknown space 'tabel9'. Did you mean 'table9'?" in text for text in now)
    shown = [
        output["data"]
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if "data" in output
    ]
    assert any("<section>" in data.get("text/html", "") for data in shown), "a run shows its report"
    assert any("image/png" in data for data in shown)


def shape(text: str) -> str:
    """An output without its numbers, which depend on the kind of CPU, and without the names that they decide."""
    text = re.sub(r"best so far .*?\)\)", "best so far", text)
    return re.sub(r"\s+", " ", re.sub(r"[-+]?\d+(\.\d+)?", "N", text))


def test_the_committed_outputs_are_whole_and_name_no_place() -> None:
    notebook = nbformat.read(TOUR, as_version=4)
    text = TOUR.read_text(encoding="utf-8")
    assert not re.search(r"""(?:["' (]|\\n)/\w+/\w+""", text), "a path of one machine"
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert cell.execution_count
            assert not [output for output in cell.outputs if output.output_type == "error"]
    assert len(text) < 400_000


if __name__ == "__main__":
    with TemporaryDirectory() as place:
        nbformat.write(executed(Path(place)), sys.argv[1] if len(sys.argv) > 1 else TOUR)
