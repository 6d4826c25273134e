"""A cluster for the tests of this folder, and what a local run reports."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
from cluster.machines import Cluster
from cluster.nodes import Unavailable, network


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The cluster; tests that need it are skipped where it cannot be made."""
    try:
        with network(tmp_path_factory.mktemp("cluster")) as made:
            yield Cluster(made)
    except Unavailable as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="session")
def local_report(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """Trains one replicate of a space on this machine without a cluster, and returns its report; each only once."""

    @cache
    def train(space: str, *options: str) -> str:
        study, home = [sys.executable, "-m", "study"], ["--home", str(tmp_path_factory.mktemp("local"))]
        run = ["run", space, "--seeds", "1", "--precision", "fp32", *options]  # the precision of clusters
        subprocess.run([*study, *run, *home], capture_output=True, check=True)
        report = ["report", Path(space).stem, "--format", "json"]
        return subprocess.run([*study, *report, *home], capture_output=True, check=True, text=True).stdout

    return train
