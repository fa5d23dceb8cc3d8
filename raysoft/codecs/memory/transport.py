"""Error feedback that survives a change of coordinates: what is remembered is a change of the product, not of factors.

B A is the same for every B M, M^-1 A, so a memory of (dB, dA) means nothing once the server has turned the factors.
Here the unsent part of every round is kept as the change E of B A that it stands for, in low rank. At the next
participation E is expressed in the factors of that day: with A = A0 + dA the client's own rows, e_B = E A^T (A A^T)^-1
is the change of B whose effect is nearest to E. What no change of B can express, E (I - P_A), stays in memory until
the rows of A come round to it. So sent + memory = updates, in effective changes, up to the truncation to rank 2 R.

The memory is float64, "ef/<module>.left" [O, T] and "ef/<module>.right" [T, I]; a trained head is remembered as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from raysoft.codecs.base import Codec, Encoded
from raysoft.codecs.memory.fading import PREFIX, Fading, of_inner
from raysoft.kernels.lowrank import change_factors, product_norm2, product_svd
from raysoft.types import Array, Curve, LoraPair, ParamSpace, Payload, Tensors, Update, View

Product = tuple[Array, Array]
"""A low-rank matrix as left [O, T] times right [T, I]."""


@dataclass(frozen=True)
class Wanted:
    """What a client wants to send: update plus memory, and the part of the memory that its factors cannot express."""

    update: Mapping[str, Array]
    residual: Mapping[str, Product]
    residual_share: float  # of the memory's energy


@dataclass(frozen=True)
class TransportedFeedback:
    """A codec with a memory of effective changes around another codec."""

    inner: Codec
    space: ParamSpace
    fading: Fading

    def menu(self, update: Update, view: View, memory: Tensors) -> Curve:
        """The curve of update plus memory."""
        return self.inner.menu(self._wanted(update, view.start, memory).update, view, of_inner(memory))

    def encode(self, update: Update, view: View, memory: Tensors, units: int, rng: np.random.Generator) -> Encoded:
        """Encodes update plus memory; the relative error refers to that sum."""
        start = view.start
        wanted = self._wanted(update, start, memory)
        encoded = self.inner.encode(wanted.update, view, of_inner(memory), units, rng)
        sent = encoded.received
        factors = {name for pair in self.space.pairs for name in (pair.a, pair.b)}
        delivered, lost = dict(encoded.memory_if_delivered), dict(encoded.memory_if_lost)
        for name, value in wanted.update.items():
            if name not in factors:
                lost[PREFIX + name] = value
                delivered[PREFIX + name] = value - sent[name] if name in sent else value
        for pair in self.space.pairs:
            lost |= self._kept(pair, wanted, start, {})
            delivered |= self._kept(pair, wanted, start, sent)
        stats = {**encoded.stats, "memory_residual": np.array(wanted.residual_share)}
        return replace(encoded, memory_if_delivered=delivered, memory_if_lost=lost, stats=stats)

    def decode(self, payload: Payload, view: View, units: int) -> Update:
        """As the inner codec; the server knows nothing of the memory."""
        return self.inner.decode(payload, view, units)

    def _wanted(self, update: Update, start: Tensors, memory: Tensors) -> Wanted:
        """The update in float64 with the memory expressed in today's factors. ValueError where B does not move."""
        exact = {name: np.asarray(value, dtype=np.float64) for name, value in update.items()}
        products = {pair.module: product for pair in self.space.pairs if (product := _remembered(pair, memory))}
        moved = sum(float(product_norm2(*change_factors(*_change(p, exact, start)))) for p in self.space.pairs)
        energy = sum(float(product_norm2(*product)) for product in products.values())
        factor = self.fading.factor(energy, moved)
        residual, left_over = {}, 0.0
        for pair in self.space.pairs:
            if pair.module not in products:
                continue
            if pair.b not in exact:
                raise ValueError("error_feedback: transport needs updates that change B")
            left, right = factor * products[pair.module][0], products[pair.module][1]
            rows = start[pair.a].astype(np.float64) + exact.get(pair.a, 0.0)
            coordinates = np.linalg.lstsq(rows.T, right.T, rcond=1e-6)[0].T  # right ~ coordinates @ rows
            exact[pair.b] = exact[pair.b] + left @ coordinates
            residual[pair.module] = left, right - coordinates @ rows
            left_over += float(product_norm2(*residual[pair.module]))
        for name, value in exact.items():
            kept = memory.get(PREFIX + name)
            if kept is not None and kept.shape == value.shape:  # a trained head
                exact[name] = value + self.fading.decay * kept
        return Wanted(exact, residual, left_over / (factor * factor * energy) if factor * energy > 0 else 0.0)

    def _kept(self, pair: LoraPair, wanted: Wanted, start: Tensors, sent: Update) -> dict[str, Array]:
        """Memory of one matrix: what was wanted less what was sent, plus the residual; at most rank 2 R."""
        if pair.module not in wanted.residual and pair.a not in wanted.update and pair.b not in wanted.update:
            return {}  # only a head is trained: there is nothing to remember, and no change of B to express it in
        db, da, b0, a0 = _change(pair, wanted.update, start)
        sent_b, sent_a = (np.asarray(sent.get(name, 0.0), dtype=np.float64) for name in (pair.b, pair.a))
        left, right = change_factors(db - sent_b, da - sent_a, b0 + sent_b, a0 + sent_a)
        if pair.module in wanted.residual:
            more_left, more_right = wanted.residual[pair.module]
            left, right = np.concatenate([left, more_left], axis=1), np.concatenate([right, more_right])
        if not (np.isfinite(left).all() and np.isfinite(right).all()):
            return {}  # such an update is rejected anyway; the memory starts again
        u, sigma, vt = product_svd(left, right)
        most = 2 * a0.shape[0]
        name = PREFIX + pair.module
        return {f"{name}.left": u[:, :most] * sigma[:most], f"{name}.right": vt[:most]}


def _change(pair: LoraPair, update: Update, start: Tensors) -> tuple[Array, Array, Array, Array]:
    b0, a0 = start[pair.b].astype(np.float64), start[pair.a].astype(np.float64)
    return update.get(pair.b, np.zeros_like(b0)), update.get(pair.a, np.zeros_like(a0)), b0, a0


def _remembered(pair: LoraPair, memory: Tensors) -> Product | None:
    left, right = (memory.get(f"{PREFIX}{pair.module}.{side}") for side in ("left", "right"))
    return None if left is None or right is None else (left, right)
