"""Entropy-coded scalar quantisation of the factors in units of the weights they change: SOFT taken to its rate limit.

An entry of column b_j moves the product by ||a_j||, an entry of row a_j by ||b_j||. Entries are measured in these units
and rounded with one step for the whole model; then every bit is spent where it lowers the error in effective weights
most (reverse water-filling; exact where the rows of A are orthogonal, which is what SOFT works for). A component whose
entries all round to zero is dropped, so sparsification is the coarse end of this codec. ECSQ with a dead zone: Sullivan,
IEEE Trans. Inf. Theory 42(5), 1996.

Payload: which entries are not zero, component by component, in ceil(log2 prod C(length, count)) bits; signs; magnitudes.
Units are steps, a third of an octave apart. Values are read with one gain a factor: `projection` leaves the least error
of one client, `unbiased` keeps the client's step length (<u, sent> = ||u||^2, as in DRIVE, Vargaftik et al., NeurIPS
2021), which suits a mean over many clients whose errors differ but explodes at the coarsest steps; `balanced` (default)
is the Wiener gain between the two: unbiased x C / (C + D) for an unbiased relative error D and C = 4.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np
from pydantic import model_validator

from raysoft.codecs.base import Codec, CodecConfig, Encoded
from raysoft.codecs.bits import BitReader, BitWriter
from raysoft.codecs.curves import convex_curve
from raysoft.codecs.error_feedback import wrap
from raysoft.codecs.factors import KINDS, Factors, Layout, Sent, client_rank, read_update, write_update, zeros
from raysoft.codecs.quantizer import ValueCoder, Values
from raysoft.codecs.scheme import sent_components
from raysoft.codecs.symbols import Symbols, read_symbols, symbol_bits, write_symbols
from raysoft.types import Array, Curve, ParamSpace, Payload, Tensors, Update

Gain = Literal["projection", "balanced", "unbiased"]
COHERENCE = 4.0  # `balanced`: updates whose common part is as strong as that of this many clients pulling together
LEVELS = 18
COARSEST = 8.0  # the first step, in units of the root mean square entry
_RATIO = 2.0 ** (-1.0 / 3.0)
DEAD_ZONE = 0.6  # a magnitude m + DEAD_ZONE steps or more is read as m + 1
_KIND_BITS, _FLOAT_BITS = 2, 32


class Config(CodecConfig):
    """How received values are scaled. The step follows from the units, so `bits_per_value` has no meaning here."""

    gain: Gain = "balanced"

    @model_validator(mode="after")
    def _no_value_bits(self) -> Config:
        if self.bits_per_value != 32:
            raise ValueError(f"bits_per_value: ecsq spends bits by itself, leave it at 32, got {self.bits_per_value}")
        return self


@dataclass(frozen=True)
class Ecsq:
    """See the module."""

    space: ParamSpace
    gain: Gain
    head_coder: ValueCoder
    superposable: ClassVar[bool] = False
    layouts: dict[int, Layout] = field(default_factory=dict, compare=False, repr=False)  # a cache, never a state

    def layout(self, rank: int) -> Layout:
        """The parameter space at this rank."""
        if rank not in self.layouts:
            self.layouts[rank] = Layout(self.space, rank)
        return self.layouts[rank]

    def menu(self, update: Update, start: Tensors, memory: Tensors) -> Curve:
        """Bits are exact; errors are those of the entries in their units, without cross terms between components."""
        layout = self.layout(client_rank(self.space, start))
        factors = read_update(layout, update, start)
        levels = self._levels(factors, LEVELS)
        bits = np.array([0, *_increasing([level.bits for level in levels])])
        energy = levels[0].energy if levels else 0.0
        errors = np.array([energy, *(level.error for level in levels)]) * factors.scale2
        return convex_curve(self._head_bits(layout), bits, errors)

    def encode(
        self, update: Update, start: Tensors, memory: Tensors, units: int, mask: Array | None, rng: np.random.Generator
    ) -> Encoded:
        """The payload at step number `units`. Raises ValueError for a step that is not there, or a given mask."""
        if mask is not None:
            raise ValueError("this codec chooses its own support; only rank_components follows a given mask")
        if not 0 <= units <= LEVELS:
            raise ValueError(f"units must be 0..{LEVELS}, got {units}")
        layout = self.layout(client_rank(self.space, start))
        factors = read_update(layout, update, start)
        writer = BitWriter()
        if layout.heads:
            flat = np.concatenate([np.asarray(update[name], dtype=np.float64).reshape(-1) for name in layout.heads])
            self.head_coder.write(writer, Values(flat, layout.head_sizes), rng)
        if units == 0:
            nothing = {"sent": np.zeros(layout.matrices * self.space.rank, dtype=bool)}
            return Encoded(writer.payload(), memory, memory, float(factors.energy() > 0), nothing)
        levels = self._levels(factors, units)
        level = levels[-1]
        head = writer.num_bits
        writer.integer(KINDS.index(factors.kind), _KIND_BITS)
        writer.floats(np.array([level.step, *level.gains], dtype=np.float64), _FLOAT_BITS)
        write_symbols(writer, level.symbols)
        writer.integer(0, _increasing([one.bits for one in levels])[-1] - (writer.num_bits - head))
        sent = _dequantise(layout, factors, level)
        energy = factors.energy()
        error = factors.error(sent) / energy if energy > 0 else 0.0
        return Encoded(writer.payload(), memory, memory, error, {"sent": _sent_components(layout, sent)})

    def decode(self, payload: Payload, start: Tensors, units: int) -> Update:
        """The server's view, float32 deltas at the client's rank. Raises ValueError for a malformed payload."""
        layout = self.layout(client_rank(self.space, start))
        reader = BitReader(payload)
        heads = self._read_heads(layout, reader)
        if units == 0:
            return write_update(layout, "ab", zeros(layout), heads)
        number = int(reader.integers(1, _KIND_BITS)[0])
        if number >= len(KINDS):
            raise ValueError(f"{number} is not a kind of payload")
        kind = KINDS[number]
        step, *gains = (float(x) for x in reader.floats(1 + len(kind), _FLOAT_BITS))
        blocks = Blocks.of(layout, kind)
        symbols = read_symbols(reader, blocks.lengths)
        nothing = {
            name: np.zeros((rows, rank) if name == pair.b else (rank, rows), dtype=np.float32)
            for pair in self.space.pairs
            for name, rows, rank in ((pair.b, pair.out_features, layout.rank), (pair.a, pair.in_features, layout.rank))
            if (name == pair.a and "a" in kind) or (name == pair.b and "b" in kind)
        }
        factors = read_update(layout, nothing, start)
        level = Level(step, tuple(gains), symbols, 0, 0.0, 0.0)
        return write_update(layout, kind, _dequantise(layout, factors, level), heads)

    def _levels(self, factors: Factors, count: int) -> list[Level]:
        """The first `count` steps."""
        return quantise(factors, count, self.gain)

    def _head_bits(self, layout: Layout) -> int:
        return self.head_coder.size(int(layout.head_sizes.sum()), len(layout.heads))

    def _read_heads(self, layout: Layout, reader: BitReader) -> dict[str, Array]:
        if not layout.heads:
            return {}
        pieces = np.split(self.head_coder.read(reader, layout.head_sizes), np.cumsum(layout.head_sizes)[:-1])
        return {n: x.reshape(self.space.shapes[n]) for n, x in zip(layout.heads, pieces, strict=True)}


@dataclass(frozen=True)
class Blocks:
    """The order of entries on the wire: all columns of B, group by group, then all rows of A; a block is one of them."""

    lengths: Array  # entries of every block, int64 [M]
    columns: int  # blocks of B; the others are rows of A

    @classmethod
    def of(cls, layout: Layout, kind: str) -> Blocks:
        """M blocks of a kind of update."""
        b = [np.full(len(g.index) * layout.rank, g.out_features) for g in layout.groups] if "b" in kind else []
        a = [np.full(len(g.index) * layout.rank, g.in_features) for g in layout.groups] if "a" in kind else []
        lengths = np.concatenate([*b, *a]).astype(np.int64) if b or a else np.zeros(0, dtype=np.int64)
        return cls(lengths, sum(len(x) for x in b))


@dataclass(frozen=True)
class Level:
    """An update rounded with one step: step and gains as float32 numbers, symbols, bits, error and energy in units."""

    step: float
    gains: tuple[float, ...]
    symbols: Symbols
    bits: int
    error: float
    energy: float


def quantise(factors: Factors, count: int, gain: Gain) -> list[Level]:
    """The update at the `count` coarsest steps."""
    columns, rows = _columns(factors), _rows(factors)
    kind = factors.kind
    lengths = Blocks.of(factors.layout, kind).lengths
    norm_a = _row_norms(factors)
    b_units = columns * np.repeat(norm_a, _lengths_b(factors)) if "b" in kind else np.zeros(0)
    # What an entry of A is worth: by the client's own columns for the errors, by the decoded ones for the steps.
    worth = np.repeat(_column_norms(factors, None), _lengths_a(factors)) if "a" in kind else np.zeros(0)
    a_units = rows * worth if "a" in kind else np.zeros(0)
    energy = float(b_units @ b_units + a_units @ a_units)
    base = b_units if "b" in kind else a_units
    rms = math.sqrt(float(base @ base) / max(base.size, 1))
    levels = []
    for number in range(count):
        step = float(np.float32(COARSEST * rms * _RATIO**number))
        q_b, gain_b = _round(b_units, step, gain)
        error = _error(b_units, q_b, gain_b * step)
        gains, q_a = [gain_b] if "b" in kind else [], np.zeros(0, dtype=np.int64)
        if "a" in kind:
            decoded = q_b * (gain_b * step) if "b" in kind else None
            known = np.repeat(_column_norms(factors, decoded), _lengths_a(factors))
            in_steps = rows * known
            q_a, gain_a = _round(in_steps, step, gain)
            gains.append(gain_a)
            ratio = np.divide(worth, known, out=np.zeros_like(worth), where=known > 0)
            error += _error(a_units, q_a * ratio, gain_a * step)
        symbols = Symbols(np.concatenate([q_b, q_a]), lengths)
        bits = _KIND_BITS + _FLOAT_BITS * (1 + len(gains)) + symbol_bits(symbols)
        levels.append(Level(step, tuple(gains), symbols, bits, min(error, energy), energy))
    return levels


def _round(x: Array, step: float, gain: Gain) -> tuple[Array, float]:
    """Signed whole steps with a dead zone, and the gain of the reader as a float32 number."""
    if step <= 0.0 or not x.size:
        return np.zeros(x.size, dtype=np.int64), 0.0
    y = x / step
    q = np.floor(np.abs(y) + (1.0 - DEAD_ZONE)) * np.sign(y)
    inner, size = float(y @ q), float(q @ q)
    if inner <= 0.0:
        return np.zeros(x.size, dtype=np.int64), 0.0
    energy = float(y @ y)
    g = energy / inner
    if gain != "unbiased":
        excess = max(energy * size / inner**2 - 1.0, 0.0)  # D; projection is C = 1
        coherence = COHERENCE if gain == "balanced" else 1.0
        g *= coherence / (coherence + excess)
    return q.astype(np.int64), float(np.float32(g))


def _error(x: Array, q: Array, factor: float) -> float:
    """Least squared error that any gain leaves: the sparsification error proper, whatever the reader's gain."""
    qq = float(q @ q)
    return max(float(x @ x) - (float(x @ q) ** 2 / qq if qq > 0 and factor > 0 else 0.0), 0.0)


