"""What every resolution of every vector would lose, and in which order bits are best spent.

Shapes: L matrices of a group, R rank, Q finest resolution in bits, N vectors over all groups (columns of B, then rows
of A, group by group). Column j of B weighs ||a_j||^2, row j of A ||b_j||^2, both of the client's end values.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from raysoft.codecs.measure.factors import Factors, Part
from raysoft.codecs.wire.rotated import SCALE_BITS, restore_rotated, rotate, round_rotated
from raysoft.types import Array

_TOGETHER = 1 << 20  # numbers in one array of losses


@dataclass(frozen=True)
class Graded:
    """One group: weighted errors of its vectors, and inner products of everything that an error is made of.

    Per matrix: the left Gram matrix is over the rounding errors of the columns of B at 0..Q bits (at 0 bits the whole
    change), then the columns of B; the right one over the rows of A, then their rounding errors.
    """

    errors_NQ: Array  # [N of this group, Q + 1]
    left: Array  # [L, R (Q + 2), R (Q + 2)]
    right: Array

    def error(self, bits_b: Array, bits_a: Array) -> float:
        """||B A - B' A'||^2 over the matrices, for resolutions [L, R] of the columns and rows.

        With E = B - B', F = A - A' the difference is E A + (B - E) F.
        """
        matrices, rank = bits_b.shape
        numbers = np.arange(rank)
        columns = np.concatenate([bits_b * rank + numbers, np.broadcast_to(numbers, bits_b.shape) - rank], axis=1)
        rows = np.concatenate([np.broadcast_to(numbers, bits_a.shape), (bits_a + 1) * rank + numbers], axis=1)
        at = np.arange(matrices)[:, None, None]
        left = self.left[at, columns[:, :, None], columns[:, None, :]]
        right = self.right[at, rows[:, :, None], rows[:, None, :]]
        # [E, B] -> [E, B - E], on both sides of the Gram matrix.
        left[:, rank:] -= left[:, :rank]
        left[:, :, rank:] -= left[:, :, :rank]
        return float(np.vdot(left, right))


@dataclass(frozen=True)
class Grades:
    """All vectors: groups, and the vector that gains a bit in every step, best error per bit first.

    After s steps `spent_S[s]` bits are values and scales, and `above_SQ[s, q]` vectors have more than q bits a value.
    """

    kind: str
    rank: int
    scale2: float
    sizes_N: Array
    groups: tuple[Graded, ...]
    order: Array
    spent_S: Array
    above_SQ: Array

    def resolutions(self, steps: int) -> Array:
        """Bits a value of every vector after so many steps, int64 [N]."""
        return np.bincount(self.order[:steps], minlength=len(self.sizes_N))

    def error(self, bits_N: Array) -> float:
        """The exact squared error in effective weights."""
        total, at = 0.0, 0
        for group in self.groups:
            size = len(group.errors_NQ) // len(self.kind)
            both = {"a": np.zeros(size, dtype=np.int64), "b": np.zeros(size, dtype=np.int64)}
            for letter in (c for c in "ba" if c in self.kind):
                both[letter] = bits_N[at : at + size]
                at += size
            total += group.error(both["b"].reshape(-1, self.rank), both["a"].reshape(-1, self.rank))
        return max(self.scale2 * total, 0.0)


def grade(factors: Factors, finest: int) -> Grades:
    """Round every vector at every resolution."""
    groups = tuple(_group(part, factors.kind, finest) for part in factors.parts)
    rank = factors.layout.rank
    widths = [
        np.full(len(part.group.index) * rank, width)
        for part in factors.parts
        for width in part.group.widths(factors.kind)
    ]
    sizes_N = np.concatenate(widths)
    errors_NQ = np.concatenate([group.errors_NQ for group in groups])
    slopes_NQ = _slopes(errors_NQ, sizes_N)
    # Slopes of a vector fall with its bits, so its own steps come in their order: 0 -> 1 bits, 1 -> 2, ...
    order = np.argsort(-slopes_NQ.ravel(), kind="stable")
    order = order[slopes_NQ.ravel()[order] > 0]
    vectors, level = np.divmod(order, finest)
    spent = np.concatenate([[0], (sizes_N[vectors] + SCALE_BITS * (level == 0)).cumsum()])
    above = np.zeros((len(order) + 1, finest), dtype=np.int64)
    above[np.arange(1, len(order) + 1), level] = 1
    return Grades(factors.kind, rank, factors.scale2, sizes_N, groups, vectors, spent, above.cumsum(axis=0))


def _group(part: Part, kind: str, finest: int) -> Graded:
    matrices, out, rank = part.db.shape
    # Many small matrices are worked on together, few large ones one after the other.
    together = max(1, _TOGETHER // (rank * (finest + 2) * max(out, part.da.shape[2])))
    pieces = [_some(part, slice(at, at + together), kind, finest) for at in range(0, matrices, together)]
    weighted = [np.concatenate([piece[0][k] for piece in pieces]) for k in range(len(kind))]
    left, right = (np.concatenate([piece[k] for piece in pieces]) for k in (1, 2))
    return Graded(np.concatenate([one.reshape(-1, finest + 1) for one in weighted]), left, right)


def _some(part: Part, of: slice, kind: str, finest: int) -> tuple[list[Array], Array, Array]:
    """Weighted errors [L, R, Q + 1] of columns and rows, as far as they travel, and both Gram matrices."""
    # The rotation is orthogonal and the same for vectors of one length, so inner products can be taken behind it.
    db, b = (rotate(np.swapaxes(x[of], -1, -2)) for x in (part.db, part.b0 + part.db))
    da, a = (rotate(x[of]) for x in (part.da, part.a0 + part.da))
    lost_b, lost_a = _losses(db, finest), _losses(da, finest)
    weighted = {
        "b": np.square(lost_b).sum(axis=3) * np.square(a).sum(axis=2)[:, None],
        "a": np.square(lost_a).sum(axis=3) * np.square(b).sum(axis=2)[:, None],
    }
    left = np.concatenate([lost_b.reshape(len(b), -1, b.shape[2]), b], axis=1)
    right = np.concatenate([a, lost_a.reshape(len(a), -1, a.shape[2])], axis=1)
    errors = [np.swapaxes(weighted[letter], 1, 2) for letter in "ba" if letter in kind]
    return errors, left @ np.swapaxes(left, 1, 2), right @ np.swapaxes(right, 1, 2)


def _losses(rotated: Array, finest: int) -> Array:
    """What 0..Q bits lose of rotated vectors [L, R, d]: float64 [L, Q + 1, R, d]."""
    lost = [rotated]
    for bits in range(1, finest + 1):
        lost.append(rotated - restore_rotated(*round_rotated(rotated, bits), bits))
    return np.stack(lost, axis=1)


def _slopes(errors_NQ: Array, sizes_N: Array) -> Array:
    """Error saved per bit by each further bit a value, on the convex minorant of each vector: float64 [N, Q].

    slope of step t = min over s <= t of max over e > t of the mean drop per bit between s and e.
    """
    levels = np.arange(errors_NQ.shape[1])
    cost = sizes_N[:, None] * levels + SCALE_BITS * (levels > 0)
    later = levels[:, None] < levels[None, :]
    bits = np.where(later, cost[:, None, :] - cost[:, :, None], 1)
    mean = np.where(later, (errors_NQ[:, :, None] - errors_NQ[:, None, :]) / bits, -np.inf)
    best = np.maximum.accumulate(mean[:, :, ::-1], axis=2)[:, :, ::-1]
    return np.diagonal(np.minimum.accumulate(best, axis=1)[:, :-1, 1:], axis1=1, axis2=2)
