"""Linear classifiers of iris, trained by stochastic gradient descent whose rate falls half way: no torch, no networks.

study run elsewhere.iris            every loss with every later rate
study run elsewhere.iris:search     Optuna chooses them
"""

import hashlib
import io
import json
import os
import platform
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from ray.tune import Trainable
from sklearn.datasets import load_iris
from sklearn.linear_model import SGDClassifier

from study.space import Choice, OpenSearch, Option, Printed, Real, Resolved, Source, Space, Trial, Work
from study.store.states import Store

EPOCHS, FALL = 12, 6
LOSSES, RATES = ("hinge", "log_loss"), (0.1, 0.001)
X, Y = load_iris(return_X_y=True)
TEST = np.arange(len(Y)) % 3 == 0


def sources():
    return {"iris.py": hashlib.sha256(Path(__file__).read_bytes()).hexdigest()}


def resolve(config, replicate, machine):
    origin = {"loss": config["loss"], "seed": replicate, **sources()}
    epochs = tuple({"rate": RATES[0] if e < FALL else config["rate"]} for e in range(EPOCHS))
    keys = [hashlib.sha256(json.dumps(origin).encode()).hexdigest()]
    for epoch in epochs:
        keys.append(hashlib.sha256((keys[-1] + json.dumps(epoch)).encode()).hexdigest())
    return Resolved(origin, epochs, tuple(keys), (FALL,), {"seed": str(replicate)}, sources())


class Stage(Trainable):
    def setup(self, config, job):
        self.job, self.store = job, Store(job.store)
        self.reset_config(config)

    def reset_config(self, config):
        self.stage = config["stage"]
        return True

    def step(self):
        stage = self.stage
        model = SGDClassifier(loss=stage.origin["loss"], learning_rate="constant")
        header = {"measures": [], "provenance": []}
        if stage.start:
            header, payload = self.store.load(stage.parent)
            with np.load(io.BytesIO(payload)) as saved:
                model.coef_, model.intercept_, model.t_ = saved["coef"], saved["intercept"], float(saved["t"])
                model.classes_ = np.arange(3)
        for index, epoch in enumerate(stage.epochs, stage.start):
            order = np.random.default_rng((stage.origin["seed"], index)).permutation(np.flatnonzero(~TEST))
            model.set_params(eta0=epoch["rate"], shuffle=False).partial_fit(X[order], Y[order], classes=np.arange(3))
            right = model.predict(X[TEST]) == Y[TEST]
            by_kind = [float(100 * right[Y[TEST] == kind].mean()) for kind in range(3)]
            measures = {"unseen/accuracy": float(100 * right.mean()), "unseen/setosa": by_kind[0], "by_kind": by_kind}
            header["measures"].append(measures)
            time.sleep(float(os.environ.get("IRIS_SECONDS", "0")))
        payload = io.BytesIO()
        np.savez(payload, coef=model.coef_, intercept=model.intercept_, t=model.t_)
        part = {"from_epoch": stage.start, "run": self.job.run, "host": platform.node(), "device_model": "a desk"}
        header |= {"key": stage.key, "epochs": index + 1, "wall_seconds": [0.01] * (index + 1)}
        header["provenance"] = [*header["provenance"], part]
        self.store.save(stage.key, header, payload.getvalue())
        return {"position": len(stage.keys), "saved": stage.key, "done": True}


def exporter(config):
    def save(payload, folder, model):
        with np.load(io.BytesIO(payload)) as saved:
            model.add_flavor("plain_numbers", coefficients=saved["coef"].tolist())
        model.save(str(folder / "MLmodel"))

    return save


WORK = Work(
    resolve=resolve,
    prepare=lambda configs, folder, download: None,
    trainable=lambda: Stage,
    parameters=lambda config, replicate, machine: {**config, "seed": replicate},
    exporter=exporter,
    wants_gpu=lambda config: False,
    curves=("unseen/accuracy",),
    lists={"by_kind": "unseen/kind"},
    headline=("unseen/setosa",),
    group_by="loss",
    libraries=("scikit-learn",),
)


def space(request):
    losses = request.options.get("losses", ",".join(LOSSES)).split(",")
    trials = [
        Trial(loss, f"then {rate:g}", {"loss": loss, "rate": rate}, {"loss": loss, "rate": rate}, Printed(97.0, "°"))
        for loss in losses
        for rate in RATES
    ]
    return Space(
        name="iris",
        title="Losses and later rates on iris",
        trials=tuple(trials),
        domain={"loss": Choice(LOSSES), "rate": Real(0, 1)},
        work=WORK,
        objectives=("unseen/accuracy",),
        options=(Option("losses", "with commas between them"),),
        source=Source("Fisher", marks={"°": "read off a figure"}, runs="n = 1"),
        splits=("setosa",),
    )


def search(request):
    def point(values):
        return Trial("", "later rate", dict(values), dict(values))

    found = OpenSearch(point, {"loss": "hinge", "rate": 0.1}, request.trials or 4, ("unseen/accuracy",), fresh=1)
    return replace(space(request), name="iris_search", trials=(), search=found, splits=())
