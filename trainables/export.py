"""Export of a state's network as an MLflow model that can be loaded without this project."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from zipfile import ZipFile

import mlflow.pytorch
import numpy as np
import torch
from mlflow.models import Model, ModelSignature
from mlflow.types import Schema, TensorSpec
from torch import Tensor

from study import scratch
from trainables.classifier import Classifier, classifier
from trainables.config import Config
from trainables.data.datasets import facts
from trainables.network import build
from trainables.parts import Backbone, Head


class Exporter:
    """An exporter that saves networks of one configuration as MLflow models, with signature and requirements.

    The format is torch.export's pt2, a graph and tensors: it has no pickle, and loading needs no code of this project.
    MLflow would trace every network and load it again as a test. Instead, ``mlflow.pytorch`` saves one network of each
    kind, and the other models are copies of it with other weights.
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
    """A saved model of one kind of network."""

    def __init__(self, dataset: str, backbone: Backbone, head: Head) -> None:
        declared = facts(dataset)
        shape = (declared.channels, declared.side, declared.side)
        example = np.zeros((2, *shape), dtype=np.float32)
        network = build(backbone, head, declared.channels, declared.classes, torch.Generator())
        with scratch.folder() as folder, warnings.catch_warnings():
            path = folder / "model"
            warnings.simplefilter("ignore")  # warnings of torch.export and MLflow about their internals
            mlflow.pytorch.save_model(
                Classifier(network, declared.mean, declared.std).eval(),
                path,
                signature=ModelSignature(
                    inputs=Schema([TensorSpec(example.dtype, (-1, *shape))]),
                    outputs=Schema([TensorSpec(example.dtype, (-1, declared.classes))]),
                ),
                input_example=example,
                pip_requirements=[f"torch=={torch.__version__.partition('+')[0]}", f"mlflow=={mlflow.__version__}"],
                serialization_format="pt2",
            )
            self.files = {file.relative_to(path): file.read_bytes() for file in path.rglob("*") if file.is_file()}
            self.model = Model.load(str(path))
            (self.graph,) = (name for name in self.files if name.suffix == ".pt2")

    def reweighted(self, weights: Mapping[str, Tensor]) -> bytes:
        """Return the graph with other weights; in a pt2 archive each tensor is an entry of raw bytes."""
        out = BytesIO()
        with ZipFile(BytesIO(self.files[self.graph])) as old, ZipFile(out, "w") as new:
            (config,) = (name for name in old.namelist() if name.endswith("/data/weights/model_weights_config.json"))
            entries = json.loads(old.read(config))["config"]
            folder = config.rpartition("/")[0]
            names = {f"{folder}/{description['path_name']}": name for name, description in entries.items()}
            assert entries.keys() == weights.keys()
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
