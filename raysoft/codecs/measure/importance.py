"""Which rank components matter: scores, orders and the exact error of every count.

A component j of a matrix is the pair (b_j, a_j); dropping it leaves the broadcast's (b0_j, a0_j) in place and loses
C_j = s (b_j a_j^T - b0_j a0_j^T). Everything is computed from norms and inner products in float64, in delta form.
The ideas are SOFT's (Kim and Choi, arXiv 2505.00333); `update` and `gram_greedy` are this project's.

* `norm`: ||b_j|| ||a_j||, the paper's. With orthogonal components and B0 = 0 it is the singular value.
* `update`: ||C_j||. Exact up to inner products between components.
* `gram_greedy`: component by component the largest exact drop of the error, from the Gram matrix of the C_j; within a
  matrix the better of this set and `update`'s is used, and the better of two ways to share a count among matrices, so
  its error never exceeds that of `update` at any count.

Across matrices (scope `model`) energies are divided by the bits of a component; scope `matrix` takes turns: every
matrix keeps the same number, up to one. Shapes: L matrices, R rank, N = L R components, m kept in one matrix.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from raysoft.codecs.measure.factors import Factors, Layout
from raysoft.types import Array

Importance = Literal["norm", "update", "gram_greedy"]
Scope = Literal["model", "matrix"]


@dataclass(frozen=True)
class Losses:
    """Inner products of what is lost, times s^2, [L, R, R] each.

    dropped[j, k] = <C_j, C_k>. Where values are rounded: rounded[j, k] = <Q_j, Q_k> and mixed[j, k] = <C_j, Q_k> with
    Q_j the rounding error of a kept component. noise_LR is the expected error of a randomly rounded kept component.
    """

    dropped: Array
    rounded: Array | None = None
    mixed: Array | None = None
    noise_LR: Array | None = None

    def table(self, perm_LR: Array) -> Array:
        """Error of keeping the first m = 0..R components of each matrix in this order: float64 [L, R + 1]."""
        errors = np.zeros((perm_LR.shape[0], perm_LR.shape[1] + 1))
        # Sums over the dropped block [m:, m:], accumulated from the small end.
        errors[:, :-1] = _diagonal(_sorted(self.dropped, perm_LR)[:, ::-1, ::-1].cumsum(1).cumsum(2))[:, ::-1]
        if self.rounded is not None and self.mixed is not None:
            errors[:, 1:] += _diagonal(_sorted(self.rounded, perm_LR).cumsum(1).cumsum(2))
            mixed = _sorted(self.mixed, perm_LR)[:, ::-1].cumsum(1)[:, ::-1].cumsum(2)
            errors[:, 1:-1] += 2.0 * np.diagonal(mixed, offset=-1, axis1=1, axis2=2)
        if self.noise_LR is not None:
            errors[:, 1:] += np.take_along_axis(self.noise_LR, perm_LR, axis=1).cumsum(1)
        return errors


@dataclass(frozen=True)
class Way:
    """Sets of every count: in step n the matrix steps_N[n] gains one more component."""

    steps_N: Array
    error_N1: Array  # error after 0..N steps


@dataclass(frozen=True)
class Ranking:
    """The outcome: for every count n which way is used; which order of two each (matrix, m) uses."""

    orders: tuple[Array, ...]  # [L, R] each
    choice_LM: Array  # order used by a matrix that keeps m: int [L, R + 1]
    ways: tuple[Way, ...]
    way_N1: Array

    @property
    def error_N1(self) -> Array:
        """Exact error of every count, float64 [N + 1]."""
        errors = np.stack([way.error_N1 for way in self.ways])
        error_N1: Array = errors[self.way_N1, np.arange(self.way_N1.size)]
        return error_N1

    def steps(self, count: int) -> Array:
        """The matrices of the kept components."""
        steps_N: Array = self.ways[self.way_N1[count]].steps_N[:count]
        return steps_N

    def kept(self, count: int) -> Array:
        """The kept components, bool [L, R]."""
        matrices, rank = self.orders[0].shape
        each_L = np.bincount(self.steps(count), minlength=matrices)
        place = np.arange(rank) < each_L[:, None]  # by position in the order
        kept = np.zeros((matrices, rank), dtype=bool)
        choice_L = self.choice_LM[np.arange(matrices), each_L]
        for number, order in enumerate(self.orders):
            use = choice_L == number
            inside = np.zeros((matrices, rank), dtype=bool)
            np.put_along_axis(inside, order, place, axis=1)
            kept[use] = inside[use]
        return kept


def norm_scores(factors: Factors) -> Array:
    """||b_j||^2 ||a_j||^2 of the client's own values, float64 [L, R]."""
    scores = np.empty((factors.layout.matrices, factors.layout.rank))
    for part in factors.parts:
        b, a = part.b0 + part.db, part.a0 + part.da
        scores[part.group.index] = (b * b).sum(1) * (a * a).sum(2)
    return scores


