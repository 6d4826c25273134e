"""A step that a GPU records once and then replays: one launch for its hundreds of kernels.

A replay runs the recorded kernels on the recorded tensors. A step may be recorded if its calls differ only in the
content of tensors whose addresses stay the same, and if it does nothing on the host.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable

import torch

WARM = 3  # runs before a recording, in which cuDNN, cuBLAS and the allocator make their workspaces

Recorder = Callable[[Callable[[], None]], Callable[[], None]]  # runs a step once and returns its replay


class Replayed:
    """A step of any batch size: called directly three times, then recorded, then replayed.

    If the recording fails, the step is called directly from then on, and a warning in the log gives the reason.

    Args:
        act: the step, a function of the number of images.
        record: the recorder; None always calls the step directly.
    """

    def __init__(self, act: Callable[[int], None], record: Recorder | None) -> None:
        self._act, self._record = act, record
        self._calls: Counter[int] = Counter()
        self._replays: dict[int, Callable[[], None]] = {}

    @property
    def recorded(self) -> int:
        """The number of recordings, one per batch size."""
        return len(self._replays)

    def forget(self) -> None:
        """Release the recordings and their memory on the GPU."""
        self._replays.clear()

    def __call__(self, size: int) -> None:
        """Run one step on a batch of `size` images."""
        if size in self._replays:
            self._replays[size]()
        elif self._record is None or self._calls[size] < WARM:
            self._calls[size] += 1
            self._act(size)
        else:
            try:
                self._replays[size] = self._record(lambda: self._act(size))
            except RuntimeError as error:
                if torch.cuda.is_available():
                    torch.cuda.synchronize()  # raises if the GPU is lost
                logging.getLogger(__name__).warning(
                    "steps cannot be recorded and are launched one by one: %s", str(error).partition("\n")[0]
                )
                self._record = None
                self._act(size)  # a recording does not run the step, so it is still to be run


def cuda_recorder(stream: torch.cuda.Stream) -> Recorder:
    """Return a recorder that makes CUDA graphs on a stream."""

    def record(act: Callable[[], None]) -> Callable[[], None]:
        graph = torch.cuda.CUDAGraph()
        # Other threads, such as one that decodes images, may go on with calls that a recording cannot hold.
        with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
            act()
        replay: Callable[[], None] = graph.replay
        replay()
        return replay

    return record
