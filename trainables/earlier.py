"""Configurations as versions before 0.4 stored them, so that their runs can still be looked at. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# The parameters of a loss by its name, each with the field that it was in.
_LOSSES = {
    "focal": {"gamma": "focal_gamma"},
    "sigmoid_focal": {"gamma": "focal_gamma"},
    "ldam": {"max_margin": "max_margin"},
    "logit_adjusted": {"tau": "tau"},
    "label_aware_smoothing": {"share": "smoothing_share"},
}
_GONE = ("focal_gamma", "max_margin", "tau", "smoothing", "smoothing_share", "mixup", "bilateral", "alpha_epochs")


def upgraded(plain: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration whose loss was a name, its parameters fields of their own; others stay as they are."""
    if not set(plain) & set(_GONE):
        return dict(plain)
    found = {name: value for name, value in plain.items() if name not in _GONE}
    name = str(plain.get("loss", "cross_entropy"))
    loss = {own: plain[field] for own, field in _LOSSES.get(name, {}).items() if field in plain}
    if name == "label_aware_smoothing" and "smoothing" in plain:
        loss["largest"], loss["smallest"] = plain["smoothing"]
    found["loss"] = {"part": name, **loss}
    if plain.get("mixup"):
        found["mixture"] = {"part": "mixup", "a": plain["mixup"]}
    if plain.get("bilateral"):
        found["mixture"] = {"part": "trainables.methods.bbn:Bilateral", "alpha_epochs": plain.get("alpha_epochs")}
    return found
