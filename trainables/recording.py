"""A step that a GPU records once and then replays: one launch for its hundreds of kernels.

What a replay does is what was recorded, on the tensors that were recorded: a step may be recorded if all that differs
between two of its calls lies in tensors that stay where they are, and if it does nothing on the host.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable

import torch

WARM = 3  # runs of a kind before its recording: cuDNN, cuBLAS and the allocator make what they keep

Recorder = Callable[[Callable[[], None]], Callable[[], None]]  # runs a step once, and returns what runs it again


class Replayed:
    """A step of any batch size: called as it is written three times, then recorded, then replayed.

    If it cannot be recorded, it is called as it is written from then on, and a line in the log says why.

    Args:
        act: the step; it takes the number of images.
        record: how; None calls the step as it is written.
    """

    def __init__(self, act: Callable[[int], None], record: Recorder | None) -> None:
        self._act, self._record = act, record
        self._calls: Counter[int] = Counter()
        self._replays: dict[int, Callable[[], None]] = {}

    @property
    def recorded(self) -> int:
        """How many recordings there are: one a batch size."""
        return len(self._replays)

    def forget(self) -> None:
        """Let go of the recordings, and of their memory on the GPU."""
        self._replays.clear()

    def __call__(self, size: int) -> None:
        """One step upon a batch of so many images."""
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
                    torch.cuda.synchronize()  # raises if it is the GPU that is lost
                logging.getLogger(__name__).warning(
                    "steps are not recorded but launched one by one: %s", str(error).partition("\n")[0]
                )
                self._record = None
                self._act(size)  # what is recorded is not run: this step is still to be made


def cuda_recorder(stream: torch.cuda.Stream) -> Recorder:
    """Records as CUDA graphs upon a stream."""

    def record(act: Callable[[], None]) -> Callable[[], None]:
        graph = torch.cuda.CUDAGraph()
        # Other threads, such as one that decodes images, may go on with what a recording could not hold.
        with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
            act()
        replay: Callable[[], None] = graph.replay
        replay()
        return replay

    return record
