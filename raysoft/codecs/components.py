"""Kept columns of B and rows of A as one stream of values, and back: every column and row is a block.

`kept` says which ones: bool [L, R], where columns and rows of the same number go together, or [2, L, R], columns first.
"""

from __future__ import annotations

import numpy as np

from raysoft.codecs.measure.factors import Factors, Group, Layout, Sent, zeros
from raysoft.codecs.wire.quantizer import Values
from raysoft.types import Array


def kept_values(factors: Factors, kept: Array) -> Values:
    """Kept columns of B, then kept rows of A, group by group."""
    pieces = []
    for part in factors.parts:
        if "b" in factors.kind:
            matrix, component = np.nonzero(_of(kept, "b", part.group))
            pieces.append(part.db[matrix, :, component].reshape(-1))
        if "a" in factors.kind:
            matrix, component = np.nonzero(_of(kept, "a", part.group))
            pieces.append(part.da[matrix, component].reshape(-1))
    return Values(np.concatenate(pieces), kept_sizes(factors.layout, factors.kind, kept))


def kept_sizes(layout: Layout, kind: str, kept: Array) -> Array:
    """Block sizes of `kept_values`."""
    sizes = [
        np.full(int(_of(kept, letter, group).sum()), width)
        for group in layout.groups
        for letter, width in (("b", group.out_features), ("a", group.in_features))
        if letter in kind
    ]
    return np.concatenate(sizes)


def place_components(layout: Layout, kind: str, kept: Array, flat: Array) -> Sent:
    """The inverse of `kept_values`, zero elsewhere, in the dtype of `flat`."""
    sent = zeros(layout, flat.dtype)
    at = 0
    for group, (db, da) in zip(layout.groups, sent, strict=True):
        if "b" in kind:
            matrix, component = np.nonzero(_of(kept, "b", group))
            size = matrix.size * group.out_features
            db[matrix, :, component] = flat[at : at + size].reshape(matrix.size, group.out_features)
            at += size
        if "a" in kind:
            matrix, component = np.nonzero(_of(kept, "a", group))
            size = matrix.size * group.in_features
            da[matrix, component] = flat[at : at + size].reshape(matrix.size, group.in_features)
            at += size
    return sent


def _of(kept: Array, letter: str, group: Group) -> Array:
    """What is kept of one factor of a group's matrices, bool [l, R]."""
    kept_lR: Array = (kept if kept.ndim == 2 else kept["ba".index(letter)])[group.index]
    return kept_lR
