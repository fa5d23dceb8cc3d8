"""What packs come to, joined in an order that is a function of the cohort and the pack size alone.

Packs are joined one after the other in groups of GROUP, then the groups: floating-point sums depend on how they are
bracketed, so neither the number of actors nor who finishes first may decide it. Groups are joined where packs were
folded; the coordinator receives one part a group, however many clients there are.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from raysoft.federation.diagnostics import ProductSums
from raysoft.methods.folds import Fold
from raysoft.types import Array, ParamSpace, Tensors

GROUP = 32  # packs
T = TypeVar("T")


@dataclass(frozen=True)
class PackFold:
    """What arrived of a pack, or of neighbouring ones, folded (empty: nothing arrived).

    `side`: unweighted sums of what travelled beside the updates, at r_max, float64. `products` are for the
    diagnostics; None: switched off.
    """

    folded: Tensors
    side: Tensors
    products: ProductSums | None


def joined(fold: Fold, parts: Iterable[PackFold]) -> PackFold:
    """From the first to the last."""
    total: Tensors = {}
    side: dict[str, Array] = {}
    products: ProductSums | None = None
    for part in parts:
        total = fold.join(total, part.folded) if total and part.folded else total or part.folded
        for name, value in part.side.items():
            side[name] = side[name] + value if name in side else value
        if part.products is not None:
            products = part.products if products is None else products + part.products
    return PackFold(total, side, products)


def add_side(total: dict[str, Array], side: Tensors, space: ParamSpace) -> None:
    """Add what travelled beside one update, padded to r_max: values called like those of the model, after a slash."""
    for name, value in side.items():
        shape = space.shapes.get(name.partition("/")[2], value.shape)
        whole = np.zeros(shape)
        whole[tuple(slice(0, n) for n in value.shape)] = value
        total[name] = total[name] + whole if name in total else whole


def in_groups(packs: Sequence[T], size: int = GROUP) -> list[tuple[T, ...]]:
    """Neighbours in groups of `size`; the last may be smaller."""
    return [tuple(packs[i : i + size]) for i in range(0, len(packs), size)]