def rank_components(losses: Losses, scores_LR: Array, cost_L: Array, scope: Scope) -> Ranking:
    """Order by score; scores are energies (squared norms)."""
    order = np.argsort(-scores_LR, axis=1, kind="stable")
    table = losses.table(order)
    ratio = np.take_along_axis(scores_LR, order, axis=1) / cost_L[:, None]
    way = _way(_merge(ratio, scope), table)
    return Ranking((order,), np.zeros(table.shape, dtype=np.int64), (way,), np.zeros(way.error_N1.size, dtype=np.int64))


def rank_greedily(losses: Losses, cost_L: Array, scope: Scope) -> Ranking:
    """`gram_greedy`. Where components differ in size the counts of each matrix follow `update`, so that bits do too."""
    scores = np.diagonal(losses.dropped, axis1=1, axis2=2)
    by_update = rank_components(losses, scores, cost_L, scope)
    orders = (by_update.orders[0], _greedy_orders(losses.dropped))
    tables = np.stack([losses.table(order) for order in orders])
    choice = (tables[1] < tables[0]).astype(np.int64)
    best = np.minimum(tables[0], tables[1])
    ways = [_way(by_update.ways[0].steps_N, best)]
    if len(set(cost_L.tolist())) == 1:
        ways.append(_way(_merge(_pooled_slopes(best) / cost_L[:, None], scope), best))
    errors = np.stack([way.error_N1 for way in ways])
    return Ranking(orders, choice, tuple(ways), errors.argmin(axis=0))


def rank_as_ordered(losses: Losses, layout: Layout) -> Ranking:
    """The ranking that is the layout's order of all components."""
    matrices, rank = losses.dropped.shape[:2]
    assert layout.order_N is not None
    steps, component = np.divmod(layout.order_N, rank)
    order = np.stack([component[steps == matrix] for matrix in range(matrices)])
    table = losses.table(order)
    way = _way(steps, table)
    return Ranking((order,), np.zeros(table.shape, dtype=np.int64), (way,), np.zeros(way.error_N1.size, dtype=np.int64))


def _merge(ratio_LR: Array, scope: Scope) -> Array:
    """The matrix of every step: largest ratio first, a matrix's own steps in their order."""
    matrices, rank = ratio_LR.shape
    turn = np.broadcast_to(np.arange(rank), (matrices, rank)).ravel()
    order = np.argsort(-ratio_LR.ravel(), kind="stable") if scope == "model" else np.lexsort((-ratio_LR.ravel(), turn))
    matrix_N: Array = order // rank
    return matrix_N


def _way(steps_N: Array, table_LM: Array) -> Way:
    """Errors along a sequence of steps, summed from the small end."""
    matrices, rank = table_LM.shape[0], table_LM.shape[1] - 1
    # The k-th time a matrix appears it moves from k to k + 1 kept components.
    order = np.argsort(steps_N, kind="stable")
    drops = np.empty(matrices * rank)
    drops[order] = (table_LM[:, :-1] - table_LM[:, 1:]).ravel()
    error = np.empty(matrices * rank + 1)
    error[-1] = 0.0
    error[:-1] = drops[::-1].cumsum()[::-1]
    return Way(steps_N, np.maximum(error + table_LM[:, -1].sum(), 0.0))


def _greedy_orders(gram_LRR: Array) -> Array:
    """Per matrix: keep next what lowers the error 1_D^T G 1_D of the dropped set D the most; int [L, R]."""
    matrices, rank = gram_LRR.shape[:2]
    rows = np.arange(matrices)
    energy = np.diagonal(gram_LRR, axis1=1, axis2=2)
    inner = gram_LRR.sum(axis=2)  # <C_j, sum of dropped C>
    gone = np.zeros((matrices, rank))
    order = np.empty((matrices, rank), dtype=np.int64)
    for step in range(rank):
        pick = (2.0 * inner - energy - gone).argmax(axis=1)
        order[:, step] = pick
        gone[rows, pick] = np.inf
        inner = inner - gram_LRR[rows, :, pick]
    return order


def _pooled_slopes(table_LM: Array) -> Array:
    """Slopes of the convex minorant of each row of errors, float64 [L, R], positive and decreasing.

    slope of step t = min over s <= t of max over e > t of the mean drop between s and e.
    """
    size = table_LM.shape[1]
    start, end = np.arange(size)[:, None], np.arange(size)[None, :]
    gap = np.where(end > start, end - start, 1)
    mean = np.where(end > start, (table_LM[:, :, None] - table_LM[:, None, :]) / gap, -np.inf)
    best = np.maximum.accumulate(mean[:, :, ::-1], axis=2)[:, :, ::-1]
    return np.diagonal(np.minimum.accumulate(best, axis=1)[:, :-1, 1:], axis1=1, axis2=2)


def _sorted(gram_LRR: Array, perm_LR: Array) -> Array:
    rows = np.arange(gram_LRR.shape[0])[:, None, None]
    sorted_LRR: Array = gram_LRR[rows, perm_LR[:, :, None], perm_LR[:, None, :]]
    return sorted_LRR


def _diagonal(x: Array) -> Array:
    return np.diagonal(x, axis1=1, axis2=2)
