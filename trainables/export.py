"""A state's network as an MLflow model that anyone can load without this project."""

from __future__ import annotations

import logging
import warnings

import mlflow.pytorch
import torch
from mlflow.models import ModelSignature
from mlflow.types import Schema, TensorSpec
from safetensors.torch import load as load_tensors
from torch import Tensor, nn

from trainables.config import Config
from trainables.datasets import DATASETS
from trainables.networks import build


class Classifier(nn.Module):
    """Normalisation and network in one: pixels from 0 to 1, (B, channels, side, side), to logits (B, C)."""

    def __init__(self, network: nn.Module, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1))

    def forward(self, pixels: Tensor) -> Tensor:
        """Logits of images."""
        return self.network((pixels - self.mean) / self.std)  # type: ignore[no-any-return]


def classifier(config: Config, payload: bytes) -> Classifier:
    """The network of a state's payload, on the CPU, in evaluation mode."""
    facts = DATASETS[config.dataset]
    network = build(config.backbone, facts.channels, facts.classes, torch.Generator())
    tensors = load_tensors(payload)
    network.load_state_dict({k.removeprefix("network."): v for k, v in tensors.items() if k.startswith("network.")})
    return Classifier(network, facts.mean, facts.std).eval()


def log(config: Config, payload: bytes) -> None:
    """Log the network to the active MLflow run as ``model``, with signature and requirements.

    The format is torch.export's pt2, a graph and tensors: no pickle, and loading it needs no code of this project.
    """
    facts = DATASETS[config.dataset]
    shape = (facts.channels, facts.side, facts.side)
    example = torch.zeros(2, *shape).numpy()
    signature = ModelSignature(
        inputs=Schema([TensorSpec(example.dtype, (-1, *shape))]),
        outputs=Schema([TensorSpec(example.dtype, (-1, facts.classes))]),
    )
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.export and MLflow warn of their own internals
        mlflow.pytorch.log_model(
            classifier(config, payload),
            name="model",
            signature=signature,
            input_example=example,
            pip_requirements=[f"torch=={torch.__version__.split('+')[0]}", f"mlflow=={mlflow.__version__}"],
            serialization_format="pt2",
            validate_serving_input=False,  # it would load the model again, half of the time
        )
