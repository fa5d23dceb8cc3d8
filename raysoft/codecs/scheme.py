"""One codec class for all schemes: a scheme says *which* numbers travel, a value coder *how* they are written.

Payload: head tensors, kept values, then (read from the back) what says which values they are. Both ends know the
plan (units) and which factors travel (A, B or both), so neither costs a bit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np

from raysoft.codecs.base import CodecConfig, Encoded
from raysoft.codecs.heads import HeadCoder
from raysoft.codecs.measure.curves import convex_curve, told_counts_bits
from raysoft.codecs.measure.factors import Factors, Layout, Sent, read_update, write_update, zeros
from raysoft.codecs.wire.bits import BitReader, BitWriter
from raysoft.codecs.wire.quantizer import BlockCoder, ValueCoder, Values
from raysoft.types import Array, Curve, ParamSpace, Payload, Tensors, Update, View

Lengths = Literal["fixed", "joint", "apart"]
Take = Callable[[int], int]
"""Reads an integer of the given width from the back of the payload."""


@dataclass(frozen=True)
class Parcel:
    """What a scheme sends: values, and integers (value, width) that say which; the first is last in the payload."""

    values: Values
    sides: tuple[tuple[int, int], ...] = ()
    coder: BlockCoder | None = None  # None: the codec's own
    support: Array | None = None  # what the sides say, where the scheme knows it already


@dataclass(frozen=True)
class Plan:
    """What the receiver knows before it reads values: block sizes, and the integers it read."""

    sizes: Array
    sides: tuple[int, ...] = ()
    side_bits: int = 0
    coder: BlockCoder | None = None
    support: Array | None = None


@dataclass(frozen=True)
class Choice:
    """A picked parcel, with what the scheme already knows about it."""

    parcel: Parcel
    error: float | None = None  # squared error in effective weights, where known exactly
    energy: float | None = None  # the same if nothing were sent
    stats: Mapping[str, Array] = field(default_factory=dict)


class Scheme(Protocol):
    """Stateless: everything follows from the arguments."""

    @property
    def follows_order(self) -> bool:
        """True where the layout's order is followed."""
        ...

    @property
    def lengths(self) -> Lengths:
        """What says how long a payload is at a given unit.

        fixed: the unit alone; joint: also the first side integer, whose width does not depend on it, by how many of
        the unit's components (see `counts`) have each width; apart: the same, with a choice of its own for each factor.
        """
        ...

    def curve(self, factors: Factors, coder: ValueCoder) -> tuple[Array, Array]:
        """Bits and squared errors of every unit, int64 and float64 [J]; unit 0 sends nothing."""
        ...

    def pick(self, factors: Factors, coder: ValueCoder, units: int, rng: np.random.Generator) -> Choice:
        """The parcel of this unit, 0 < units."""
        ...

    def plan(self, layout: Layout, kind: str, coder: ValueCoder, units: int, take: Take) -> Plan | None:
        """The receiver's half of `pick`; None where this kind has no such unit."""
        ...

    def place(self, layout: Layout, kind: str, units: int, plan: Plan, flat: Array) -> Sent:
        """Received values in their places, zero elsewhere, in the dtype of `flat`."""
        ...