def _columns(factors: Factors) -> Array:
    """Entries of dB, component by component."""
    parts = [np.swapaxes(p.db, 1, 2).reshape(-1) for p in factors.parts]
    return np.concatenate(parts) if parts else np.zeros(0)


def _rows(factors: Factors) -> Array:
    """Entries of dA, component by component."""
    parts = [p.da.reshape(-1) for p in factors.parts]
    return np.concatenate(parts) if parts else np.zeros(0)


def _row_norms(factors: Factors) -> Array:
    """||a_j|| of the broadcast, block by block."""
    return np.concatenate([np.linalg.norm(p.a0, axis=2).reshape(-1) for p in factors.parts])


def _column_norms(factors: Factors, decoded: Array | None) -> Array:
    """||b_j||, block by block: of the client's own values, or of what the reader has decoded (in units of ||a_j||)."""
    if decoded is None:
        return np.concatenate([np.linalg.norm(p.b0 + p.db, axis=1).reshape(-1) for p in factors.parts])
    norms, at = [], 0
    for part in factors.parts:
        count, out, rank = part.b0.shape
        size = count * out * rank
        db = _per_norm(decoded[at : at + size].reshape(count, rank, out), np.linalg.norm(part.a0, axis=2))
        norms.append(np.linalg.norm(np.swapaxes(part.b0, 1, 2) + db, axis=2).reshape(-1))
        at += size
    return np.concatenate(norms)


