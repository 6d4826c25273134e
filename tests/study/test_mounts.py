"""The file system that a folder is on, read from the mounts of several machines."""

import os

import pytest

from study import mounts
from study.home import Home
from study.mounts import file_system, network_file_system

MOUNTS = r"""
21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
22 21 0:20 / /proc rw shared:2 - proc proc rw
30 21 0:30 / /home rw,relatime shared:7 - nfs4 server:/export/home rw,vers=4.2
31 30 8:2 / /home/me/scratch rw - xfs /dev/sdb1 rw
32 21 0:31 / /my\040lab rw master:1 propagate_from:2 - cifs //server/lab rw
33 21 0:32 / /work rw - tmpfs tmpfs rw
34 21 0:33 / /work rw - lustre 10.0.0.1@tcp:/work rw
35 21 0:34 / /sshfs rw - fuse.sshfs me@host:/ rw
not a mount
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "ext4"),
        ("/etc/optuna.db", "ext4"),
        ("/homes/optuna.db", "ext4"),
        ("/home", "nfs4"),
        ("/home/me/studies/optuna.db", "nfs4"),
        ("/home/me/scratch", "xfs"),
        ("/home/me/scratch/studies/optuna.db", "xfs"),
        ("/home/me/scratch2/optuna.db", "nfs4"),
        ("/my lab/optuna.db", "cifs"),
        ("/work/optuna.db", "lustre"),
        ("/sshfs/a/b", "fuse.sshfs"),
    ],
)
def test_the_deepest_and_latest_mount_holds_a_path(path, kind):
    assert file_system(path, MOUNTS) == kind


def test_without_mounts_nothing_is_known():
    assert file_system("/home", "") == ""


NETWORK = (
    "nfs nfs4 cifs smb3 lustre gpfs beegfs fuse.sshfs fuse.glusterfs fuse.beegfs 9p ceph fuse.ceph-fuse glusterfs afs"
)
LOCAL = "ext4 xfs btrfs tmpfs overlay zfs fuse.mergerfs fuseblk fuse.fuse-overlayfs apfs f2fs"


@pytest.mark.parametrize("kind", [*NETWORK.split(), *LOCAL.split()])
def test_network_file_systems_are_known_by_their_type(kind, tmp_path, monkeypatch):
    monkeypatch.setattr(mounts, "_MOUNTS", tmp_path / "mountinfo")
    (tmp_path / "mountinfo").write_text(f"1 0 0:1 / / rw - {kind} source rw\n")
    expected = kind if kind in NETWORK.split() else ""
    assert network_file_system(str(tmp_path / "optuna.db")) == expected
    lines = Home(str(tmp_path), None).shared_databases("http://127.0.0.1:5000", "")
    problem = f"{os.path.realpath(tmp_path)}/optuna.db is on a network file system ({kind}), where SQLite may fail"
    advice = "Use PostgreSQL (--storage postgresql://USER@HOST/NAME)"
    assert lines == ([("Optuna", problem, advice)] if expected else [])
    both = Home(str(tmp_path), None).shared_databases("", "")
    assert len(both) == 2 * len(lines)
    assert Home(str(tmp_path), None).shared_databases("http://host", "postgresql://host/optuna") == []


def test_another_system_than_linux_has_no_such_list(tmp_path, monkeypatch):
    monkeypatch.setattr(mounts, "_MOUNTS", tmp_path / "nowhere")
    assert network_file_system("/") == ""
