"""One order of the rank components for all clients of a round: a shared mask that nobody has to send.

Where every client chooses its own components, each mask costs bits, and the mean of a component mixes those who sent
it with those who did not. Here the server orders all components before training and broadcasts the order; a client
that may send n components sends the first n (of those that its rank has). The order follows from what the server
knows anyway:

* components that have never arrived come first, in an order drawn by the key (version);
* then the largest priority score_j / max score + bonus * age_j. The age counts the aggregations since j last arrived.
  The score is the effective change per bit that the aggregation made through j, ||db_j a_j^T + b0_j da_j^T|| / (o + i),
  forgotten exponentially over the rounds in which j arrived; what did not arrive keeps its score.

So with n components a round each arrives at least every 1 / bonus + N / n + 1 rounds: with that head start nobody
can be overtaken twice by the same component. Shapes: L matrices, R = r_max, N = L R, numbered matrix * R + j.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from math import factorial

import numpy as np

from raysoft.kernels.lowrank import change_norm2
from raysoft.rng import Rng
from raysoft.types import Array, ParamSpace, ServerState, Tensors

SCORE, AGE = "shared_order/score", "shared_order/age"
NEVER = -1  # age of a component that has not arrived yet


def shared_order(server: ServerState, space: ParamSpace, age_bonus: float) -> Array:
    """All components, the ones most wanted first: int64 [N], a function of the server's state alone."""
    score_N, age_N = _known(server, space)
    top = score_N.max(initial=0.0)
    never = age_N == NEVER
    priority = np.where(never, 0.0, (score_N / top if top > 0 else score_N) + age_bonus * age_N)
    ties = Rng(0)("shared_order", server.version).random(len(score_N))
    return np.lexsort((ties, -priority, ~never))


@lru_cache(maxsize=64)
def order_bits(components: int) -> int:
    """Bits that say one order of so many components, ceil(log2 N!) (its number among all orders)."""
    return (factorial(components) - 1).bit_length()


def observed(
    before: ServerState, after: ServerState, space: ParamSpace, change: Tensors, sent_counts: Array, memory: float
) -> ServerState:
    """`after` with scores and ages brought forward by the mean `change` of `before`; `memory` of a score is kept.

    `sent_counts` [N]: of how many clients each component arrived.
    """
    score_N, age_N = _known(before, space)
    sent = sent_counts > 0
    # An overflow is no reason to send a component for ever.
    new = np.nan_to_num(_change_per_bit(before, space, change), nan=0.0, posinf=0.0)
    score_N = np.where(sent, np.where(age_N == NEVER, new, memory * score_N + (1.0 - memory) * new), score_N)
    age_N = np.where(sent, 0, np.where(age_N == NEVER, NEVER, age_N + 1))
    return replace(after, extra={**after.extra, SCORE: score_N, AGE: age_N})


def _known(server: ServerState, space: ParamSpace) -> tuple[Array, Array]:
    """Scores float64 [N] and ages int64 [N]."""
    total = len(space.pairs) * space.rank
    score_N, age_N = server.extra.get(SCORE), server.extra.get(AGE)
    if score_N is None or age_N is None:
        return np.zeros(total), np.full(total, NEVER)
    return score_N, age_N


def _change_per_bit(before: ServerState, space: ParamSpace, change: Tensors) -> Array:
    """||C_j|| / (o + i) of the mean change, up to a factor common to all components: float64 [N].

    A factor that was not trained has not changed, and costs nothing.
    """
    rows = []
    for pair in space.pairs:
        b0, a0 = before.theta[pair.b], before.theta[pair.a]
        # A component is a matrix of rank one: [R, O, 1] times [R, 1, I].
        db, b0 = (np.swapaxes(x, 0, 1)[:, :, None] for x in (change.get(pair.b, np.zeros_like(b0)), b0))
        da, a0 = (x[:, None, :] for x in (change.get(pair.a, np.zeros_like(a0)), a0))
        width = pair.out_features * (pair.b in change) + pair.in_features * (pair.a in change)
        with np.errstate(over="ignore", invalid="ignore"):
            rows.append(np.sqrt(change_norm2(db, da, b0, a0)) / max(width, 1))
    return np.concatenate(rows) if rows else np.zeros(0)
