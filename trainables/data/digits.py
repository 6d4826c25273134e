"""The digits of scikit-learn."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import ClassVar

import numpy as np

from trainables.data.facts import Images, verified
from trainables.data.kinds import Small
from trainables.samplers import Purpose, generator

TEST = 50  # test images per class


class Digits(Small):
    """1,797 digits of 8 × 8 pixels, a stand-in for the paper's data that trains on a CPU in minutes.

    The split seed determines the test images, and which digit is the n-th largest class.
    """

    classes = 10
    largest = 124
    channels = 1
    side = 8
    scale = 16
    mean = (0.3053,)
    std = (0.3761,)
    crop = 1
    flip = False
    many = 40
    few = 10
    fingerprint = "sha256:87ff0c9e40dc7e2c0e34e7257799c2e3f3aec1a016363bb11cad869ec428a826"
    drawn = ("split", "subset")
    settings: ClassVar = {"backbone": "resnet8", "epochs": 100, "milestones": (50,)}
    short_steps = True

    def read(self, root: Path, split_seed: int) -> Images:  # noqa: ARG002
        """See `Small.read`; the images are a part of scikit-learn."""
        # load_digits() reads the same file, but importing scikit-learn takes a worker two seconds.
        package = importlib.util.find_spec("sklearn")
        assert package is not None
        assert package.origin is not None
        path = Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz"
        table = np.loadtxt(path, delimiter=",", dtype=np.uint8)
        images, targets = table[:, :-1].reshape(-1, 8, 8), table[:, -1]
        verified(self, images, targets)
        split = generator(split_seed, 0, Purpose.SPLIT)
        class_of_digit = split.permutation(10)
        labels = class_of_digit[targets]
        test, pool = [], []
        for label in range(10):
            members = split.permutation(np.flatnonzero(labels == label))
            test.append(members[:TEST])
            pool.append(members[TEST:])
        train_members, test_members = np.sort(np.concatenate(pool)), np.concatenate(test)
        images = images[:, None]
        return Images(
            images[train_members], labels[train_members], images[test_members], np.repeat(np.arange(10), TEST)
        )
