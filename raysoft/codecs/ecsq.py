"""Entropy-coded scalar quantisation of the factors in units of the weights they change: SOFT taken to its rate limit.

Source: this project's; quantiser with a dead zone: Sullivan, IEEE Trans. Inf. Theory 42(5), 1996.

An entry of column b_j moves the product by ||a_j||, an entry of row a_j by ||b_j||. Entries are measured in these units
and rounded with one step for the whole model; then every bit is spent where it lowers the error in effective weights
most (reverse water-filling; to first order exact where rows of A, and columns of B, are orthogonal). A component whose
entries all round to zero is dropped, so sparsification is the coarse end of this codec.
Arithmetic: measure/steps.py; entropy coder: wire/symbols.py.

Payload: head tensors, kind, step, gains, symbols, zeros up to the bits of the menu. Units are steps, a third of an
octave apart. Values are read with one gain a factor: `projection` leaves the least error of one client, `unbiased`
keeps the client's step length (<u, sent> = ||u||^2, as in DRIVE, Vargaftik et al., NeurIPS 2021), which suits a mean
over many clients whose errors differ but explodes at the coarsest steps; `balanced` (default) is the Wiener gain
between the two: unbiased x C / (C + D) for an unbiased relative error D and C = 4.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import accumulate

import numpy as np
from pydantic import model_validator

from raysoft.codecs.base import Codec, CodecConfig, Encoded, told_revision
from raysoft.codecs.heads import HeadCoder
from raysoft.codecs.measure.curves import convex_curve
from raysoft.codecs.measure.factors import KINDS, Layout, Sent, read_update, write_update, zeros
from raysoft.codecs.measure.steps import FLOAT_BITS, KIND_BITS, Entries, Gain, block_lengths, dequantise
from raysoft.codecs.memory.error_feedback import wrap
from raysoft.codecs.scheme import sent_components
from raysoft.codecs.wire.bits import BitReader, BitWriter
from raysoft.codecs.wire.quantizer import ValueCoder
from raysoft.codecs.wire.symbols import read_symbols, write_symbols
from raysoft.config import RunConfig
from raysoft.types import ORDER, Array, Curve, ParamSpace, Payload, Tensors, Update, View

LEVELS = 18
WIDTH_BITS = 6  # says how many bits each of the LEVELS differences between a reported curve's bits takes


class Config(CodecConfig):
    """How received values are scaled.

    The step follows from the units and a value has no width of its own, so `bits_per_value` stays at 32. The share "of
    the dense uplink at its own value bits" is therefore the share of the dense 32-bit uplink, which says nothing about
    how this codec would compare with a dense uplink of narrower values.
    """

    gain: Gain = "balanced"
    """How received values are scaled: for a client's least error (projection), unbiased, or in between (balanced)."""

    def revision_in(self, run: RunConfig) -> int:
        """See `told_revision`."""
        return max(self.REVISION, told_revision(run, shapes_matter=False))

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
    heads: HeadCoder
    layouts: dict[int, Layout] = field(default_factory=dict, compare=False, repr=False)  # a cache, never a state

    def layout(self, view: View) -> Layout:
        """The parameter space at this rank. Raises ValueError for a given order: nothing is left out whole."""
        if ORDER in view.side:
            raise ValueError("this codec chooses its own support; only rank_components follows a given order")
        if view.rank not in self.layouts:
            self.layouts[view.rank] = Layout(self.space, view.rank)
        return self.layouts[view.rank]

    def menu(self, update: Update, view: View, memory: Tensors) -> Curve:
        """Bits are exact; errors are the least that any gain leaves, without cross terms between components."""
        layout = self.layout(view)
        factors = read_update(layout, update, view)
        if not factors.kind:  # the head alone: sent whole or not at all
            return Curve(self.heads.size(layout), np.zeros(1, dtype=np.int64), np.zeros(1))
        entries = Entries.of(factors)
        bits, errors = [], [entries.energy]
        for number in range(LEVELS):
            level = entries.level(number, self.gain)
            bits.append(level.bits)
            errors.append(level.error)
        spent = np.array([0, *_increasing(bits)])
        told = WIDTH_BITS + LEVELS * int(np.diff(spent).max()).bit_length()  # an entropy coder's lengths: any at all
        return convex_curve(self.heads.size(layout), spent, np.array(errors) * factors.scale2, told)

    def encode(self, update: Update, view: View, memory: Tensors, units: int, rng: np.random.Generator) -> Encoded:
        """The payload at step number `units`. Raises ValueError for a step that is not there, or a given order."""
        layout = self.layout(view)
        factors = read_update(layout, update, view)
        most = LEVELS if factors.kind else 0
        if not 0 <= units <= most:
            raise ValueError(f"units must be 0..{most}, got {units}")
        writer = BitWriter()
        self.heads.write(writer, layout, update, rng)
        if units == 0:
            nothing = {"sent": np.zeros(layout.matrices * self.space.rank, dtype=bool)}
            return self._encoded(writer, view, memory, units, float(factors.energy() > 0), nothing)
        entries = Entries.of(factors)
        coarser = [entries.level(number, self.gain).bits for number in range(units - 1)]
        level = entries.level(units - 1, self.gain)
        symbols, head = entries.symbols(level), writer.num_bits
        writer.integer(KINDS.index(factors.kind), KIND_BITS)
        writer.floats(np.array([level.step, *level.gains]), FLOAT_BITS)
        write_symbols(writer, symbols)
        writer.integer(0, _increasing([*coarser, level.bits])[-1] - (writer.num_bits - head))
        sent = dequantise(factors, level.step, level.gains, symbols.values)
        energy = factors.energy()
        error = factors.error(sent) / energy if energy > 0 else 0.0
        return self._encoded(writer, view, memory, units, error, {"sent": _sent_components(layout, sent)})

    def _encoded(
        self, writer: BitWriter, view: View, memory: Tensors, units: int, error: float, stats: Mapping[str, Array]
    ) -> Encoded:
        payload = writer.payload()
        return Encoded(payload, self.decode(payload, view, units), memory, memory, error, stats)

    def decode(self, payload: Payload, view: View, units: int) -> Update:
        """The server's view, float32 deltas at the client's rank. Raises ValueError for a malformed payload."""
        layout = self.layout(view)
        reader = BitReader(payload)
        heads, kind = self.heads.read(reader, layout), layout.kind(view.trains)
        if units == 0:
            if reader.left:
                raise ValueError(f"{reader.left} bits are left where nothing but heads was sent")
            return write_update(layout, kind, zeros(layout), heads)
        number = reader.integer(KIND_BITS)
        if KINDS[number : number + 1] != (kind,):
            raise ValueError(f"a payload of kind {number} where {kind!r} travels")
        step, *gains = (float(x) for x in reader.floats(1 + len(kind), FLOAT_BITS))
        if not all(0.0 <= x < math.inf for x in (step, *gains)):
            raise ValueError(f"a step and gains are finite and not negative, got {step} and {gains}")
        symbols = read_symbols(reader, block_lengths(layout, kind))
        if reader.integer(reader.left):
            raise ValueError("a payload ends with zeros")
        factors = read_update(layout, self._unmoved(layout, kind) | heads, view)
        return write_update(layout, kind, dequantise(factors, step, tuple(gains), symbols.values), heads)

    def _unmoved(self, layout: Layout, kind: str) -> dict[str, Array]:
        """An update of zeros of this kind: the decoder knows the broadcast only."""
        return {
            name: np.zeros(shape, dtype=np.float32)
            for pair in self.space.pairs
            for name, shape, letter in (
                (pair.b, (pair.out_features, layout.rank), "b"),
                (pair.a, (layout.rank, pair.in_features), "a"),
            )
            if letter in kind
        }


def _sent_components(layout: Layout, sent: Sent) -> Array:
    kept = np.zeros((layout.matrices, layout.rank), dtype=bool)
    for group, (db, da) in zip(layout.groups, sent, strict=True):
        kept[group.index] = (db != 0).any(axis=1) | (da != 0).any(axis=2)
    return sent_components(layout, kept)


def _increasing(bits: Iterable[int]) -> list[int]:
    """Strictly increasing: a finer step that would cost less than a coarser one is padded."""
    return list(accumulate(bits, lambda before, now: max(now, before + 1)))


def build(config: Config, space: ParamSpace) -> Codec:
    """The codec for a parameter space."""
    return wrap(Ecsq(space, config.gain, HeadCoder(ValueCoder(config.head_bits))), config)
