"""What a sampler is called, and its exponent q of ``p_j ∝ n_j^q`` (eq. 1). Pure: no torch."""

from __future__ import annotations

import math

from study.errors import Refusal
from trainables.parameters import as_number

SAMPLERS = {"IB": 1.0, "CB": 0.0, "CR": -1.0}

Sampler = str | float | tuple[float, ...]


def resolve_sampler(sampler: Sampler, field: str = "sampler", classes: int | None = None) -> float | tuple[float, ...]:
    """The exponent q of a sampler (``p_j ∝ n_j^q``, eq. 1) or its class weights.

    Args:
        sampler: IB, CB or CR; any finite number as q; or one weight ≥ 0 a class, largest class first: (C,).
        field: what to call the value when it is refused.
        classes: C, which a vector of weights must have.

    Raises:
        Refusal: for anything else.
    """
    if isinstance(sampler, str):
        if sampler not in SAMPLERS:
            raise Refusal(field, sampler, f"one of {', '.join(SAMPLERS)}, an exponent q or class weights would do")
        return SAMPLERS[sampler]
    exponent = as_number(sampler)
    if math.isfinite(exponent):
        return exponent
    if isinstance(sampler, (list, tuple)):
        weights = tuple(map(as_number, sampler))
        if not all(w >= 0 for w in weights) or not 0 < sum(weights) < math.inf:
            raise Refusal(field, sampler, "finite class weights ≥ 0 that do not all vanish would do")
        if classes is not None and len(weights) != classes:
            raise Refusal(field, f"{len(weights)} class weights", f"{classes}, one a class, would do")
        return weights
    raise Refusal(field, sampler, f"one of {', '.join(SAMPLERS)}, a finite exponent q or class weights would do")


def sampler_name(sampler: Sampler) -> str:
    """What tables and MLflow call a sampler: IB, CB, CR, ``q=0.5`` or ``weights``."""
    resolved = resolve_sampler(sampler)
    if isinstance(resolved, tuple):
        return "weights"
    return next((name for name, q in SAMPLERS.items() if q == resolved), f"q={resolved!r}")
