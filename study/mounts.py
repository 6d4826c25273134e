"""The kinds of file systems that folders are on."""

from __future__ import annotations

import os
import re
from pathlib import Path

_MOUNTS = Path("/proc/self/mountinfo")  # of Linux
_NETWORK = re.compile(
    r"nfs\d?|cifs|smb\d?|smbfs|afs|ceph|lustre|gpfs|beegfs\w*|glusterfs|orangefs|pvfs2|ocfs2|gfs2?|9p|virtiofs|davfs"
    r"|fuse\.(?!(?:portal|snapfuse|gvfsd-fuse|lxcfs|ntfs|exfat|fuse-overlayfs|mergerfs)\b).+"
)


def network_file_system(path: str) -> str:
    """Return the type of the network file system that holds a path, such as ``nfs4``; "" if it is on none."""
    try:
        kind = file_system(os.path.realpath(path), _MOUNTS.read_text(encoding="utf-8", errors="surrogateescape"))
    except OSError:  # another system than Linux
        return ""
    return kind if _NETWORK.fullmatch(kind) else ""


def file_system(path: str, mountinfo: str) -> str:
    """Return the type of the file system that holds an absolute path; "" if it is not known.

    Args:
        path: the path; it need not exist.
        mountinfo: the mounts, as in ``/proc/self/mountinfo`` (proc_pid_mountinfo(5)).
    """
    best, kind = "", ""
    for line in mountinfo.splitlines():
        head, dash, tail = line.partition(" - ")
        if not dash:
            continue
        point = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), head.split(" ")[4])
        holds = point == "/" or path == point or path.startswith(f"{point}/")
        if holds and len(point) >= len(best):  # of two mounts at one point, the later one is seen
            best, kind = point, tail.split(" ")[0]
    return kind
