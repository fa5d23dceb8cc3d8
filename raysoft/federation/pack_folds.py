"""What packs come to, joined in an order that is a function of the cohort and the pack size alone.

Packs are joined one after the other in groups of GROUP, then the groups: floating-point sums depend on how they are
bracketed, so neither the number of actors nor who finishes first may decide it. Groups are joined where packs were
folded; the coordinator receives one part a group, however many clients there are.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from raysoft.federation.diagnostics import ProductSums
from raysoft.methods.folds import Fold
from raysoft.types import Tensors

GROUP = 32  # packs
T = TypeVar("T")


@dataclass(frozen=True)
class PackFold:
    """What arrived of a pack, or of neighbouring ones, folded (empty: nothing arrived).

    `products` are for the diagnostics; None: switched off.
    """

    folded: Tensors
    products: ProductSums | None


def joined(fold: Fold, parts: Iterable[PackFold]) -> PackFold:
    """From the first to the last."""
    total: Tensors = {}
    products: ProductSums | None = None
    for part in parts:
        total = fold.join(total, part.folded) if total and part.folded else total or part.folded
        if part.products is not None:
            products = part.products if products is None else products + part.products
    return PackFold(total, products)


def in_groups(packs: Sequence[T], size: int = GROUP) -> list[tuple[T, ...]]:
    """Neighbours in groups of `size`; the last may be smaller."""
    return [tuple(packs[i : i + size]) for i in range(0, len(packs), size)]
