"""A network that is trained, its momentum and what was observed of single images: the tensors of a state."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from trainables.data.datasets import facts
from trainables.layers import BatchNorm
from trainables.network import Bilateral, Network, add_scale, build, redraw, remove_scale
from trainables.ranks import ALONE, Ranks
from trainables.recipe import Epoch, Origin, first_key
from trainables.recording import Recorder, cuda_recorder
from trainables.samplers import Purpose, generator


class Learner:
    """A network, its momentum and what was observed of single images, on a device: the tensors of a state.

    Attributes:
        key, epochs: the name of the state that it is in, and how many epochs from state 0 that is.
        network, momentum: what `steps` move, in place.
        recorder: how steps are recorded; None if they are not.
        steps: the `steps.Steps` that were made for this network, by kind of instruction.
        observed: ``predictions`` of the test images after the last evaluation, and their ``test_labels``: (M,); once
            an instruction has asked for events, ``learned`` and ``forgotten``, each training image's cumulative counts
            (eq. 17 and 18), and ``correct``, whether it was right after the last epoch: (N,).

    Args:
        origin: state 0 is drawn from it.
        ranks: which of the processes that train it this is.
        recorded: on a GPU, whether steps are recorded and replayed; see `recording`. A recording has the bits of the
            steps as they are written, so it is no part of the origin.
    """

    def __init__(self, origin: Origin, ranks: Ranks = ALONE, recorded: bool = False) -> None:
        assert ranks.size == origin.ranks
        self.origin, self.device, self.ranks = origin, torch.device(origin.device), ranks
        self.key, self.epochs = first_key(origin), 0
        _settle_arithmetic(origin)
        self.network = _drawn(origin).to(self.device).to(memory_format=torch.channels_last)
        self.momentum = {name: torch.zeros_like(p) for name, p in self.network.named_parameters()}
        self.observed: dict[str, Tensor] = {}
        self.recorder: Recorder | None = None
        self._stream: torch.cuda.Stream | None = None
        if recorded and self.device.type == "cuda" and ranks.size == 1:  # messages between ranks are not recorded
            self._stream = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
            self.recorder = cuda_recorder(self._stream)
        self.steps: dict[Epoch, Any] = {}

    def fits(self, origin: Origin) -> bool:
        """Whether another origin has the shapes and the arithmetic of this one: then `begin` takes it up."""
        return _shape(origin) == _shape(self.origin)

    def begin(self, origin: Origin) -> None:
        """Take up state 0 of an origin that fits, into the tensors that are there: what is recorded stays good."""
        assert self.fits(origin)
        self.origin = origin
        self.key, self.epochs = first_key(origin), 0
        _settle_arithmetic(origin)  # another learner of this process may have settled its own
        if origin.head.linear and self.momentum.pop("classifier.scale", None) is not None:
            remove_scale(self.network)
            self.forget_steps()
        self.network.load_state_dict(_drawn(origin).state_dict())
        for buffer in self.momentum.values():
            buffer.zero_()
        self.observed = {}

    def state(self) -> dict[str, Tensor]:
        """Weights and buffers as ``network.*``, momentum as ``momentum.*`` and ``observed.*``, on the CPU.

        There they share memory with what is trained next.
        """
        tensors = {f"network.{name}": tensor for name, tensor in self.network.state_dict().items()}
        tensors |= {f"momentum.{name}": tensor for name, tensor in self.momentum.items()}
        tensors |= {f"observed.{name}": tensor for name, tensor in self.observed.items()}
        return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}

    def load(self, tensors: dict[str, Tensor], key: str = "", epochs: int = 0) -> None:
        """Take up a state as `state` gave it, with its name and its number."""
        self.key, self.epochs = key, epochs
        if self.origin.head.linear and "network.classifier.scale" in tensors:
            self._add_scale()
        self.network.load_state_dict(_below("network.", tensors))
        for name, buffer in self.momentum.items():
            buffer.copy_(tensors[f"momentum.{name}"])
        self.observed = {name: tensor.to(self.device) for name, tensor in _below("observed.", tensors).items()}

    def _add_scale(self) -> None:
        add_scale(self.network)
        self.forget_steps()  # they are those of a network without it
        self.momentum["classifier.scale"] = torch.zeros_like(self.network.classifier.scale)  # type: ignore[arg-type]

    def forget_steps(self) -> None:
        """Let go of the steps, which hold this learner in turn, and of what they have recorded."""
        for each in self.steps.values():
            each.step.forget()
        self.steps.clear()

    def obey(self, epoch: Epoch, index: int) -> list[str]:
        """Prepare the network for an instruction; returns the names of the parameters that it trains."""
        if epoch.reinitialise == "classifier":
            rng = _torch_generator(self.origin.seed, index, Purpose.WEIGHTS)
            redraw(self.network, self.origin.backbone, self.origin.head, rng)
        if epoch.reinitialise == "scale":
            self._add_scale()
        if epoch.fresh_optimizer:
            for buffer in self.momentum.values():
                buffer.zero_()
        prefix = {"all": "", "classifier": "classifier.", "scale": "classifier.scale"}[epoch.trains]
        trained = []
        for name, parameter in self.network.named_parameters():
            parameter.requires_grad_(name.startswith(prefix))
            if parameter.requires_grad:
                trained.append(name)
        self.network.train()
        if epoch.batch_norm == "frozen":
            for part in self.network.modules():
                if isinstance(part, nn.modules.batchnorm._BatchNorm):
                    part.eval()
        return trained

    def logits(self, *inputs: Any, weights: Mapping[str, Tensor] | None = None) -> Tensor:
        """The network's output in the origin's precision: (B, channels, side, side) → (B, C).

        A network of two branches takes a batch for each and how much they count besides.

        Args:
            inputs: of the network.
            weights: by their names, in place of the network's own parameters.
        """
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.origin.precision == "bf16"):
            output = functional_call(self.network, dict(weights), inputs) if weights else self.network(*inputs)
            return output.float()  # type: ignore[no-any-return]

    @contextmanager
    def stream(self) -> Iterator[None]:
        """Run the body on the recording stream: it waits for earlier work, and later work waits for it."""
        if self._stream is None:
            yield
            return
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            yield
        torch.cuda.current_stream().wait_stream(self._stream)

    def count_batches(self, steps: int, two: bool) -> None:
        """Add an epoch's steps to the counters of the batch norms that saw them; see `layers.BatchNorm`.

        In a step of two batches, the trunk of two branches sees both.
        """
        for name, part in self.network.named_modules():
            if isinstance(part, BatchNorm) and part.training:
                assert part.num_batches_tracked is not None
                part.num_batches_tracked.add_(2 * steps if two and name.startswith("trunk.") else steps)


def _drawn(origin: Origin) -> Network | Bilateral:
    """The network of state 0, on the CPU."""
    known = facts(origin.dataset)
    rng = _torch_generator(origin.seed, 0, Purpose.WEIGHTS)
    return build(origin.backbone, origin.head, known.channels, known.classes, rng)


def _shape(origin: Origin) -> Origin:
    """An origin without what decides values only."""
    return replace(origin, seed=0, split_seed=0, subset_seed=0, imbalance=1.0)


def _settle_arithmetic(origin: Origin) -> None:
    torch.set_num_threads(origin.threads)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = origin.precision == "tf32"
    torch.backends.cudnn.deterministic = True  # one kind of GPU gives the same bits, whole or resumed


def _below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _torch_generator(seed: int, epoch: int, purpose: Purpose) -> torch.Generator:
    return torch.Generator().manual_seed(int(generator(seed, epoch, purpose).integers(2**63)))
