"""CIFAR through torchvision's classes, which check the files. The public long-tailed subsets are LDAM's and BBN's."""

from __future__ import annotations

import io
from abc import abstractmethod
from contextlib import redirect_stdout
from http.client import HTTPException
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from study.errors import Refusal
from trainables.data.facts import Images
from trainables.data.kinds import Small


class Official(Small):
    """CIFAR-10 or CIFAR-100. The fingerprint is the MD5 sum of the official archive; torchvision checks each file.

    Attributes:
        folder: the folder in the archive.
    """

    channels = 3
    side = 32
    mean = (0.4914, 0.4822, 0.4465)
    std = (0.2023, 0.1994, 0.2010)
    folder: str

    @staticmethod
    @abstractmethod
    def torchvision() -> Any:
        """Return torchvision's class."""

    def read(self, root: Path, split_seed: int) -> Images:  # noqa: ARG002
        """See `Small.read`; the split is the official one."""
        return Images(*self._half(root, train=True), *self._half(root, train=False))

    def prepare(self, root: Path, download: bool) -> None:
        """See `Dataset.prepare`."""
        self._half(root, train=True, download=download)

    def _half(self, root: Path, train: bool, download: bool = False) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        kind = self.torchvision()
        name = kind.__name__.lower()
        hint = (
            "Download it with --download. Without a network, unpack the official archive there "
            f"(its folder is {self.folder}), or name another folder with --data-dir"
        )
        try:
            with redirect_stdout(io.StringIO()):
                data = kind(root=str(root), train=train, download=download)
        except (OSError, HTTPException) as error:  # URLError, a connection reset, a folder that cannot be written
            verb = "downloaded" if download else "read"
            raise Refusal(name, str(root), f"{name} in '{root}' cannot be {verb} ({error})", hint) from error
        except RuntimeError as error:  # torchvision raises it for files that are missing or damaged
            raise Refusal(name, str(root), f"{name} is missing or damaged in '{root}'", hint) from error
        return data.data.transpose(0, 3, 1, 2), np.asarray(data.targets)
