"""LoRA-FAIR's own objective (arXiv 2411.14961): B turned until B A points where the mean of the products does.

With W* = sum_k p_k B_k A_k of norm w, M = W* A~^T, G = A~ A~^T and B' = B~ + dB, the cosine is <M, B'> / (w v) with
v^2 = <B' G, B'>: nothing of size O x I. All steps stay in the columns of B~ and M, so they are taken there. Shapes: R
rank, K clients, O out, I in.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from raysoft.kernels.lowrank import product_norm2
from raysoft.types import Array

ROUNDING = 1e-12  # a gain below this is the rounding of a cosine


@dataclass(frozen=True)
class Misfit:
    """1 - <B', M> / (w v) + weight ||D||, v^2 = <B' G, B'>, of D = dB / ||B~|| [O, R]: the paper's objective."""

    b: Array
    m: Array
    gram: Array
    norm: float  # w, of the mean product
    weight: float

    def __call__(self, more: Array) -> tuple[float, Array]:
        """Value and slope; the slope of ||D|| at 0 is 0. Where v = 0 there is no cosine: 1, as if orthogonal."""
        size, length = float(np.linalg.norm(self.b)), float(np.linalg.norm(more))
        b = self.b + size * more
        b_gram, inner = b @ self.gram, float((b * self.m).sum())
        v = float(np.sqrt(max((b_gram * b).sum(), 0.0)))
        if v == 0.0:
            return 1.0 + self.weight * length, np.zeros_like(more)
        slope = size * (inner * b_gram / v**2 - self.m) / (self.norm * v)
        pull = self.weight * more / length if length > 0 else 0.0
        return 1.0 - inner / (self.norm * v) + self.weight * length, slope + pull


def turned(b: Array, a: Array, b_stack: Array, a_stack: Array, weight: float, steps: int, rate: float) -> Array:
    """dB as in `correction`, by gradient steps from dB = 0, the best of all; 0 where B~ A~ or W* is zero."""
    m, gram, norm = b_stack @ (a_stack @ a.T), a @ a.T, float(np.sqrt(product_norm2(b_stack, a_stack)))
    if norm == 0.0 or not (b @ gram * b).sum() > 0.0:
        return np.zeros_like(b)
    basis, _ = np.linalg.qr(np.concatenate([b, m], axis=1))  # no step leaves these columns
    misfit = Misfit(basis.T @ b, basis.T @ m, gram, norm, weight)
    more = best = np.zeros_like(misfit.b)
    value, slope = lowest, _ = misfit(more)
    for _ in range(steps):
        more = more - rate * slope
        value, slope = misfit(more)
        if value < lowest - ROUNDING:
            lowest, best = value, more
    moved: Array = float(np.linalg.norm(b)) * basis @ best
    return moved
