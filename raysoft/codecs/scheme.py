"""One codec class for all schemes: a scheme says *which* numbers travel, a value coder *how* they are written.

Payload: head tensors, kept values, then (read from the back) what says which values they are. Both ends know the
plan (units), so a count costs nothing; which factors travel (A, B or both) is told by the length.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from raysoft.codecs.base import CodecConfig, Encoded
from raysoft.codecs.heads import HeadCoder
from raysoft.codecs.measure.curves import convex_curve, told_counts_bits
from raysoft.codecs.measure.factors import KINDS, Factors, Layout, Sent, client_rank, read_update, write_update, zeros
from raysoft.codecs.memory.fading import AGE, LOTTERY
from raysoft.codecs.wire.bits import BitReader, BitWriter
from raysoft.codecs.wire.quantizer import BlockCoder, ValueCoder, Values
from raysoft.types import Array, Curve, ParamSpace, Payload, Tensors, Update

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
    def superposable(self) -> bool:
        """True where the layout's order is followed."""
        ...

    @property
    def support_sets_length(self) -> bool:
        """True: at a given unit the length may depend on the first side integer, whose width then does not.

        It then follows from how many of the unit's components (see `counts`) have each width, and from padding.
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
    # Caches of what follows from the fields above, never a state.
    layouts: dict[int, Layout] = field(default_factory=dict, compare=False, repr=False)
    paddings: dict[tuple[int, str, int, int], int] = field(default_factory=dict, compare=False, repr=False)

    @property
    def superposable(self) -> bool:
        """True where all clients can send prefixes of one common order."""
        return self.scheme.superposable

    @property
    def draws(self) -> bool:
        """True where some of what travels is drawn: the memory then has to hold the round's own seed."""
        return getattr(self.scheme, "random_share", 0.0) > 0

    @property
    def counts_ages(self) -> bool:
        """True where the client remembers when it sent each component."""
        return getattr(self.scheme, "age_bonus", 0.0) > 0

    def _factors(self, layout: Layout, update: Update, start: Tensors, memory: Tensors) -> Factors:
        factors = read_update(layout, update, start)
        age, lottery = memory.get(AGE), memory.get(LOTTERY)
        fits = self.counts_ages and age is not None and age.shape == (layout.matrices, layout.rank)
        return replace(factors, age_LR=age if fits else None, lottery=None if lottery is None else int(lottery))

    def _memories(self, factors: Factors, memory: Tensors, sent: Array) -> tuple[Tensors, Tensors]:
        """What is remembered if the payload is delivered, or lost; `sent` in the r_max layout."""
        if LOTTERY in memory:
            memory = {name: value for name, value in memory.items() if name != LOTTERY}
        if not self.counts_ages:
            return memory, memory
        layout = factors.layout
        older = 1.0 + (np.zeros((layout.matrices, layout.rank)) if factors.age_LR is None else factors.age_LR)
        kept = sent.reshape(layout.matrices, layout.space.rank)[:, : layout.rank]
        return {**memory, AGE: np.where(kept, 0.0, older)}, {**memory, AGE: older}

    def layout(self, rank: int, order: Array | None = None) -> Layout:
        """The parameter space at this rank. Raises ValueError for an order that the scheme cannot follow."""
        if rank not in self.layouts:
            self.layouts[rank] = Layout(self.space, rank)
        if order is None:
            return self.layouts[rank]
        if not self.superposable:
            raise ValueError("this codec chooses its own support; only rank_components follows a given order")
        return self.layouts[rank].following(order)

    def menu(self, update: Update, start: Tensors, memory: Tensors, order: Array | None = None) -> Curve:
        """The rate-distortion curve: bits exact, errors in squared effective weights."""
        layout = self.layout(client_rank(self.space, start), order)
        factors = self._factors(layout, update, start, memory)
        if not factors.kind:  # the head alone: sent whole or not at all
            return Curve(self.heads.size(layout), np.zeros(1, dtype=np.int64), np.zeros(1))
        bits, errors = self.scheme.curve(factors, self.coder)
        bits[1:] += [self._menu_padding(factors, units) for units in range(1, len(bits))]
        return convex_curve(self.heads.size(layout), bits, errors, self._told_bits(layout, factors.kind))

    def encode(
        self, update: Update, start: Tensors, memory: Tensors, units: int, order: Array | None, rng: np.random.Generator
    ) -> Encoded:
        """The payload of `units`. Raises ValueError for units outside the menu or an order it cannot follow."""
        layout = self.layout(client_rank(self.space, start), order)
        factors = self._factors(layout, update, start, memory)
        if units and not factors.kind:
            raise ValueError(f"a head alone has no units, got {units}")
        writer = BitWriter()
        self.heads.write(writer, layout, update, rng)
        if units == 0:
            energy = factors.energy()
            nothing = _nothing_sent(layout)
            memories = self._memories(factors, memory, nothing["sent"])
            return Encoded(writer.payload(), *memories, float(energy > 0), nothing)
        choice = self.scheme.pick(factors, self.coder, units, rng)
        parcel = choice.parcel
        sent = (parcel.coder or self.coder).write(writer, parcel.values, rng)
        writer.integer(0, self._padding(layout, factors.kind, units, _first(choice)))
        for value, width in reversed(parcel.sides):
            writer.integer(value, width)
        payload = writer.payload()
        error, total = choice.error, choice.energy
        if error is None:
            plan = Plan(parcel.values.sizes, tuple(value for value, _ in parcel.sides), support=parcel.support)
            error = factors.error(self.scheme.place(layout, factors.kind, units, plan, sent))
        total = factors.energy() if total is None else total
        memories = self._memories(factors, memory, choice.stats.get("sent", _nothing_sent(layout)["sent"]))
        return Encoded(payload, *memories, _ratio(error, total), choice.stats)

    def decode(self, payload: Payload, start: Tensors, units: int, order: Array | None = None) -> Update:
        """The server's view: float32 deltas at the client's rank, zero where nothing was sent.

        Raises ValueError for a payload that is not one of `units` units at this rank.
        """
        layout = self.layout(client_rank(self.space, start), order)
        reader = BitReader(payload)
        heads = self.heads.read(reader, layout)
        if units == 0 and reader.left == 0:
            return write_update(layout, "ab", zeros(layout), heads)
        for kind in KINDS:
            found = self._match(layout, kind, units, payload)
            if found is not None:
                flat = (found.coder or self.coder).read(reader, found.sizes)
                return write_update(layout, kind, self.scheme.place(layout, kind, units, found, flat), heads)
        raise ValueError(f"a payload of {payload.num_bits} bits is not one of {units} units at rank {layout.rank}")

    def _match(self, layout: Layout, kind: str, units: int, payload: Payload) -> Plan | None:
        """The plan of this kind if the payload's length agrees with it."""
        body = payload.num_bits - self.heads.size(layout)
        if units == 0:
            return None
        try:
            plan = self.scheme.plan(layout, kind, self.coder, units, BitReader(payload).last_integer)
        except ValueError:  # too short for this kind
            return None
        if plan is None:
            return None
        side = plan.sides[0] if plan.sides else 0
        return plan if self._size(plan) + self._padding(layout, kind, units, side) == body else None

    def _size(self, plan: Plan) -> int:
        """Bits of a plan's values and integers."""
        return (plan.coder or self.coder).size(int(plan.sizes.sum()), len(plan.sizes)) + plan.side_bits

    def _padding(self, layout: Layout, kind: str, units: int, side: int) -> int:
        """Zero bits that tell this kind from the earlier ones at this unit: none for "ab", seldom any for "b".

        The first side integer stands behind the padding, so the reader knows it before it knows the kind.
        """
        if kind == "ab" or (kind == "b" and not self._fixed_lengths(layout)):
            return 0  # on one support B alone is shorter than both
        side = 0 if self._fixed_lengths(layout) else side
        if layout.order_N is not None:  # another one every round: nothing to remember
            return self._least_padding(layout, kind, units, side)
        key = (layout.rank, kind, units, side)
        if key not in self.paddings:
            if len(self.paddings) > 10_000:
                self.paddings.clear()
            self.paddings[key] = self._least_padding(layout, kind, units, side)
        return self.paddings[key]

    def _least_padding(self, layout: Layout, kind: str, units: int, side: int) -> int:
        lengths = []
        for other in KINDS[: KINDS.index(kind)]:
            length = self._length(layout, other, units, side)
            lengths.append(None if length is None else length + self._padding(layout, other, units, side))
        own = self._length(layout, kind, units, side) or 0
        return next(p for p in range(len(lengths) + 1) if own + p not in lengths)

    def _length(self, layout: Layout, kind: str, units: int, side: int) -> int | None:
        """Bits of a kind at this unit without padding, None where it has no such unit."""
        sides = iter((side,))
        try:
            plan = self.scheme.plan(layout, kind, self.coder, units, lambda width: next(sides, 0))
        except ValueError:
            return None
        return None if plan is None else self._size(plan)

    def _fixed_lengths(self, layout: Layout) -> bool:
        """Whether both ends know the length of a kind at a unit before they read."""
        return not self.scheme.support_sets_length or len(layout.groups) == 1 or layout.order_N is not None

    def _told_bits(self, layout: Layout, kind: str) -> int:
        """What a report needs for the bits of the menu: which widths each step takes, where nothing else tells."""
        if self._fixed_lengths(layout):
            return 0
        paddings = len(KINDS) if kind == "a" else 1  # as many as `_least_padding` may find
        choices = tuple(kind) if getattr(self.scheme, "separate", False) else (kind,)
        costs = [np.unique(layout.widths_L(choice)).size for choice in choices]
        return sum(told_counts_bits(layout.components, cost, paddings) for cost in costs)

    def _menu_padding(self, factors: Factors, units: int) -> int:
        layout, kind = factors.layout, factors.kind
        if kind != "a" or self._fixed_lengths(layout):
            return self._padding(layout, kind, units, 0)
        unused = np.random.default_rng(0)  # schemes whose support sets the length draw nothing
        return self._padding(layout, kind, units, _first(self.scheme.pick(factors, self.coder, units, unused)))


def _first(choice: Choice) -> int:
    return choice.parcel.sides[0][0] if choice.parcel.sides else 0


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
