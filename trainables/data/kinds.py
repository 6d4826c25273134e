"""The kinds of data sets: small ones on the device, image files, and image files in public lists. Pure: no torch."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from trainables.data import lists as public_lists
from trainables.data.facts import Data, Dataset, Images, Lists, Wanted, decoders
from trainables.data.lists import Listing


class Small(Dataset):
    """A balanced data set that is made long-tailed and is held on the device as a whole."""

    drawn: tuple[str, ...] = ("subset",)

    @abstractmethod
    def read(self, root: Path, split_seed: int) -> Images:
        """Return the images. Their labels are ranks: 0 is the class that becomes the largest.

        Args:
            root: the data folder.
            split_seed: the seed of the test images, if `drawn` has ``split``.
        """

    def prepare(self, root: Path, download: bool) -> None:
        """Do nothing by default."""

    def load(self, wanted: Wanted) -> Data:
        """See `Dataset.load`."""
        from trainables.data.resident import long_tailed

        return long_tailed(self, self.read(wanted.root, wanted.split_seed), wanted)


class Files(Dataset):
    """A data set of image files with ImageNet's size and statistics, and the thresholds of Liu et al. (2019).

    Attributes:
        train_counts: n_j, largest first: (C,); () where they are known only from lists.
    """

    channels = 3
    side = 224
    mean = (0.485, 0.456, 0.406)
    std = (0.229, 0.224, 0.225)
    crop = 0
    train_counts: tuple[int, ...] = ()
    settings: ClassVar[Mapping[str, Any]] = {
        "backbone": "resnet50",
        "epochs": 90,
        "milestones": (60, 80),
        "warmup": 0,
        "lr": 0.2,
        "batch_size": 256,
        "weight_decay": 5e-4,
    }

    @abstractmethod
    def listing(self, root: Path) -> Listing:
        """Return the files of the data set."""

    def load(self, wanted: Wanted) -> Data:
        """See `Dataset.load`."""
        import torch

        from trainables.data.images import ImageFiles

        listing = self.listing(wanted.root)
        return ImageFiles(self, listing, torch.device(wanted.device), wanted.workers, wanted.ranks)

    def counts(self, imbalance: float) -> tuple[int, ...]:
        """See `Dataset.counts`."""
        return self.train_counts or super().counts(imbalance)

    def described(self) -> str:
        """See `Dataset.described`."""
        return f"{super().described()} {self.train_counts}"


class Listed(Files):
    """A data set of image files in public lists; `lists` declares the number of their lines."""

    lists: Lists
    selection = "list"

    @property
    def fingerprint(self) -> str:  # type: ignore[override]
        """The lengths of the lists, and the versions of the decoding libraries."""
        return f"lists:{self.lists.train}/{self.lists.val}/{self.lists.test} of {self.classes}; {decoders()}"

    def listing(self, root: Path) -> Listing:
        """See `Files.listing`."""
        return public_lists.read(self, root)

    def prepare(self, root: Path, download: bool) -> None:  # noqa: ARG002
        """See `Dataset.prepare`; checks the lists and that every file in them exists."""
        public_lists.check(self, root)
