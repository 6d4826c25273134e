"""The exported model is the trained network: it maps pixels from 0 to 1 to logits."""

import sys
from dataclasses import replace

import mlflow.pytorch
import numpy as np
import pytest
import safetensors.torch
import torch
from helpers import SHORT, digits, learner
from mlflow.models import Model
from test_loop import OwnLoss

from trainables.classifier import classifier
from trainables.data.datasets import facts
from trainables.export import Exporter
from trainables.loop import train_epoch
from trainables.methods.bbn import bbn
from trainables.methods.ldam_drw import ldam_drw
from trainables.methods.lws import lws
from trainables.schedule import epochs

CONFIGS = {
    "linear": SHORT,
    "lws": lws(SHORT),
    "cosine": ldam_drw(SHORT),
    "rare": replace(SHORT, loss="sigmoid_focal"),
    "bilateral": bbn(SHORT),
    "grouped": replace(SHORT, backbone="resnext11"),
    "one's own": replace(SHORT, loss=OwnLoss()),
}


def trained(config):
    """Return a learner after its first epoch, its last instruction, and its state as a file's bytes."""
    student = learner(seed=int(torch.randint(1000, ())), config=config)
    first, last = epochs(config)[0], replace(epochs(config)[-1], lr=0.2, measures=())
    train_epoch(student, digits(), first, 0)
    if last.trains == "scale":
        train_epoch(student, digits(), replace(last, reinitialise="scale"), 1)
    student.network.eval()
    return student, safetensors.torch.save(student.state())


def pixels(number=7):
    return np.random.default_rng().random((number, 1, 8, 8), dtype=np.float32)


def logits_of(student, images):
    known = facts("digits")
    normalised = (torch.from_numpy(images) - known.mean[0]) / known.std[0]
    with torch.no_grad():
        return student.network(normalised).numpy()


@pytest.mark.parametrize("name", CONFIGS)
def test_a_state_s_classifier_says_what_its_network_says(name):
    student, payload = trained(CONFIGS[name])
    images = pixels()
    with torch.no_grad():
        found = classifier(CONFIGS[name], payload)(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(found, logits_of(student, images), rtol=1e-4, atol=1e-4)


def test_a_scale_becomes_part_of_the_linear_map():
    student, payload = trained(CONFIGS["lws"])
    assert (student.network.classifier.scale != 1).all()
    made = classifier(CONFIGS["lws"], payload).network
    assert made.classifier.scale is None
    assert {name for name, _ in made.named_parameters()} == {name for name, _ in learner().network.named_parameters()}


@pytest.mark.parametrize("name", ["linear", "lws", "cosine", "bilateral"])
def test_anyone_can_load_a_model_and_has_the_network_s_logits_for_any_number_of_images(name, tmp_path, monkeypatch):
    for number in range(2):  # the second is the first's graph with other weights
        student, payload = trained(CONFIGS[name])
        Exporter(CONFIGS[name]).save(payload, tmp_path / str(number), Model())
        images = pixels()
        expected = logits_of(student, images)
        with monkeypatch.context() as patch:
            for module in [module for module in sys.modules if module.partition(".")[0] in ("study", "trainables")]:
                patch.setitem(sys.modules, module, None)  # this project is not needed
            model = mlflow.pytorch.load_model(tmp_path / str(number))
            for part in (images, images[:3]):
                found = model(torch.from_numpy(part)).detach()
                np.testing.assert_allclose(found, expected[: len(part)], rtol=1e-4, atol=1e-4)


def test_a_saved_model_states_what_goes_in_and_comes_out(tmp_path):
    Exporter(SHORT).save(trained(SHORT)[1], tmp_path / "model", Model())
    signature = Model.load(str(tmp_path / "model")).signature
    assert [tuple(column.shape) for column in (*signature.inputs, *signature.outputs)] == [(-1, 1, 8, 8), (-1, 10)]
    assert not list((tmp_path / "model").rglob("*.pkl"))
    assert (tmp_path / "model" / "requirements.txt").read_text().startswith("torch==")
