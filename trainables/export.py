"""A state's network as an MLflow model that anyone can load without this project."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from zipfile import ZipFile

import mlflow.pytorch
import numpy as np
import torch
from mlflow.models import Model, ModelSignature
from mlflow.types import Schema, TensorSpec
from safetensors.torch import load as load_tensors
from torch import Tensor, nn

from trainables.config import Config
from trainables.data.datasets import facts
from trainables.network import build
from trainables.parts import Backbone, Head


class Classifier(nn.Module):
    """Normalisation and network in one: pixels from 0 to 1, (B, channels, side, side), to logits (B, C)."""

    mean: Tensor
    std: Tensor

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
    known = facts(config.dataset)
    network = build(config.backbone, config.head, known.channels, known.classes, torch.Generator())
    weights = {k.removeprefix("network."): v for k, v in load_tensors(payload).items() if k.startswith("network.")}
    scale = weights.pop("classifier.scale", None) if config.head.linear else None
    if scale is not None:  # a factor a class on the logits: part of the linear map
        weights["classifier.weight"] = weights["classifier.weight"] * scale[:, None]
        weights["classifier.bias"] = weights["classifier.bias"] * scale
    network.load_state_dict(weights)
    return Classifier(network, known.mean, known.std).eval()


class Exporter:
    """Saves networks of a configuration's kind as MLflow models, with signature and requirements.

    The format is torch.export's pt2, a graph and tensors: no pickle, and loading it needs no code of this project.
    MLflow would trace every network anew and load it back to try it; here one network of a kind is saved by
    ``mlflow.pytorch``, and the others are that model with other weights.
    """

    def __init__(self, config: Config) -> None:
        self._config, self._template = config, _template(config.dataset, config.backbone, config.head)

    def save(self, payload: bytes, path: Path, model: Model) -> None:
        """Write the network of a state's payload to a folder, and describe it in an MLflow ``Model``."""
        template = self._template
        for file, content in template.files.items():
            Path(path, file).parent.mkdir(parents=True, exist_ok=True)
            Path(path, file).write_bytes(content)
        weights = classifier(self._config, payload).state_dict()
        Path(path, template.graph).write_bytes(template.reweighted(weights))
        for part in ("flavors", "signature", "saved_input_example_info", "model_size_bytes"):
            setattr(model, part, getattr(template.model, part))
        model.save(str(Path(path, "MLmodel")))


class _Template:
    """A saved model of a kind of network."""

    def __init__(self, dataset: str, backbone: Backbone, head: Head) -> None:
        known = facts(dataset)
        shape = (known.channels, known.side, known.side)
        example = np.zeros((2, *shape), dtype=np.float32)
        network = build(backbone, head, known.channels, known.classes, torch.Generator())
        with TemporaryDirectory(prefix="study-") as folder, warnings.catch_warnings():
            path = Path(folder, "model")
            warnings.simplefilter("ignore")  # torch.export and MLflow warn of their own internals
            mlflow.pytorch.save_model(
                Classifier(network, known.mean, known.std).eval(),
                path,
                signature=ModelSignature(
                    inputs=Schema([TensorSpec(example.dtype, (-1, *shape))]),
                    outputs=Schema([TensorSpec(example.dtype, (-1, known.classes))]),
                ),
                input_example=example,
                pip_requirements=[f"torch=={torch.__version__.partition('+')[0]}", f"mlflow=={mlflow.__version__}"],
                serialization_format="pt2",
            )
            self.files = {file.relative_to(path): file.read_bytes() for file in path.rglob("*") if file.is_file()}
            self.model = Model.load(str(path))
            (self.graph,) = (name for name in self.files if name.suffix == ".pt2")

    def reweighted(self, weights: Mapping[str, Tensor]) -> bytes:
        """The graph with other weights: in a pt2 archive each tensor is an entry of raw bytes."""
        out = BytesIO()
        with ZipFile(BytesIO(self.files[self.graph])) as old, ZipFile(out, "w") as new:
            (config,) = (name for name in old.namelist() if name.endswith("/data/weights/model_weights_config.json"))
            described = json.loads(old.read(config))["config"]
            folder = config.rpartition("/")[0]
            names = {f"{folder}/{each['path_name']}": name for name, each in described.items()}
            assert described.keys() == weights.keys()
            for entry in old.infolist():
                content = old.read(entry)
                if entry.filename in names:
                    content = weights[names[entry.filename]].contiguous().numpy().tobytes()
                    assert len(content) == entry.file_size
                new.writestr(entry, content)
        return out.getvalue()


@lru_cache(maxsize=8)
def _template(dataset: str, backbone: Backbone, head: Head) -> _Template:
    return _Template(dataset, backbone, head)
