"""What packs add up to, folded in an order that is a function of the cohort and the pack size alone.

Packs are folded one after the other in groups of GROUP, then the groups: floating-point sums depend on how they are
bracketed, so neither the number of actors nor who finishes first may decide it. Groups are folded where packs were
summed; the coordinator receives one sum a group, however many clients there are.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from raysoft.federation.diagnostics import ProductSums
from raysoft.types import Array, Tensors, Update

GROUP = 32  # packs
T = TypeVar("T")


@dataclass(frozen=True)
class PackSum:
    """float64 sums of what arrived (None: nothing did), and the products for the diagnostics (None: switched off)."""

    sums: Tensors | None
    products: ProductSums | None


def weighted_sum(received: Sequence[Update], mix: Sequence[float]) -> dict[str, Array] | None:
    """sum mix_k * x_k in float64 in the order given; None when nothing arrived."""
    total: dict[str, Array] = {}
    for update, factor in zip(received, mix, strict=True):
        for name, value in update.items():
            term = factor * value.astype(np.float64)
            total[name] = term if name not in total else total[name] + term
    return total or None


def folded(parts: Iterable[PackSum]) -> PackSum:
    """Added up from the first to the last."""
    sums: dict[str, Array] = {}
    products: ProductSums | None = None
    for part in parts:
        for name, value in (part.sums or {}).items():
            sums[name] = sums[name] + value if name in sums else value
        if part.products is not None:
            products = part.products if products is None else products + part.products
    return PackSum(sums or None, products)


def in_groups(packs: Sequence[T], size: int = GROUP) -> list[tuple[T, ...]]:
    """Neighbours in groups of `size`; the last may be smaller."""
    return [tuple(packs[i : i + size]) for i in range(0, len(packs), size)]
