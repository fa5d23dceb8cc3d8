"""The values at which training starts, drawn by key."""

from __future__ import annotations

import numpy as np

from raysoft.rng import Rng
from raysoft.types import Array, ParamSpace, Tensors


def initial_theta(space: ParamSpace, head: Tensors, init: str, rng: Rng) -> dict[str, Array]:
    """Start of training: B = 0, A drawn, head from the base. Keyed per matrix; rank r gives the first r rows of r_max.

    `init`: "peft" = Kaiming-uniform with a = sqrt(5) (bound 1/sqrt(I)), "gaussian" = N(0, 1/I), "orthogonal" =
    orthonormal rows times the RMS row norm of the peft start.
    """
    theta: dict[str, Array] = {}
    for number, pair in enumerate(space.pairs):
        # Row by row, so that a smaller rank is a prefix of a larger one.
        rows, fan_in = space.rank, pair.in_features
        if init == "gaussian":
            a = rng.normal("lora_init", number, np.arange(rows), size=fan_in) / np.sqrt(fan_in)
        else:
            a = (2.0 * rng.uniform("lora_init", number, np.arange(rows), size=fan_in) - 1.0) / np.sqrt(fan_in)
        if init == "orthogonal":
            a = _gram_schmidt(a) * np.sqrt(1.0 / 3.0)
        theta[pair.a] = a.astype(np.float32)
        theta[pair.b] = np.zeros((pair.out_features, rows), dtype=np.float32)
    for name in sorted(space.always_sent):
        theta[name] = np.asarray(head[name], dtype=np.float32)
    return theta


def _gram_schmidt(rows: Array) -> Array:
    """Orthonormal rows whose first r depend on the first r inputs only (as far as the dimension allows)."""
    q, triangular = np.linalg.qr(rows.T)
    ortho = (q * np.where(np.diag(triangular) < 0, -1.0, 1.0)).T
    if ortho.shape[0] < rows.shape[0]:  # more rows than dimensions: the rest cannot be orthogonal
        rest = rows[ortho.shape[0] :]
        ortho = np.concatenate([ortho, rest / np.linalg.norm(rest, axis=1, keepdims=True)])
    return ortho
