"""The re-orthogonalised broadcast: the server's factors in their singular coordinates.

B A is the same for every B M, M^-1 A. After an aggregation the server may choose the coordinates in which components
are orthogonal and their norms are singular values, so that dropping some of them loses the least (Eckart-Young) and
clients of a smaller rank hold the largest ones. Memories that are tied to the coordinates do not survive this.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from raysoft.kernels.lowrank import svd_gauge
from raysoft.rng import Rng
from raysoft.types import Array, LoraPair, ParamSpace, ServerState

PREFIX = "row_norm/"


def reorthogonalized(before: ServerState, after: ServerState, space: ParamSpace) -> ServerState:
    """`after` in its singular coordinates, the products unchanged up to float32.

    Rows of A keep the RMS row norm that they had at the start of training, which the first call finds in `before` and
    leaves in `extra`. Directions that carry nothing get rows drawn by the key (version, matrix): B is zero there, so
    they change no result until they are trained. Values that are not finite stay as they are.
    """
    theta, extra = dict(after.theta), dict(after.extra)
    for number, pair in enumerate(space.pairs):
        extra.setdefault(PREFIX + pair.module, _row_norm(before, pair))
        b, a = theta[pair.b], theta[pair.a]
        if np.isfinite(b).all() and np.isfinite(a).all():
            draws = Rng(0)("gauge", after.version, number).standard_normal(a.shape)
            b, a = svd_gauge(b, a, float(extra[PREFIX + pair.module]), draws)
            theta[pair.b], theta[pair.a] = b.astype(np.float32), a.astype(np.float32)
    return replace(after, theta=theta, extra=extra)


def _row_norm(server: ServerState, pair: LoraPair) -> Array:
    """RMS norm of the rows of A, float64 []."""
    norm: Array = np.sqrt((server.theta[pair.a].astype(np.float64) ** 2).sum(axis=1).mean())
    return norm
