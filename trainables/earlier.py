"""Configurations of versions before 0.4, so that their runs can still be read. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# The parameters of each loss, with the field of the configuration that had them.
_LOSSES = {
    "focal": {"gamma": "focal_gamma"},
    "sigmoid_focal": {"gamma": "focal_gamma"},
    "ldam": {"max_margin": "max_margin"},
    "logit_adjusted": {"tau": "tau"},
    "label_aware_smoothing": {"share": "smoothing_share"},
}
_GONE = ("focal_gamma", "max_margin", "tau", "smoothing", "smoothing_share", "mixup", "bilateral", "alpha_epochs")


def upgraded(plain: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration in today's form: losses have their parameters. A configuration of today is unchanged."""
    if not set(plain) & set(_GONE):
        return dict(plain)
    config = {name: value for name, value in plain.items() if name not in _GONE}
    name = str(plain.get("loss", "cross_entropy"))
    loss = {parameter: plain[field] for parameter, field in _LOSSES.get(name, {}).items() if field in plain}
    if name == "label_aware_smoothing" and "smoothing" in plain:
        loss["largest"], loss["smallest"] = plain["smoothing"]
    config["loss"] = {"part": name, **loss}
    if plain.get("mixup"):
        config["mixture"] = {"part": "mixup", "a": plain["mixup"]}
    if plain.get("bilateral"):
        config["mixture"] = {"part": "trainables.methods.bbn:Bilateral", "alpha_epochs": plain.get("alpha_epochs")}
    return config
