"""A stand-in for a CUDA graph on a CPU: notes the operators that a step calls, and calls them again.

As on a GPU, a replay knows nothing of the host: the tensors are those of the recording, and a number that the host read
or passed along is what it was then.
"""

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Tape(TorchDispatchMode):
    """Operators in the order of their calls, with the tensors that they took and gave."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        given = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, given))
        return given

    @torch.no_grad()
    def replay(self):
        for func, args, kwargs, given in self.calls:
            again = func(*args, **kwargs)
            for old, new in zip(tree_leaves(given), tree_leaves(again), strict=True):
                # A view, and what was changed in place, are in the old tensor's memory already.
                if isinstance(old, Tensor) and old.untyped_storage().data_ptr() != new.untyped_storage().data_ptr():
                    old.copy_(new)


def record(act):
    """A `recording.Recorder`."""
    tape = Tape()
    with tape:
        act()
    return tape.replay
