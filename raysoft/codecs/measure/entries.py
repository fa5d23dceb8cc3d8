"""Support for codecs that pick single factor entries: counts, costs, blocks.

Entries are numbered as in `Factors.flat`: group by group, B before A, matrix by matrix. The quantiser's block is a
whole factor matrix (one scale per parameter), with the peak over all of its entries, so that the grid does not depend
on which of them are sent. Units are counts of entries, about 1/64 of all each; counts that would cost more than a
larger one (positions included) are left out.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np

from raysoft.codecs.measure.curves import cheapest_first, counts
from raysoft.codecs.measure.factors import Factors, Layout, Sent, Spread, split_flat
from raysoft.codecs.wire.quantizer import ValueCoder, Values, block_peaks
from raysoft.types import Array

SideBits = Callable[[int, int], int]
"""(total, count) -> bits that say which entries; 0 for none and for all."""


@lru_cache(maxsize=1024)
def entry_menu(total: int, blocks: int, coder: ValueCoder, side_bits: SideBits) -> tuple[tuple[int, int], ...]:
    """(count, bits) of every unit; a function of the shapes alone."""
    points = [(count, coder.size(count, blocks) + side_bits(total, count) if count else 0) for count in counts(total)]
    return tuple(points[k] for k in cheapest_first([bits for _, bits in points]))


def menu_of(layout: Layout, kind: str, coder: ValueCoder, side_bits: SideBits) -> tuple[tuple[int, int], ...]:
    """`entry_menu` of a layout."""
    return entry_menu(layout.entries(kind), len(tensor_sizes(layout, kind)), coder, side_bits)


def tensor_sizes(layout: Layout, kind: str) -> Array:
    """Entries of every factor matrix that travels, in the order of `Factors.flat`."""
    sizes = [np.full(len(group.index), width * layout.rank) for group in layout.groups for width in group.widths(kind)]
    return np.concatenate(sizes)


def entry_values(factors: Factors, flat: Array, kept: Array) -> Values:
    """The kept entries (bool [P]), in blocks of one factor matrix each."""
    sizes = tensor_sizes(factors.layout, factors.kind)
    starts = np.cumsum(sizes) - sizes
    inside = np.add.reduceat(kept.astype(np.int64), starts)
    return Values(flat[kept], inside, block_peaks(flat, sizes))


def kept_blocks(layout: Layout, kind: str, kept: Array) -> Array:
    """Block sizes of `entry_values`."""
    sizes = tensor_sizes(layout, kind)
    return np.add.reduceat(kept.astype(np.int64), np.cumsum(sizes) - sizes)


def place_entries(layout: Layout, kind: str, kept: Array, flat: Array) -> Sent:
    """Received entries in their places."""
    full = np.zeros(kept.size, dtype=flat.dtype)
    full[kept] = flat
    return split_flat(layout, kind, full)


def entry_moments(factors: Factors, coder: ValueCoder) -> tuple[Array, Array]:
    """Mean and variance of every entry as received, if it is sent: float64 [P] each."""
    flat = factors.flat()
    return coder.moments(Values(flat, tensor_sizes(factors.layout, factors.kind)))


def diagonal_spread(layout: Layout, kind: str, variance: Array) -> Spread:
    """Second moments of independent noise on the entries, for `Factors.error`."""
    eye = np.eye(layout.rank)
    return [
        (vb.sum(axis=1)[:, :, None] * eye, va.sum(axis=2)[:, :, None] * eye)
        for vb, va in split_flat(layout, kind, variance)
    ]
