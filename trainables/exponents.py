"""The names of samplers and their exponent q in ``p_j ∝ n_j^q`` (eq. 1). Pure: no torch."""

from __future__ import annotations

import math

from study.errors import Refusal
from trainables.parameters import as_number

SAMPLERS = {"IB": 1.0, "CB": 0.0, "CR": -1.0}

Sampler = str | float | tuple[float, ...]


def resolve_sampler(sampler: Sampler, field: str = "sampler", classes: int | None = None) -> float | tuple[float, ...]:
    """Return the exponent q of a sampler (``p_j ∝ n_j^q``, eq. 1) or its class weights.

    Args:
        sampler: IB, CB or CR; any finite number as q; or one weight ≥ 0 per class, largest class first: (C,).
        field: the name of the value in a refusal.
        classes: C, the required number of class weights; None for any number.

    Raises:
        Refusal: for any other value.
    """
    if isinstance(sampler, str):
        if sampler not in SAMPLERS:
            raise Refusal(field, sampler, f"must be {', '.join(SAMPLERS)}, a finite exponent q or class weights")
        return SAMPLERS[sampler]
    exponent = as_number(sampler)
    if math.isfinite(exponent):
        return exponent
    if isinstance(sampler, (list, tuple)):
        weights = tuple(map(as_number, sampler))
        if not all(w >= 0 for w in weights) or not 0 < sum(weights) < math.inf:
            raise Refusal(field, sampler, "must be finite class weights ≥ 0 with a sum above 0")
        if classes is not None and len(weights) != classes:
            raise Refusal(field, len(weights), f"must have {classes} class weights, one per class")
        return weights
    raise Refusal(field, sampler, f"must be {', '.join(SAMPLERS)}, a finite exponent q or class weights")


def sampler_name(sampler: Sampler) -> str:
    """Return a sampler's name in tables and MLflow: IB, CB, CR, ``q=0.5`` or ``weights``."""
    resolved = resolve_sampler(sampler)
    if isinstance(resolved, tuple):
        return "weights"
    return next((name for name, q in SAMPLERS.items() if q == resolved), f"q={resolved!r}")
