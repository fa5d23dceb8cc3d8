"""The exact mean change of products, from the clients' own factors (the fold `Stack`), in any step of the server.

With the step eta the product is to go from B0 A0 to B0 A0 + eta sum_k mix_k (B_k A_k - B0 A0). That is a weighted sum
over the clients, weights eta mix_k, and over the start, weight 1 - eta sum_k mix_k, which is zero in the common case.
Shapes: K clients, N points (clients and where it counts the start), R rank, O out, I in.
"""

from __future__ import annotations

import numpy as np

from raysoft.methods.folds import MIX, STACK
from raysoft.types import Array, LoraPair, ServerState, Tensors

ROUNDING = 1e-12  # a weight of the start below this is the rounding of weights that sum to one


def points(server: ServerState, folded: Tensors, pair: LoraPair, step: float) -> tuple[Array, Array, Array]:
    """Weights [N], which sum to one, B [O, N R] and weighted A [N R, I], whose product is the new one: float64."""
    weights_N = step * folded[MIX]
    b, a = folded[STACK + pair.b], step * folded[STACK + pair.a]
    rest = 1.0 - float(weights_N.sum())
    if abs(rest) <= ROUNDING:
        return weights_N, b, a
    b0, a0 = (server.theta[name].astype(np.float64) for name in (pair.b, pair.a))
    return np.append(weights_N, rest), np.concatenate([b, b0], axis=1), np.concatenate([a, rest * a0])


def residual(weights_N: Array, b_stack: Array, a_stack: Array) -> tuple[Array, Array]:
    """Factors of sum_n w_n B_n A_n - (sum_n w_n B_n)(sum_n w_n A_n): [O, (N - 1) R] and [(N - 1) R, I].

    It is the covariance sum_n w_n (B_n - mean B)(A_n - A_m) for any m, whose own term vanishes; m is the heaviest.
    Takes weights that sum to one, and A with its weights.
    """
    points_N = len(weights_N)
    b_ONR = b_stack.reshape(len(b_stack), points_N, -1)
    a_NRI = a_stack.reshape(points_N, -1, a_stack.shape[1])
    heaviest = int(np.abs(weights_N).argmax())
    others = np.arange(points_N) != heaviest
    mean_b = np.einsum("n,onr->or", weights_N, b_ONR)
    left = (b_ONR - mean_b[:, None])[:, others]
    right = a_NRI[others] - weights_N[others, None, None] * (a_NRI[heaviest] / weights_N[heaviest])
    return left.reshape(len(b_stack), -1), right.reshape(-1, a_stack.shape[1])
