"""An update in units of the weights it changes, rounded with one step for the whole model.

An entry of column b_j is measured in ||a_j||, an entry of row a_j in ||b_j||: of the client's own column where errors
are told, of the decoded column where values are rounded, since that is what the reader knows. Entries stand block by
block: all columns of B, group by group, then all rows of A. Shapes: P_b entries of B, P_a of A, M blocks; L, R, O, I
as in factors.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from raysoft.codecs.measure.factors import Factors, Layout, Sent
from raysoft.codecs.wire.symbols import Symbols, symbol_bits
from raysoft.types import Array

Gain = Literal["projection", "balanced", "unbiased"]
COHERENCE = 4.0  # `balanced`: updates whose common part is as strong as that of this many clients pulling together
COARSEST = 8.0  # the first step, in units of the root mean square entry
DEAD_ZONE = 0.6  # a magnitude m + DEAD_ZONE steps or more is read as m + 1
KIND_BITS, FLOAT_BITS = 2, 32
_RATIO = 2.0 ** (-1.0 / 3.0)
_NEGLIGIBLE = 1.0 / 64.0  # below this share of the entries of A, those of B do not set the steps
_LARGEST = 2.0**20  # no magnitude is larger: the bits of an update are bounded, whatever it holds
_FLOAT_MAX = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Level:
    """An update rounded with one step: step and gains as float32 numbers, magnitudes [P_b + P_a], bits, error."""

    step: float
    gains: tuple[float, ...]
    magnitudes: Array  # whole numbers, float64
    bits: int
    error: float


@dataclass(frozen=True)
class Worth:
    """What entries are worth as far as the broadcast tells: ||a_j|| of every group [L, R], and lengths of blocks."""

    factors: Factors
    norms_LR: tuple[Array, ...]
    lengths_b: Array
    lengths_a: Array

    @classmethod
    def of(cls, factors: Factors) -> Worth:
        """Of the broadcast that `factors` starts from."""
        norms = tuple(np.linalg.norm(part.a0, axis=2) for part in factors.parts)
        lengths = (block_lengths(factors.layout, letter if letter in factors.kind else "") for letter in "ba")
        return cls(factors, norms, *lengths)

    def columns(self) -> Array:
        """Of every entry of B, [P_b]."""
        return np.repeat(_flat(self.norms_LR), self.lengths_b)

    def rows(self, columns: Array | None) -> Array:
        """Of the entries of every row of A by the decoded columns [P_b] (None: by the client's own), [blocks of A]."""
        if columns is None:
            return _flat([np.linalg.norm(part.b0 + part.db, axis=1) for part in self.factors.parts])
        changes = zip(self.factors.parts, self.changes(columns), strict=True)
        return _flat([np.linalg.norm(np.swapaxes(part.b0, 1, 2) + db, axis=2) for part, db in changes])

    def changes(self, columns: Array) -> list[Array]:
        """The change of B of every group that entries [P_b] in units stand for, [L, R, O]."""
        out, at = [], 0
        for part, norm in zip(self.factors.parts, self.norms_LR, strict=True):
            count, width, rank = part.b0.shape
            out.append(columns[at : at + part.b0.size].reshape(count, rank, width) / _divisor(norm)[:, :, None])
            at += part.b0.size
        return out


@dataclass(frozen=True)
class Entries:
    """A client's entries in units, and what is the same at every step."""

    worth: Worth
    columns: Array  # entries of dB in units [P_b]
    rows: Array  # magnitudes of dA [P_a]
    own: Array  # what those are worth by the client's own columns [P_a]
    units: Array  # magnitudes in units, of B and of A [P_b + P_a]
    negative: Array  # bool [P_b + P_a]
    rms: float
    energy: float

    @classmethod
    def of(cls, factors: Factors) -> Entries:
        """Of an update."""
        worth, kind = Worth.of(factors), factors.kind
        b = _flat([np.swapaxes(part.db, 1, 2) for part in factors.parts]) if "b" in kind else np.zeros(0)
        a = _flat([part.da for part in factors.parts]) if "a" in kind else np.zeros(0)
        columns = b * worth.columns() if "b" in kind else b
        own = np.repeat(worth.rows(None), worth.lengths_a) if "a" in kind else a
        units = a * own
        sizes = _rms(columns), _rms(units)
        rms = sizes[0] if sizes[0] > _NEGLIGIBLE * sizes[1] else sizes[1]
        energy = float(columns @ columns + units @ units)
        whole = np.abs(np.concatenate([columns, units]))
        return cls(worth, columns, np.abs(a), own, whole, np.concatenate([b, a]) < 0, rms, energy)

    def level(self, number: int, gain: Gain) -> Level:
        """The update at a step, 0 the coarsest."""
        kind, edge = self.worth.factors.kind, self.columns.size
        size = COARSEST * self.rms * _RATIO**number
        step = float(np.float32(size)) if size <= _FLOAT_MAX else 0.0  # beyond what can be told nothing is sent
        gains, magnitudes, error, decoded = [], [], 0.0, None
        if "b" in kind:
            absolute = self.units[:edge]
            q, gain_b = _round(absolute, step, gain)
            error += _error(absolute, q, gain_b * step)
            decoded = np.copysign(q, self.columns) * (gain_b * step)
            gains.append(gain_b)
            magnitudes.append(q)
        if "a" in kind:
            norms, lengths = self.worth.rows(decoded), self.worth.lengths_a
            q, gain_a = _round(self.rows * np.repeat(norms, lengths), step, gain)
            ratio = self.own / np.repeat(_divisor(norms), lengths)
            error += _error(self.units[edge:], q * ratio, gain_a * step)
            gains.append(gain_a)
            magnitudes.append(q)
        whole = np.concatenate(magnitudes)
        bits = KIND_BITS + FLOAT_BITS * (1 + len(gains)) + symbol_bits(Symbols(whole, self._lengths))
        return Level(step, tuple(gains), whole, bits, min(error, self.energy))

    def symbols(self, level: Level) -> Symbols:
        """The signed integers of a level."""
        return Symbols(np.where(self.negative, -level.magnitudes, level.magnitudes).astype(np.int64), self._lengths)

    @cached_property
    def _lengths(self) -> Array:
        return np.concatenate([self.worth.lengths_b, self.worth.lengths_a])


def block_lengths(layout: Layout, kind: str) -> Array:
    """Entries of every block of a kind of update, int64 [M]."""
    b = [np.full(len(g.index) * layout.rank, g.out_features) for g in layout.groups] if "b" in kind else []
    a = [np.full(len(g.index) * layout.rank, g.in_features) for g in layout.groups] if "a" in kind else []
    return np.concatenate([*b, *a]).astype(np.int64) if b or a else np.zeros(0, dtype=np.int64)


def dequantise(factors: Factors, step: float, gains: tuple[float, ...], values: Array) -> Sent:
    """What both ends read, float32, from integers [P_b + P_a]. Values beyond float32 become its largest number.

    `factors` gives the kind and the broadcast; where the kind has B, the update itself is not used.
    """
    worth, kind = Worth.of(factors), factors.kind
    q = values.astype(np.float64)
    edge = int(worth.lengths_b.sum())
    columns = q[:edge] * (gains[0] * step) if "b" in kind else None
    changes = worth.changes(columns) if columns is not None else None
    rows = np.zeros(0)
    if "a" in kind:
        rows = q[edge:] * (gains[-1] * step) / np.repeat(_divisor(worth.rows(columns)), worth.lengths_a)
    sent: Sent = []
    at = 0
    for number, part in enumerate(factors.parts):
        db, da = np.zeros(part.b0.shape, np.float32), np.zeros(part.a0.shape, np.float32)
        if changes is not None:
            db = _float32(np.swapaxes(changes[number], 1, 2))
        if "a" in kind:
            da = _float32(rows[at : at + da.size].reshape(da.shape))
            at += da.size
        sent.append((db, da))
    return sent


def _round(x: Array, step: float, gain: Gain) -> tuple[Array, float]:
    """Magnitudes [P] as whole steps with a dead zone, float64, and the gain of the reader as a float32 number."""
    if step <= 0.0 or not x.size:
        return np.zeros(x.size), 0.0
    y = x / step
    q = y + (1.0 - DEAD_ZONE)
    np.minimum(np.floor(q, out=q), _LARGEST, out=q)
    inner, size, energy = float(y @ q), float(q @ q), float(y @ y)
    if inner <= 0.0:
        return np.zeros(x.size), 0.0
    g = energy / inner
    if gain != "unbiased":
        excess = max(energy * size / inner**2 - 1.0, 0.0)  # D; projection is C = 1
        coherence = COHERENCE if gain == "balanced" else 1.0
        g *= coherence / (coherence + excess)
    return q, float(np.float32(min(g, _FLOAT_MAX)))


def _error(x: Array, q: Array, factor: float) -> float:
    """Least squared error that any gain leaves: the sparsification error proper, whatever the reader's gain."""
    qq = float(q @ q)
    return max(float(x @ x) - (float(x @ q) ** 2 / qq if qq > 0 and factor > 0 else 0.0), 0.0)


def _divisor(norm: Array) -> Array:
    """The norm, or infinity for zero: an entry that is worth nothing is read as zero."""
    return np.where(norm > 0, norm, np.inf)


def _rms(x: Array) -> float:
    return math.sqrt(float(x @ x) / max(x.size, 1))


def _flat(parts: list[Array] | tuple[Array, ...]) -> Array:
    return np.concatenate([part.reshape(-1) for part in parts]) if parts else np.zeros(0)


def _float32(x: Array) -> Array:
    return x.clip(-_FLOAT_MAX, _FLOAT_MAX).astype(np.float32)
