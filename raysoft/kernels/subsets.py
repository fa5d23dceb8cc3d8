"""Which n of N: how many bits say it, and which entries are the largest.

A subset of n out of N costs ceil(log2 C(N, n)) bits, the shortest code of fixed length, the same up and down
(codecs/wire/bits.py writes and reads it); n itself is known from the plan, so n = 0 and n = N cost nothing.
"""

from __future__ import annotations

import math
from functools import lru_cache
from itertools import pairwise

import numpy as np

from raysoft.types import Array

BLOCK = 16384  # largest subset that is coded exactly; more are cut into blocks


@lru_cache(maxsize=20_000)
def comb(total: int, count: int) -> int:
    """C(total, count)."""
    return math.comb(total, count)


def largest(values: Array, count: int) -> Array:
    """The `count` largest of some finite values [N], bool [N]; ties go to the smaller index. O(N).

    >>> largest(np.array([1.0, 3.0, 1.0, 2.0]), 3)
    array([ True,  True, False,  True])
    """
    if not 0 < count < values.size:
        return np.full(values.size, count > 0)
    least = np.partition(values, values.size - count)[values.size - count]
    kept: Array = values > least
    kept[np.flatnonzero(values == least)[: count - int(kept.sum())]] = True
    return kept


@lru_cache(maxsize=100_000)
def subset_bits(total: int, count: int) -> int:
    """Bits that say which `count` of `total` items are meant.

    Exactly ceil(log2 C(total, count)) up to total = BLOCK. Above, the items are cut into blocks of BLOCK, each with
    its count in front: ceil(log2 C(total, count)) + 1 + sum over blocks of (1 + bits of the block's size), a bound
    that every subset is padded to (0.1 % above the entropy at one item in ten).
    """
    if not 0 <= count <= total:
        raise ValueError(f"cannot choose {count} of {total}")
    if count in (0, total):
        return 0
    if total <= BLOCK:
        return ceil_log2_comb(total, count)
    # log2 C by lgamma is good to 1e-9 bit here; the extra bit covers it.
    bound = math.ceil(_log2_comb(total, count)) + 1
    return bound + sum(1 + count_bits(stop - start) for start, stop in blocks(total))


def blocks(total: int) -> list[tuple[int, int]]:
    """(start, stop) of the blocks in which so many items are coded."""
    edges = [*range(0, total, BLOCK), total]
    return list(pairwise(edges))


def count_bits(size: int) -> int:
    """Bits of a number from 0 to `size`."""
    return size.bit_length()


def _log2_comb(total: int, count: int) -> float:
    return (math.lgamma(total + 1) - math.lgamma(count + 1) - math.lgamma(total - count + 1)) / math.log(2.0)


@lru_cache(maxsize=100_000)
def ceil_log2_comb(total: int, count: int) -> int:
    """ceil(log2 C(total, count)), exactly."""
    if total > 128:
        estimate = _log2_comb(total, count)
        if abs(estimate - round(estimate)) > 1e-6:
            return math.ceil(estimate)
    return (comb(total, count) - 1).bit_length()
