"""The decoding of image files only to see whether it works, here or in other processes. Pure: no torch.

Processes are faster than threads: Python's lock makes threads slower than one of them where headers are decoded. They
are started by the path of this file, since `multiprocessing` would execute an unguarded script of the user again.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence

from study.machine import cpus

BEGINNING = 1 << 16  # bytes of a file that its digest covers: most small images as a whole
SHARE = 2000  # files from which on another process pays; its start takes as long as some thousand headers

Result = tuple[int, str]  # the digest of a file's beginning, and the reason why it cannot be decoded or ""


def examine(paths: Sequence[bytes], pixels: bool) -> list[Result]:
    """Decode files, in several processes if there are many, and return a result for each.

    Args:
        paths: the files.
        pixels: decode all pixels, as training does; else only the headers.

    Raises:
        ChildProcessError: if a process has died, for example for lack of memory.
    """
    number = min(cpus(), len(paths) // SHARE)
    if number < 2:
        return [_decode(path, pixels) for path in paths]
    command = [sys.executable, "-P", "-W", "ignore", __file__, str(int(pixels)), str(os.getpid())]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    processes: list[subprocess.Popen[bytes]] = []
    results: list[list[Result]] = []
    try:
        for first in range(number):
            process = subprocess.Popen(command, env=environment, **pipes)  # type: ignore[call-overload]
            processes.append(process)
            with process.stdin as to:
                to.write(b"\0".join(paths[first::number]))
        for process in processes:
            assert process.stdout is not None
            answer = process.stdout.read()
            if process.wait() or not answer:
                raise ChildProcessError(f"a process that decodes images has died (exit code {process.returncode})")
            results.append([(digest, reason) for digest, reason in json.loads(answer)])
    finally:
        for process in processes:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()
    return [results[position % number][position // number] for position in range(len(paths))]


def _decode(path: bytes, pixels: bool) -> Result:
    from PIL import Image, UnidentifiedImageError

    digest = 0
    try:
        with open(path, "rb") as file:
            digest = int.from_bytes(hashlib.blake2b(file.read(BEGINNING), digest_size=8).digest(), "big", signed=True)
            file.seek(0)
            with Image.open(file) as image:
                if pixels:
                    image.convert("RGB")
    except UnidentifiedImageError:
        return digest, "not an image that Pillow reads"
    except OSError as error:
        return digest, (error.strerror or str(error)).lower()
    except Exception as error:  # noqa: BLE001  Pillow may raise anything for a broken file
        return digest, " ".join(f"{type(error).__name__}: {error}".split())
    return digest, ""


def _main(pixels: str, parent: str) -> None:
    """Answer the process that started this one, unless it has ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all processes; the parent ends this one
    results = []
    for path in sys.stdin.buffer.read().split(b"\0"):
        if os.getppid() != int(parent):
            return
        results.append(_decode(path, pixels == "1"))
    json.dump(results, sys.stdout)


if __name__ == "__main__":
    _main(*sys.argv[1:])
