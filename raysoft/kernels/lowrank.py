"""Kernels on products of thin factors. No O x I matrix is ever formed.

Shapes: B [..., O, R], A [..., R, I]; leading dimensions are stacks of matrices. All results are float64.
A change of a product is taken in delta form, `BA - B0 A0 = (B - B0) A + B0 (A - A0)`: the difference of two large
norms would lose most digits of a small update.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from raysoft.types import Array

Change = tuple[Array, Array, Array, Array]
"""(dB, dA, B0, A0): the product goes from B0 A0 to (B0 + dB)(A0 + dA)."""


def corner(shape: Sequence[int]) -> tuple[slice, ...]:
    """Where an array of this shape lies in a larger one: a client of a smaller rank has the first components."""
    return tuple(slice(0, n) for n in shape)


def padded(value: Array, shape: tuple[int, ...]) -> Array:
    """`value` in the corner of an array of zeros; itself where it has that shape."""
    if value.shape == shape:
        return value
    full = np.zeros(shape, dtype=value.dtype)
    full[corner(value.shape)] = value
    return full


def product_inner(B: Array, A: Array, B1: Array, A1: Array) -> Array:
    """Frobenius inner product <B A, B1 A1>, shape [...]; O((O + I) R R1)."""
    left = np.swapaxes(_f64(B), -1, -2) @ _f64(B1)
    right = _f64(A) @ np.swapaxes(_f64(A1), -1, -2)
    return (left * right).sum(axis=(-1, -2))


def product_norm2(B: Array, A: Array) -> Array:
    """Squared Frobenius norm of B A, shape [...]: ||BA||^2 = <B^T B, A A^T>."""
    return np.maximum(product_inner(B, A, B, A), 0.0)


def change_norm2(dB: Array, dA: Array, B0: Array, A0: Array) -> Array:
    """||(B0 + dB)(A0 + dA) - B0 A0||_F^2, shape [...], from the changes (delta form)."""
    left, right = change_factors(dB, dA, B0, A0)
    return product_norm2(left, right)


def change_factors(dB: Array, dA: Array, B0: Array, A0: Array) -> tuple[Array, Array]:
    """The change of a product as one product of rank 2R: [dB, B0] [..., O, 2R] times [A0 + dA; dA] [..., 2R, I]."""
    dA = _f64(dA)
    return np.concatenate([_f64(dB), _f64(B0)], axis=-1), np.concatenate([_f64(A0) + dA, dA], axis=-2)


def component_gram(first: Change, second: Change | None = None) -> Array:
    """Inner products of the components' changes, shape [..., R, R].

    Component j changes the product by C_j = b_j a_j^T - b0_j a0_j^T = db_j a_j^T + b0_j da_j^T. Entry (j, k) is
    <C_j, C'_k>; without a second change <C_j, C_k>, so that the squared norm of a sum over a set D of components is the
    sum over the D x D block.
    """
    rank = first[0].shape[-1]
    factors = change_factors(*first)
    return paired_gram(factors, factors if second is None else change_factors(*second), rank)


def paired_gram(first: tuple[Array, Array], second: tuple[Array, Array], rank: int) -> Array:
    """<C_j, C'_k> for components that are sums of T products, shape [..., rank, rank].

    A factor pair is [..., O, T rank] and [..., T rank, I]; component j is the sum over t of column and row t rank + j.
    """
    pairs = (np.swapaxes(first[0], -1, -2) @ second[0]) * (first[1] @ np.swapaxes(second[1], -1, -2))
    return pairs.reshape(*pairs.shape[:-2], -1, rank, pairs.shape[-1] // rank, rank).sum(axis=(-4, -2))


def product_svd(B: Array, A: Array) -> tuple[Array, Array, Array]:
    """Thin SVD of B A: U [..., O, R'], singular values [..., R'], V^T [..., R', I].

    QR of both factors and an SVD of the small core: O((O + I) R^2 + R^3).
    """
    q_left, r_left = np.linalg.qr(_f64(B))
    q_right, r_right = np.linalg.qr(np.swapaxes(_f64(A), -1, -2))
    u, sigma, vt = np.linalg.svd(r_left @ np.swapaxes(r_right, -1, -2), full_matrices=False)
    return q_left @ u, sigma, vt @ np.swapaxes(q_right, -1, -2)


def svd_gauge(
    B: Array, A: Array, row_norm: float, draws: Array, floor: float = 1e-6, rank: int | None = None
) -> tuple[Array, Array]:
    """The pair (B', A') with B' A' = B A whose components are the singular ones, largest first: float64.

    B' = U Sigma / c and A' = c V^T with c = `row_norm`, so that all rows of A' are orthogonal and of norm c, and
    ||b'_j|| ||a'_j|| is the j-th singular value. Directions below `floor` times the largest singular value have
    b'_j = 0; their rows complete the others to an orthogonal set, from the rows of `draws` [R, I] (any numbers in
    general position). One matrix: B [O, R], A [R, I]. Rows beyond the I that can be orthogonal repeat the first ones.
    `rank`: how many components are kept, the largest, and how many rows `draws` has; None: R.
    """
    width = A.shape[1]
    rank = A.shape[0] if rank is None else rank
    u, sigma, vt = product_svd(B, A)
    used = min(rank, int((sigma > floor * sigma[0]).sum()))
    u, sigma, vt = u[:, :used], sigma[:used], vt[:used]
    # A singular pair has two signs: the largest entry of its row is made positive.
    signs = np.sign(np.take_along_axis(vt, np.abs(vt).argmax(axis=1)[:, None], axis=1))
    u, vt = u * signs[:, 0], vt * signs
    free = min(rank, width) - used
    if free:
        rest = _f64(draws)[:free]
        basis, _ = np.linalg.qr(np.concatenate([vt, rest - rest @ vt.T @ vt]).T)
        vt = np.concatenate([vt, basis.T[used:]])
    b = np.zeros((B.shape[0], rank))
    b[:, :used] = u * (sigma / row_norm)
    return b, row_norm * vt[np.arange(rank) % len(vt)]


def _f64(x: Array) -> Array:
    return np.asarray(x, dtype=np.float64)
