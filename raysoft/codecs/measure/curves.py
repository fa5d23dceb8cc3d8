"""Rate-distortion curves: which counts are on the menu, and the convex curve that is reported."""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise
from math import comb, prod

import numpy as np

from raysoft.types import Array, Curve

MAX_UNITS = 64


@lru_cache(maxsize=1024)
def counts(total: int) -> tuple[int, ...]:
    """How many of `total` pieces each unit stands for: all of 0..total, or 65 evenly spread counts.

    A function of `total` alone, so that both ends know the count from the unit and no bit is spent on it.
    """
    if total <= MAX_UNITS:
        return tuple(range(total + 1))
    return tuple((unit * total + MAX_UNITS // 2) // MAX_UNITS for unit in range(MAX_UNITS + 1))


def count_of(total: int, units: int) -> int:
    """The count of a unit. Raises ValueError for units that the menu does not have."""
    menu = counts(total)
    if not 0 <= units < len(menu):
        raise ValueError(f"units must be 0..{len(menu) - 1}, got {units}")
    return menu[units]


def cheapest_first(bits: list[int]) -> list[int]:
    """Positions of the points that cost less than every later one.

    Sending nearly everything plus the positions can cost more than sending everything; such points leave the menu.
    """
    keep: list[int] = []
    floor: float = float("inf")
    for position in range(len(bits) - 1, -1, -1):
        if bits[position] < floor:
            keep.append(position)
            floor = bits[position]
    return keep[::-1]


def told_counts_bits(total: int, costs: int) -> int:
    """Bits that tell the bits of a whole menu of `counts(total)` pieces, where pieces have one of `costs` costs.

    What a step of g pieces adds follows from how many of them have each cost: C(g + costs - 1, costs - 1)
    possibilities. All steps together are one number in mixed radix, written with the bits of the largest.

    >>> told_counts_bits(64, 2)  # 64 steps of one piece of two costs
    64
    """
    menu = counts(total)
    steps = (later - before for before, later in pairwise(menu))
    return (prod(comb(step + costs - 1, costs - 1) for step in steps) - 1).bit_length()


def convex_curve(fixed_bits: int, bits_J: Array, error_J: Array, told_bits: int = 0) -> Curve:
    """The reported curve: bits as they are, errors lowered to their convex decreasing minorant.

    At the corners of the minorant, at "nothing" and, for float32 values, at "everything" the error is exact. Between
    corners the cross terms between pieces (or quantisation noise above the gain) would make the exact error bulge;
    there the curve is the chord. Every unit stays on the menu, which keeps the kept fraction fine-grained.
    """
    bits = np.asarray(bits_J, dtype=np.int64)
    error = np.minimum.accumulate(np.asarray(error_J, dtype=np.float64))
    corners = _corners(bits.tolist(), error.tolist())
    return Curve(fixed_bits, bits, np.interp(bits, bits[corners], error[corners]), told_bits)


def _corners(x: list[int], y: list[float]) -> list[int]:
    """Lower convex hull of points sorted by x (Andrew's monotone chain); collinear points stay."""
    hull: list[int] = []
    for k in range(len(x)):
        while len(hull) >= 2:
            i, j = hull[-2], hull[-1]
            if (y[j] - y[i]) * (x[k] - x[j]) <= (y[k] - y[j]) * (x[j] - x[i]):
                break
            hull.pop()
        hull.append(k)
    return hull
