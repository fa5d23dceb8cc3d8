"""What separate averaging of sparsified factors loses, measured beside the reduction and never changing it.

In delta form, a client's effective change is `U_k = s (dB_k A_k + B0 dA_k)` with A_k = A0 + dA_k. With weights p_k:
covariance `s Cov = sum p_k U_k(received) - U(mean received)`; ideal step `sum p_k U_k(everything)`. Products are dense
[O, I] where that is affordable, otherwise both are multiplied by the same keyed Gaussian matrix [I, 256].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from raysoft.rng import Rng
from raysoft.types import Array, LoraPair, ParamSpace, Tensors, Update

SKETCH_COLUMNS = 256


@dataclass(frozen=True)
class ProductSums:
    """Sums over clients of p_k U_k per matrix: of what arrived, and of what was trained. float64."""

    received: Mapping[str, Array]
    ideal: Mapping[str, Array]

    def __add__(self, other: ProductSums) -> ProductSums:
        return ProductSums(_add(self.received, other.received), _add(self.ideal, other.ideal))


def _add(a: Mapping[str, Array], b: Mapping[str, Array]) -> dict[str, Array]:
    return {name: a[name] + b[name] for name in a}


def covariance_mode(setting: str, space: ParamSpace, cohort: int) -> str:
    """exact where the dense products cost at most four times the updates of the cohort, else a sketch."""
    if setting != "auto":
        return setting
    dense = sum(pair.out_features * pair.in_features for pair in space.pairs)
    lora = sum(space.rank * (pair.out_features + pair.in_features) for pair in space.pairs)
    return "exact" if dense <= 4 * cohort * lora else "sketch"


def _right(pair: LoraPair, number: int, mode: str, rng: Rng) -> Array | None:
    """Columns to multiply by: None for the identity. Depends on the matrix alone, so sketches of one run add up."""
    if mode == "exact":
        return None
    columns = min(SKETCH_COLUMNS, pair.in_features)
    sketch: Array = rng("sketch", number).standard_normal((pair.in_features, columns)) / np.sqrt(columns)
    return sketch


def product_sums(
    space: ParamSpace,
    mode: str,
    rng: Rng,
    *,
    start: Tensors,
    received: Sequence[Update],
    trained: Sequence[Update],
    mix: Sequence[float],
    weights: Sequence[float],
) -> ProductSums:
    """Weighted sums of effective changes over a pack (updates at r_max, in client-id order).

    `mix` weighs what arrived, `weights` what everybody would have sent.
    """
    out_received, out_ideal = {}, {}
    for number, pair in enumerate(space.pairs):
        right = _right(pair, number, mode, rng)
        a0, b0 = start[pair.a].astype(np.float64), start[pair.b].astype(np.float64)
        out_received[pair.module] = space.scale * weighted_product(pair, a0, b0, received, mix, right)
        out_ideal[pair.module] = space.scale * weighted_product(pair, a0, b0, trained, weights, right)
    return ProductSums(out_received, out_ideal)


def weighted_product(
    pair: LoraPair, a0: Array, b0: Array, updates: Sequence[Update], mix: Sequence[float], right: Array | None
) -> Array:
    """sum_k mix_k (dB_k (A0 + dA_k) + B0 dA_k) [@ right], as one product over the stacked ranks."""
    lefts, rights = [], []
    da_sum = np.zeros_like(a0)
    for update, factor in zip(updates, mix, strict=True):
        if factor == 0.0:
            continue
        da = update.get(pair.a)
        a = a0 if da is None else a0 + da
        if da is not None:
            da_sum += factor * da.astype(np.float64)
        if pair.b in update:
            lefts.append(factor * update[pair.b].astype(np.float64))
            rights.append(a if right is None else a @ right)
    total: Array = b0 @ (da_sum if right is None else da_sum @ right)
    if lefts:
        total = np.concatenate(lefts, axis=1) @ np.concatenate(rights, axis=0) + total
    return total


def covariance(
    space: ParamSpace, mode: str, rng: Rng, start: Tensors, folded: Update, change: Update | None, sums: ProductSums
) -> dict[str, float | None]:
    """The figures of a round: covariance of the mean that was `folded`; ratio and cosine of the `change` applied.

    `change` None: the mean of the products is the step itself.
    """
    found = covariance_metrics(space, mode, rng, start, None if change is None else folded, sums)
    if change is not None and change is not folded:  # the step taken is not the mean of the factors
        applied = covariance_metrics(space, mode, rng, start, change, sums)
        found |= {name: applied[name] for name in ("applied_ratio", "applied_cosine")}
    return found


def covariance_metrics(
    space: ParamSpace, mode: str, rng: Rng, start: Tensors, mean: Update | None, sums: ProductSums
) -> dict[str, float | None]:
    """aggregation_covariance = ||s Cov||^2 / ||ideal||^2; applied_ratio and applied_cosine of the step taken.

    `mean`: the change of the factors; None where the mean of the products is the step itself.
    """
    covariance = ideal = applied = inner = 0.0
    for number, pair in enumerate(space.pairs):
        right = _right(pair, number, mode, rng)
        a0, b0 = start[pair.a].astype(np.float64), start[pair.b].astype(np.float64)
        step = sums.received[pair.module]
        if mean is not None:
            step = space.scale * weighted_product(pair, a0, b0, [mean], [1.0], right)
        wanted = sums.ideal[pair.module]
        covariance += float(np.sum((sums.received[pair.module] - step) ** 2))
        ideal += float(np.sum(wanted**2))
        applied += float(np.sum(step**2))
        inner += float(np.sum(step * wanted))
    if ideal == 0.0:
        return {"aggregation_covariance": None, "applied_ratio": None, "applied_cosine": None}
    return {
        "aggregation_covariance": covariance / ideal,
        "applied_ratio": (applied / ideal) ** 0.5,
        "applied_cosine": inner / (applied * ideal) ** 0.5 if applied > 0 else None,
    }