@dataclass(frozen=True)
class SchemeCodec:
    """A `Codec` (see base.py) made of a scheme and value coders for factors and heads."""

    space: ParamSpace
    scheme: Scheme
    coder: ValueCoder
    heads: HeadCoder
    layouts: dict[int, Layout] = field(default_factory=dict, compare=False, repr=False)  # a cache, never a state

    def layout(self, view: View) -> Layout:
        """The parameter space at this rank. Raises ValueError for an order that the scheme cannot follow."""
        if view.rank not in self.layouts:
            self.layouts[view.rank] = Layout(self.space, view.rank)
        layout = self.layouts[view.rank].seen_by(view)
        if layout.order_N is not None and not self.scheme.follows_order:
            raise ValueError("this codec chooses its own support; only rank_components follows a given order")
        return layout

    def menu(self, update: Update, view: View, memory: Tensors) -> Curve:
        """The rate-distortion curve: bits exact, errors in squared effective weights."""
        layout = self.layout(view)
        factors = read_update(layout, update, view)
        if not factors.kind:  # the head alone: sent whole or not at all
            return Curve(self.heads.size(layout), np.zeros(1, dtype=np.int64), np.zeros(1))
        bits, errors = self.scheme.curve(factors, self.coder)
        return convex_curve(self.heads.size(layout), bits, errors, self._told_bits(layout, factors.kind))

    def encode(self, update: Update, view: View, memory: Tensors, units: int, rng: np.random.Generator) -> Encoded:
        """The payload of `units`. Raises ValueError for units outside the menu or an order it cannot follow."""
        layout = self.layout(view)
        factors = read_update(layout, update, view)
        if units and not factors.kind:
            raise ValueError(f"a head alone has no units, got {units}")
        writer = BitWriter()
        self.heads.write(writer, layout, update, rng)
        if units == 0:
            payload, all_lost = writer.payload(), float(factors.energy() > 0)
            received = self.decode(payload, view, units)
            return Encoded(payload, received, memory, memory, all_lost, _nothing_sent(layout))
        choice = self.scheme.pick(factors, self.coder, units, rng)
        parcel = choice.parcel
        sent = (parcel.coder or self.coder).write(writer, parcel.values, rng)
        for value, width in reversed(parcel.sides):
            writer.integer(value, width)
        payload = writer.payload()
        error, total = choice.error, choice.energy
        if error is None:
            plan = Plan(parcel.values.sizes, tuple(value for value, _ in parcel.sides), support=parcel.support)
            error = factors.error(self.scheme.place(layout, factors.kind, units, plan, sent))
        total = factors.energy() if total is None else total
        return Encoded(payload, self.decode(payload, view, units), memory, memory, _ratio(error, total), choice.stats)

    def decode(self, payload: Payload, view: View, units: int) -> Update:
        """The server's view: float32 deltas at the client's rank, zero where nothing was sent.

        Raises ValueError for a payload that is not one of `units` units of what this client sends.
        """
        layout = self.layout(view)
        reader, kind = BitReader(payload), layout.kind(view.trains)
        heads = self.heads.read(reader, layout)
        if units == 0 and reader.left == 0:
            return write_update(layout, kind, zeros(layout), heads)
        plan = self._plan(layout, kind, units, payload)
        if plan is None or self.heads.size(layout) + self._size(plan) != payload.num_bits:
            raise ValueError(f"a payload of {payload.num_bits} bits is not one of {units} units at rank {layout.rank}")
        flat = (plan.coder or self.coder).read(reader, plan.sizes)
        return write_update(layout, kind, self.scheme.place(layout, kind, units, plan, flat), heads)

    def _plan(self, layout: Layout, kind: str, units: int, payload: Payload) -> Plan | None:
        if units == 0 or not kind:
            return None
        try:
            return self.scheme.plan(layout, kind, self.coder, units, BitReader(payload).last_integer)
        except ValueError:  # too short
            return None

    def _size(self, plan: Plan) -> int:
        """Bits of a plan's values and integers."""
        return (plan.coder or self.coder).size(int(plan.sizes.sum()), len(plan.sizes)) + plan.side_bits

    def _told_bits(self, layout: Layout, kind: str) -> int:
        """What a report needs for the bits of the menu: which widths each step takes, where nothing else tells."""
        if self.scheme.lengths == "fixed" or len(layout.groups) == 1 or layout.order_N is not None:
            return 0  # both ends know the length at a unit before they read
        choices = tuple(kind) if self.scheme.lengths == "apart" else (kind,)
        costs = [np.unique(layout.widths_L(choice)).size for choice in choices]
        return sum(told_counts_bits(layout.components, cost) for cost in costs)


def _ratio(error: float, total: float) -> float:
    return error / total if total > 0 else 0.0


def _nothing_sent(layout: Layout) -> dict[str, Array]:
    return {"sent": np.zeros(layout.matrices * layout.space.rank, dtype=bool)}


def sent_components(layout: Layout, kept_LR: Array) -> Array:
    """Kept components in the r_max layout, matrix by matrix: bool [matrices * r_max]."""
    sent = np.zeros((layout.matrices, layout.space.rank), dtype=bool)
    sent[:, : layout.rank] = kept_LR
    return sent.reshape(-1)


def build_codec(config: CodecConfig, space: ParamSpace, scheme: Scheme, bits: int | None = None) -> SchemeCodec:
    """The codec of a scheme with the common options."""
    coder = ValueCoder(bits or config.bits_per_value, config.quantizer == "rotated")
    return SchemeCodec(space, scheme, coder, HeadCoder(ValueCoder(config.head_bits)))
