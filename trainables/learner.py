"""The tensors of a state: a network in training, its momentum, and the observations of single images."""

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
    """The tensors of a state on a device: a network, its momentum, and the observations of single images.

    Attributes:
        key, epochs: the name of the current state, and its number of epochs since state 0.
        network, momentum: the tensors that `steps` change, in place.
        recorder: the recorder of steps; None if steps are not recorded.
        steps: the `steps.Steps` of this network, by kind of instruction.
        observed: ``predictions`` of the test images after the last evaluation, and their ``test_labels``: (M,). After
            an instruction with events also ``learned`` and ``forgotten``, each training image's cumulative counts (eq.
            17 and 18), and ``correct``, whether its prediction was right after the last epoch: (N,).

    Args:
        origin: the origin, which determines state 0.
        ranks: the rank of this process.
        recorded: on a GPU, whether steps are recorded and replayed; see `recording`. A replay gives the same bits as
            the direct call, so this is not a part of the origin.
    """

    def __init__(self, origin: Origin, ranks: Ranks = ALONE, recorded: bool = False) -> None:
        assert ranks.size == origin.ranks
        self.origin, self.device, self.ranks = origin, torch.device(origin.device), ranks
        self.key, self.epochs = first_key(origin), 0
        _settle_arithmetic(origin)
        self.network = _initial_network(origin).to(self.device).to(memory_format=torch.channels_last)
        self.momentum = {name: torch.zeros_like(p) for name, p in self.network.named_parameters()}
        self.observed: dict[str, Tensor] = {}
        self.recorder: Recorder | None = None
        self._stream: torch.cuda.Stream | None = None
        if recorded and self.device.type == "cuda" and ranks.size == 1:  # messages between ranks are not recorded
            self._stream = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
            self.recorder = cuda_recorder(self._stream)
        self.steps: dict[Epoch, Any] = {}

    def fits(self, origin: Origin) -> bool:
        """Return whether another origin has the shapes and the arithmetic of this one, as `begin` requires."""
        return _shape(origin) == _shape(self.origin)

    def begin(self, origin: Origin) -> None:
        """Load state 0 of an origin that fits into the existing tensors, so that recordings stay valid."""
        assert self.fits(origin)
        self.origin = origin
        self.key, self.epochs = first_key(origin), 0
        _settle_arithmetic(origin)  # another learner of this process may have changed it
        if origin.head.linear and self.momentum.pop("classifier.scale", None) is not None:
            remove_scale(self.network)
            self.forget_steps()
        self.network.load_state_dict(_initial_network(origin).state_dict())
        for buffer in self.momentum.values():
            buffer.zero_()
        self.observed = {}

    def state(self) -> dict[str, Tensor]:
        """Return weights and buffers as ``network.*``, ``momentum.*`` and ``observed.*``, on the CPU.

        A learner on the CPU shares their memory, so further training changes them.
        """
        tensors = {f"network.{name}": tensor for name, tensor in self.network.state_dict().items()}
        tensors |= {f"momentum.{name}": tensor for name, tensor in self.momentum.items()}
        tensors |= {f"observed.{name}": tensor for name, tensor in self.observed.items()}
        return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}

    def load(self, tensors: dict[str, Tensor], key: str = "", epochs: int = 0) -> None:
        """Load the tensors of `state`, with the state's name and number of epochs."""
        self.key, self.epochs = key, epochs
        if self.origin.head.linear and "network.classifier.scale" in tensors:
            self._add_scale()
        self.network.load_state_dict(_below("network.", tensors))
        for name, buffer in self.momentum.items():
            buffer.copy_(tensors[f"momentum.{name}"])
        self.observed = {name: tensor.to(self.device) for name, tensor in _below("observed.", tensors).items()}

    def _add_scale(self) -> None:
        add_scale(self.network)
        self.forget_steps()  # they belong to a network without a scale
        self.momentum["classifier.scale"] = torch.zeros_like(self.network.classifier.scale)  # type: ignore[arg-type]

    def forget_steps(self) -> None:
        """Release the steps, which refer to this learner, and their recordings."""
        for steps in self.steps.values():
            steps.step.forget()
        self.steps.clear()

    def obey(self, epoch: Epoch, index: int) -> list[str]:
        """Prepare the network for an instruction, and return the names of the parameters to train."""
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
        """Return the network's output in the origin's precision: (B, channels, side, side) → (B, C).

        Args:
            inputs: the inputs of the network; with two branches a batch for each, and their weights.
            weights: tensors that replace the network's parameters, by name.
        """
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.origin.precision == "bf16"):
            output = functional_call(self.network, dict(weights), inputs) if weights else self.network(*inputs)
            return output.float()  # type: ignore[no-any-return]

    @contextmanager
    def stream(self) -> Iterator[None]:
        """Run the body on the recording stream, after earlier work and before later work on the current stream."""
        if self._stream is None:
            yield
            return
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            yield
        torch.cuda.current_stream().wait_stream(self._stream)

    def count_batches(self, steps: int, two: bool) -> None:
        """Add an epoch's steps to the counters of the batch norms in training mode; see `layers.BatchNorm`.

        Args:
            steps: the number of steps.
            two: whether each step has two batches, which both pass through the trunk.
        """
        for name, part in self.network.named_modules():
            if isinstance(part, BatchNorm) and part.training:
                assert part.num_batches_tracked is not None
                part.num_batches_tracked.add_(2 * steps if two and name.startswith("trunk.") else steps)


def _initial_network(origin: Origin) -> Network | Bilateral:
    """Return the network of state 0, on the CPU."""
    dataset = facts(origin.dataset)
    rng = _torch_generator(origin.seed, 0, Purpose.WEIGHTS)
    return build(origin.backbone, origin.head, dataset.channels, dataset.classes, rng)


def _shape(origin: Origin) -> Origin:
    """Return an origin without the fields that affect only values, not shapes or arithmetic."""
    return replace(origin, seed=0, split_seed=0, subset_seed=0, imbalance=1.0)


def _settle_arithmetic(origin: Origin) -> None:
    torch.set_num_threads(origin.threads)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = origin.precision == "tf32"
    torch.backends.cudnn.deterministic = True  # one kind of GPU gives the same bits, with or without a resumption


def _below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _torch_generator(seed: int, epoch: int, purpose: Purpose) -> torch.Generator:
    return torch.Generator().manual_seed(int(generator(seed, epoch, purpose).integers(2**63)))