def _per_norm(x_LRO: Array, norm_LR: Array) -> Array:
    return np.divide(x_LRO, norm_LR[:, :, None], out=np.zeros_like(x_LRO), where=norm_LR[:, :, None] > 0)


def _lengths_b(factors: Factors) -> Array:
    return np.concatenate([np.full(p.b0.shape[0] * p.b0.shape[2], p.b0.shape[1]) for p in factors.parts])


def _lengths_a(factors: Factors) -> Array:
    return np.concatenate([np.full(p.a0.shape[0] * p.a0.shape[1], p.a0.shape[2]) for p in factors.parts])


def _dequantise(layout: Layout, factors: Factors, level: Level) -> Sent:
    """What both ends read; `factors` gives the broadcast's values only."""
    kind = factors.kind
    q = level.symbols.values.astype(np.float64)
    edge = Blocks.of(layout, kind).lengths[: Blocks.of(layout, kind).columns].sum()
    gains = list(level.gains)
    sent_b = q[:edge] * (gains.pop(0) * level.step) if "b" in kind else None
    sent_a = None
    if "a" in kind:
        known = np.repeat(_column_norms(factors, sent_b), _lengths_a(factors))
        units = q[edge:] * (gains.pop(0) * level.step)
        sent_a = np.divide(units, known, out=np.zeros_like(units), where=known > 0)
    sent: Sent = []
    at_b = at_a = 0
    for part in factors.parts:
        count, out, rank = part.b0.shape
        db, da = np.zeros(part.b0.shape, np.float32), np.zeros(part.a0.shape, np.float32)
        if sent_b is not None:
            piece = sent_b[at_b : at_b + db.size].reshape(count, rank, out)
            db = np.swapaxes(_per_norm(piece, np.linalg.norm(part.a0, axis=2)), 1, 2).astype(np.float32)
            at_b += db.size
        if sent_a is not None:
            da = sent_a[at_a : at_a + da.size].reshape(part.a0.shape).astype(np.float32)
            at_a += da.size
        sent.append((db, da))
    return sent


def _sent_components(layout: Layout, sent: Sent) -> Array:
    kept = np.zeros((layout.matrices, layout.rank), dtype=bool)
    for group, (db, da) in zip(layout.groups, sent, strict=True):
        kept[group.index] = (db != 0).any(axis=1) | (da != 0).any(axis=2)
    return sent_components(layout, kept)


def _increasing(bits: Sequence[int]) -> list[int]:
    """Strictly increasing: a finer step that would cost less than a coarser one is padded."""
    out: list[int] = []
    for value in bits:
        out.append(value if not out else max(value, out[-1] + 1))
    return out


def build(config: Config, space: ParamSpace) -> Codec:
    """The codec for a parameter space."""
    return wrap(Ecsq(space, config.gain, ValueCoder(config.head_bits)), config)
