"""What a federated fine-tuning method decides. One file per paper; see `soft.py` for the shape.

A method is built from its own frozen Config on every process and holds no state. Everything is numpy; torch appears
only inside the loss term that `local` may return.
"""

from __future__ import annotations

from typing import ClassVar, Literal, Protocol

import numpy as np

from raysoft.config import Positive, Section
from raysoft.rng import Rng
from raysoft.types import Array, Broadcast, ClientState, LocalJob, ParamSpace, Reception, ServerState, Tensors, Update


class MethodConfig(Section):
    """Options every method has."""

    server_lr: Positive = 1.0


class Method(Protocol):
    """See `design` §3. `needs` says whether aggregation wants one sum or the single updates."""

    needs: ClassVar[Literal["sum", "updates"]]

    def broadcast(self, server: ServerState, tick: int) -> Broadcast:
        """What the coordinator sends to everybody."""
        ...

    def local(self, start: Tensors, client: ClientState, steps: int, tick: int) -> LocalJob:
        """What one client trains. `start` is the broadcast cut to the client's rank."""
        ...

    def upload(self, start: Tensors, end: Tensors, client: ClientState) -> tuple[Update, ClientState]:
        """The change that a client wants to send, before any compression."""
        ...

    def contribute(self, received: Update) -> Tensors:
        """What one decoded update adds to the sum (at r_max); linear."""
        ...

    def aggregate(self, server: ServerState, received: Reception, tick: int) -> ServerState:
        """The next global model."""
        ...


def initial_theta(space: ParamSpace, head: Tensors, init: str, rng: Rng) -> dict[str, Array]:
    """Start of training: B = 0, A drawn, head from the base. Keyed per matrix; rank r gives the first r rows of r_max.

    `init`: "peft" = Kaiming-uniform with a = sqrt(5) (bound 1/sqrt(I)), "gaussian" = N(0, 1/I), "orthogonal" =
    orthonormal rows times the RMS row norm of the peft start.
    """
    theta: dict[str, Array] = {}
    for number, pair in enumerate(space.pairs):
        # Row by row, so that a smaller rank is a prefix of a larger one.
        rows, fan_in = space.shapes[pair.a]
        if init == "gaussian":
            a = rng.normal("lora_init", number, np.arange(rows), size=fan_in) / np.sqrt(fan_in)
        else:
            a = (2.0 * rng.uniform("lora_init", number, np.arange(rows), size=fan_in) - 1.0) / np.sqrt(fan_in)
        if init == "orthogonal":
            a = _gram_schmidt(a) * np.sqrt(1.0 / 3.0)
        theta[pair.a] = a.astype(np.float32)
        theta[pair.b] = np.zeros(space.shapes[pair.b], dtype=np.float32)
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


def broadcast_all(server: ServerState) -> Broadcast:
    """Everything that is trained."""
    return Broadcast(version=server.version, common=server.theta, model=server.model, base_version=server.base_version)


def downlink_bits(start: Tensors) -> int:
    """Bits of the values a client receives, as float32."""
    return 32 * int(sum(value.size for value in start.values()))


def cut_to_rank(theta: Tensors, space: ParamSpace, rank: int) -> dict[str, Array]:
    """The part of the global values that a client of a smaller rank holds (views, no copies)."""
    if rank >= space.rank:
        return dict(theta)
    cut = dict(theta)
    for pair in space.pairs:
        cut[pair.a] = theta[pair.a][:rank]
        cut[pair.b] = theta[pair.b][:, :rank]
    return cut


def pad_to_rank(update: Update, space: ParamSpace) -> dict[str, Array]:
    """A client's update in the server's layout: missing rank components are zero."""
    return {name: _padded(value, space.shapes[name]) for name, value in update.items()}


def _padded(value: Array, shape: tuple[int, ...]) -> Array:
    if value.shape == shape:
        return value
    full = np.zeros(shape, dtype=value.dtype)
    full[tuple(slice(0, n) for n in value.shape)] = value
    return full


def difference(start: Tensors, end: Tensors, trainable: dict[str, bool] | None = None) -> dict[str, Array]:
    """end - start, in float64 before rounding to float32 once; frozen parameters are left out."""
    return {
        name: (value.astype(np.float64) - start[name].astype(np.float64)).astype(np.float32)
        for name, value in end.items()
        if trainable is None or trainable[name]
    }


def add_sum(server: ServerState, sums: Tensors | None, server_lr: float) -> ServerState:
    """theta + server_lr * sum, in float64, rounded once. No sum (nobody arrived) leaves theta unchanged."""
    if sums is None:
        return server
    theta = {
        name: (value.astype(np.float64) + server_lr * sums[name]).astype(np.float32) if name in sums else value
        for name, value in server.theta.items()
    }
    return ServerState(
        theta=theta,
        version=server.version + 1,
        extra=server.extra,
        model=server.model,
        base_version=server.base_version,
        base_log=server.base_log,
    )
