"""Temporary folders of killed processes."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import psutil

from study import scratch

KILLED = """
import os, signal
from study import scratch
with scratch.folder() as folder:
    (folder / "model").write_text("half")
    print(folder, flush=True)
    if {killed}:
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_has_left_is_removed(tmp_path):
    for killed in (False, True):
        command = [sys.executable, "-c", KILLED.format(killed=killed)]
        environment = os.environ | {"TMPDIR": str(tmp_path)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert (Path(done.stdout.strip()) / "model").exists() == killed, done.stderr
    scratch.remove_of_dead_processes(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_only_folders_of_dead_processes_of_ours_are_removed(tmp_path):
    here = psutil.Process()
    notes = {
        "study-dead": f"{here.pid} {here.create_time() - 60} {platform.node()}",
        "study-living": f"{here.pid} {here.create_time()} {platform.node()}",
        "study-elsewhere": f"{here.pid} 1.0 other-{platform.node()}",
        "study-torn": "",
        "other-dead": f"{here.pid} 1.0 {platform.node()}",
        "study-used": f"{here.pid} 1.0 {platform.node()}",
    }
    for name, text in notes.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / scratch.OWNER_FILE).write_text(text)
    (tmp_path / "study-foreign").mkdir()
    raylet = subprocess.Popen(["sh", "-c", "sleep 60; :", "raylet", str(tmp_path / "study-used" / "sockets")])
    try:
        scratch.remove_of_dead_processes(tmp_path)
    finally:
        raylet.kill()
        raylet.wait()
    assert sorted(os.listdir(tmp_path)) == sorted([*notes.keys() - {"study-dead"}, "study-foreign"])
