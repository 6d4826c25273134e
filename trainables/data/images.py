"""Data sets of image files: decoded and augmented by a DataLoader's worker processes, normalised on the device.

The batches depend only on the instruction and on `rng`, not on the number of workers: each image's augmentation is
drawn from a separate stream, whose seed is drawn from `rng` together with those of the batch.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as Items
from torchvision.transforms import v2

from study.errors import Refusal
from trainables.data.facts import Dataset
from trainables.data.lists import Listing, Paths
from trainables.ranks import ALONE, Ranks
from trainables.recipe import Epoch

EVALUATION_BATCH = 256

# Workers are forked from a server that has imported only these modules: a training process has threads and, on a GPU,
# memory that must not be forked.
_PRELOADED = ["torch.utils.data", "torchvision.transforms.v2", "PIL.Image"]


@dataclass(frozen=True)
class Request:
    """A batch that a worker has to make.

    Attributes:
        positions: the positions of its images: (B,).
        seeds: the seeds of their augmentations: (B,); None for the centre crops of evaluation.
        flip: whether images are flipped horizontally at random.
    """

    positions: NDArray[np.int64]
    seeds: NDArray[np.int64] | None = None
    flip: bool = False


class Batches(Items[Tensor | Refusal]):
    """Batches of images by request: (B, 3, side, side), uint8; or the refusal of an image that cannot be decoded.

    Training images are cropped at random in size and shape (``RandomResizedCrop``), flipped, and on ImageNet-LT and
    Places-LT varied in colour. Other images are resized to 8/7 of the side and cropped in the centre, as in Kang et al.
    (2020). Images of other modes become RGB.
    """

    def __init__(self, paths: Paths, side: int, jitter: float) -> None:
        self.paths, self.side, self.jitter = paths, side, jitter

    def __getitem__(self, request: Request) -> Tensor | Refusal:
        """Return the batch, or a refusal: the DataLoader would replace the message of an exception."""
        images = []
        transform = self._transform(request)
        for k, position in enumerate(request.positions):
            path = os.fsdecode(bytes(self.paths[position]))
            try:
                with Image.open(path) as file:
                    image = file.convert("RGB")
            except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:  # all that PIL raises
                words = f"image '{path}' cannot be decoded ({error})"
                return Refusal("image", path, words, "Replace it by a file that Pillow reads")
            with torch.random.fork_rng(devices=[]):  # torchvision draws from the process's generator
                if request.seeds is not None:
                    torch.default_generator.manual_seed(int(request.seeds[k]))
                images.append(transform(image))
        return torch.stack(images)

    def _transform(self, request: Request) -> v2.Compose:
        if request.seeds is None:
            return v2.Compose([v2.Resize(self.side * 8 // 7), v2.CenterCrop(self.side), v2.PILToTensor()])
        steps = [v2.RandomResizedCrop(self.side)]
        if request.flip:
            steps.append(v2.RandomHorizontalFlip())
        if self.jitter:
            steps.append(v2.ColorJitter(self.jitter, self.jitter, self.jitter, 0))
        return v2.Compose([*steps, v2.PILToTensor()])


class _Feed:
    """A DataLoader that keeps its workers between passes; each pass has other requests.

    Attributes:
        alive: whether all of its workers are alive.
    """

    def __init__(self, batches: Batches, workers: int, pinned: bool) -> None:
        self.alive = True
        self._requests: list[Request] = []
        context = None
        if workers:
            context = multiprocessing.get_context("forkserver")
            context.set_forkserver_preload(_PRELOADED)
        self._loader = DataLoader(
            batches,
            batch_size=None,
            sampler=self._requests,
            num_workers=workers,
            pin_memory=pinned,
            persistent_workers=workers > 0,
            multiprocessing_context=context,
            generator=torch.Generator(),  # for unused seeds, which would otherwise move the process's generator on
        )

    def answer(self, requests: list[Request]) -> Iterator[Tensor | Refusal]:
        """Yield the batches of the requests in order. The rest of an interrupted pass is dropped.

        Raises:
            OSError: if a worker has died, for example for lack of memory.
        """
        self._requests[:] = requests
        try:
            yield from self._loader
        except RuntimeError as error:  # the DataLoader raises it when a worker dies
            self.alive = False
            raise OSError(f"a process that decodes images has died: {error}") from error


class ImageFiles:
    """A data set of image files; see `facts.Data`.

    Args:
        dataset: the data set with its declared facts.
        listing: the files of the data set.
        device: the device of the batches.
        workers: the number of processes that decode; 0 decodes in this one. The batches are the same.
        ranks: the rank whose shares the batches are; only these are decoded.
    """

    def __init__(
        self, dataset: Dataset, listing: Listing, device: torch.device, workers: int, ranks: Ranks = ALONE
    ) -> None:
        self.facts: Dataset = dataset
        self.counts, self.device, self._share = listing.counts, device, ranks.share
        self.shots = dataset.split(listing.listed.tolist())
        self.in_val = torch.from_numpy(listing.in_val).to(device)
        self._labels = np.repeat(np.arange(len(listing.counts)), listing.counts)
        self._test_labels = listing.test_labels
        self._batches = Batches(np.concatenate((listing.train, listing.test)), dataset.side, dataset.jitter)
        self._workers = workers
        self._idle: list[_Feed] = []
        self._mean = torch.tensor(dataset.mean, device=device).view(-1, 1, 1) * dataset.scale
        self._std = torch.tensor(dataset.std, device=device).view(-1, 1, 1) * dataset.scale

    def batches(
        self, order: NDArray[np.int64], epoch: Epoch, rng: np.random.Generator
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """See `Data.batches`."""
        assert epoch.crop == 0
        seeds = rng.integers(1 << 63, size=len(order))
        cuts = _cuts(len(order), epoch.batch_size)
        requests = [Request(order[at][self._share], seeds[at][self._share], epoch.flip) for at in cuts]
        return self._pass(requests, self._labels[np.concatenate([each.positions for each in requests])])

    def test_batches(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """See `Data.test_batches`."""
        labels_of_rank, part = self._test_labels[self._share], self.in_val[self._share].long()
        cuts = _cuts(len(labels_of_rank), EVALUATION_BATCH)
        positions = len(self._labels) + np.arange(len(self._test_labels))[self._share]
        requests = [Request(positions[at]) for at in cuts]
        for (images, labels), at in zip(self._pass(requests, labels_of_rank), cuts, strict=True):
            yield images, labels, part[at]

    def fit_batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """See `Data.fit_batches`."""
        positions = np.arange(len(self._labels))[self._share]
        requests = [Request(positions[at]) for at in _cuts(len(positions), EVALUATION_BATCH)]
        return self._pass(requests, self._labels[positions])

    def _pass(self, requests: list[Request], labels: NDArray[np.int64]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the batches of the requests with their labels, by workers that no other pass uses.

        The labels of all batches are copied to the device at once, since each copy makes it wait.

        Raises:
            Refusal: for a file that cannot be decoded.
            OSError: if a worker has died.
        """
        feed = self._idle.pop() if self._idle else _Feed(self._batches, self._workers, self.device.type == "cuda")
        try:
            answers = feed.answer(requests)
            remaining_labels = torch.from_numpy(labels).to(self.device)
            for images in answers:
                if isinstance(images, Refusal):
                    # A new exception: through its traceback, one that this frame holds would keep the workers alive.
                    raise Refusal(
                        images.field,
                        images.value,
                        images.words,
                        f"{images.hint}. The 'study run' command with --verify-images names all such files at once",
                    )
                pixels = images.to(self.device, non_blocking=True)
                yield (pixels.float() - self._mean) / self._std, remaining_labels[: len(pixels)]
                remaining_labels = remaining_labels[len(pixels) :]
        finally:
            if feed.alive:
                self._idle.append(feed)


def _cuts(total: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, total)) for start in range(0, total, size)]
