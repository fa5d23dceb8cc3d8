"""The subset code of `bits` for many short lists at once: table look-ups over arrays, up to C(66, 33) < 2^63.

Divide and conquer (see `bits.subset_ranks`): how many chosen items lie in the left half, in the order of `splits`, then
both halves; lists of at most LEAF items are ranked by the combinatorial number system. Shapes: M lists of N items.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import numpy as np

from raysoft.kernels.subsets import comb
from raysoft.types import Array

SHORT = 66  # the longest list whose numbers fit int64
LEAF = 24  # up to this many items positions are ranked one by one


def splits(size: int, count: int) -> Iterator[tuple[int, int]]:
    """(items in the left half, subsets with that split), from the most likely split outwards."""
    half, rest = size // 2, size - size // 2
    low, high = max(0, count - rest), min(half, count)
    mode = min(max((half + 1) * (count + 1) // (size + 2), low), high)
    yield mode, (ways := comb(half, mode) * comb(rest, count - mode))
    up, up_ways, down, down_ways = mode, ways, mode, ways
    while up < high or down > low:
        if up < high:
            up_ways = up_ways * ((half - up) * (count - up)) // ((up + 1) * (rest - count + up + 1))
            up += 1
            yield up, up_ways
        if down > low:
            down_ways = down_ways * (down * (rest - count + down)) // ((half - down + 1) * (count - down + 1))
            down -= 1
            yield down, down_ways


def short_ranks(mask_MN: Array) -> Array:
    """The number of every subset among those of its size, int64 [M]; N <= SHORT."""
    size = mask_MN.shape[1]
    if size <= LEAF:
        ways_MN: Array = _binomials()[np.arange(size), np.cumsum(mask_MN, axis=1)] * mask_MN
        ranks_M: Array = ways_MN.sum(axis=1)
        return ranks_M
    middle = size // 2
    if size % 2:
        left, right = short_ranks(mask_MN[:, :middle]), short_ranks(mask_MN[:, middle:])
    else:
        left, right = short_ranks(mask_MN.reshape(-1, middle)).reshape(-1, 2).T
    inside, others = mask_MN[:, :middle].sum(axis=1), mask_MN[:, middle:].sum(axis=1)
    ranks_M = _tables(size)[2][inside + others, inside] + left * _binomials()[size - middle, others] + right
    return ranks_M


def short_masks(size: int, counts_M: Array, ranks_M: Array) -> Array:
    """The inverse, bool [M, size]: int64 counts, and ranks below C(size, count)."""
    if size <= LEAF:
        return _leaf_masks(size, counts_M, ranks_M)
    middle = size // 2
    lefts, before, _ = _tables(size)
    at = (before[counts_M] <= ranks_M[:, None]).sum(axis=1) - 1
    inside = lefts[counts_M, at]
    others = counts_M - inside
    high, low = np.divmod(ranks_M - before[counts_M, at], _binomials()[size - middle, others])
    if size % 2:
        return np.concatenate([short_masks(middle, inside, high), short_masks(size - middle, others, low)], axis=1)
    both = np.stack([inside, others], axis=1).reshape(-1), np.stack([high, low], axis=1).reshape(-1)
    return short_masks(middle, *both).reshape(-1, size)


def _leaf_masks(size: int, counts_M: Array, ranks_M: Array) -> Array:
    """From the last place down: taken where C(place, items still to place) still fits into the number."""
    out = np.zeros((size, len(counts_M)), dtype=bool)
    rank, wanted = ranks_M.copy(), counts_M.copy()
    for place in range(size - 1, -1, -1):
        ways = _binomials()[place][wanted]
        np.logical_and(ways <= rank, wanted > 0, out=out[place])
        rank -= ways * out[place]
        wanted -= out[place]
    return out.T


@cache
def _binomials() -> Array:
    """C(n, k) for n, k <= SHORT, int64."""
    table = np.zeros((SHORT + 1, SHORT + 1), dtype=np.int64)
    table[:, 0] = 1
    for n in range(1, SHORT + 1):
        table[n, 1:] = table[n - 1, 1:] + table[n - 1, :-1]
    return table


@cache
def _tables(size: int) -> tuple[Array, Array, Array]:
    """Per count [size + 1]: items on the left and subsets before, in the order of `splits`; subsets before, by items.

    Where there are fewer splits than columns the subsets before are too many for any number.
    """
    shape = size + 1, size // 2 + 1
    lefts, by_items = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    before = np.full(shape, np.iinfo(np.int64).max)
    for count in range(size + 1):
        total = 0
        for at, (left, ways) in enumerate(splits(size, count)):
            lefts[count, at], before[count, at], by_items[count, left] = left, total, total
            total += ways
    return lefts, before, by_items
