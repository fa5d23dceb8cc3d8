"""Random-k: a random support, told by a 64-bit seed instead of a mask.

Source: Konecny et al., "Federated Learning: Strategies for Improving Communication Efficiency", arXiv 1610.05492.

* `unit: component`: random rank components, the same share of every matrix shape; the baseline of `rank_components`.
* `unit: entry`: random factor entries.
* `unbiased`: the receiver multiplies by n/k, so that the expected factor deltas are the update's (relative variance
  n/k - 1). Without it the update is shrunk instead; only that form goes with error feedback.

The support is drawn when the update is encoded, so the curve holds expectations over supports (closed form, below).
They are lowered to their convex minorant like every curve: a straight line where random supports gain nothing by size,
as always with `unbiased`, whose error before averaging over clients exceeds that of sending nothing for k < n/2.
float16 rounding is left out of the expectation; the quantiser's noise is in it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import ClassVar, Literal

import numpy as np
from pydantic import model_validator

from raysoft.codecs.base import Codec, CodecConfig
from raysoft.codecs.components import kept_sizes, kept_values, place_components
from raysoft.codecs.measure.curves import cheapest_first, counts
from raysoft.codecs.measure.entries import entry_moments, entry_values, kept_blocks, menu_of, place_entries
from raysoft.codecs.measure.factors import Factors, Layout, Part, Sent, split_flat
from raysoft.codecs.memory.error_feedback import wrap
from raysoft.codecs.rank_components import component_bits
from raysoft.codecs.scheme import Choice, Lengths, Parcel, Plan, Scheme, Take, build_codec, sent_components
from raysoft.codecs.wire.quantizer import ValueCoder
from raysoft.config import Traits
from raysoft.kernels.lowrank import paired_gram
from raysoft.rng import Rng
from raysoft.types import Array, ParamSpace

SEED_BITS = 64


class Config(CodecConfig):
    """What is drawn, and whether it is scaled up."""

    unit: Literal["component", "entry"] = "component"
    """What is drawn: whole rank components, or entries."""
    unbiased: bool = False
    """Whether what is sent is scaled up so that its expectation is the update."""

    @property
    def traits(self) -> Traits:
        """Whole components, or single entries."""
        return replace(super().traits, sends_components=self.unit == "component")

    @model_validator(mode="after")
    def _memory_needs_bias(self) -> Config:
        if self.unbiased and self.error_feedback:
            raise ValueError(
                "unbiased random-k amplifies the memory of error feedback without bound; set unbiased: "
                "false or error_feedback: false"
            )
        return self


def _seed_bits(total: int, count: int) -> int:
    return SEED_BITS if 0 < count < total else 0


@dataclass(frozen=True)
class RandomEntries:
    """`unit: entry`."""

    unbiased: bool
    follows_order: ClassVar[bool] = False
    lengths: ClassVar[Lengths] = "fixed"

    def curve(self, factors: Factors, coder: ValueCoder) -> tuple[Array, Array]:
        """Expectation over supports and quantiser."""
        menu = menu_of(factors.layout, factors.kind, coder, _seed_bits)
        total = factors.layout.entries(factors.kind)
        _, variance = entry_moments(factors, coder)
        noise = split_flat(factors.layout, factors.kind, variance)
        sums = [_Sums.of_entries(part, *spread) for part, spread in zip(factors.parts, noise, strict=True)]
        errors = [factors.energy()]
        for count, _ in menu[1:]:
            gain = total / count if self.unbiased else 1.0
            errors.append(factors.scale2 * sum(s.expected(gain, _inclusion(total, count), True) for s in sums))
        return np.array([bits for _, bits in menu]), np.array(errors)

    def pick(self, factors: Factors, coder: ValueCoder, units: int, rng: np.random.Generator) -> Choice:
        """A fresh seed and the entries it gives."""
        layout, kind = factors.layout, factors.kind
        total, count = layout.entries(kind), self._count(layout, kind, coder, units)
        seed = _draw_seed(rng)
        kept = _subset(seed, 0, total, count)
        side = (seed, SEED_BITS) if count < total else (0, 0)
        return Choice(Parcel(entry_values(factors, factors.flat(), kept), (side,), support=kept))

    def plan(self, layout: Layout, kind: str, coder: ValueCoder, units: int, take: Take) -> Plan | None:
        """Reads the seed."""
        total, count = layout.entries(kind), self._count(layout, kind, coder, units)
        width = _seed_bits(total, count)
        seed = take(width)
        kept = _subset(seed, 0, total, count)
        return Plan(kept_blocks(layout, kind, kept), (seed,), width, support=kept)

    def place(self, layout: Layout, kind: str, units: int, plan: Plan, flat: Array) -> Sent:
        """Entries in their places, scaled where unbiased."""
        total, count = layout.entries(kind), int(plan.sizes.sum())
        gain = total / count if self.unbiased else 1.0
        assert plan.support is not None
        return place_entries(layout, kind, plan.support, (flat * gain).astype(flat.dtype))

    def _count(self, layout: Layout, kind: str, coder: ValueCoder, units: int) -> int:
        menu = menu_of(layout, kind, coder, _seed_bits)
        if not 0 <= units < len(menu):
            raise ValueError(f"units must be 0..{len(menu) - 1}, got {units}")
        return menu[units][0]


@dataclass(frozen=True)
class RandomComponents:
    """`unit: component`. Every group of equal shape gives a fixed number, so that bits do not depend on the draw."""

    unbiased: bool
    follows_order: ClassVar[bool] = False
    lengths: ClassVar[Lengths] = "fixed"

    def curve(self, factors: Factors, coder: ValueCoder) -> tuple[Array, Array]:
        """Expectation over supports and quantiser."""
        layout, kind = factors.layout, factors.kind
        every = np.ones((layout.matrices, layout.rank), dtype=bool)
        _, variance = coder.moments(kept_values(factors, every))
        noise = place_components(layout, kind, every, variance)
        sums = [_Sums.of_components(part, *spread) for part, spread in zip(factors.parts, noise, strict=True)]
        menu = _component_menu(layout, kind, coder)
        errors = []
        for each, _ in menu:
            error = 0.0
            for group, part, taken in zip(layout.groups, sums, each, strict=True):
                total = len(group.index) * layout.rank
                gain = total / taken if self.unbiased and taken else 1.0
                error += part.expected(gain, _inclusion(total, taken), False)
            errors.append(factors.scale2 * error)
        return np.array([bits for _, bits in menu]), np.array(errors)

    def pick(self, factors: Factors, coder: ValueCoder, units: int, rng: np.random.Generator) -> Choice:
        """A fresh seed and the components it gives."""
        layout = factors.layout
        each = self._counts(layout, factors.kind, coder, units)
        seed = _draw_seed(rng)
        kept = _components(layout, seed, each)
        width = _seed_bits(layout.components, sum(each))
        # Zero-width sides: the counts are known from the plan.
        sides = ((seed if width else 0, width), *((taken, 0) for taken in each))
        return Choice(Parcel(kept_values(factors, kept), sides), stats={"sent": sent_components(layout, kept)})

    def plan(self, layout: Layout, kind: str, coder: ValueCoder, units: int, take: Take) -> Plan | None:
        """Reads the seed."""
        each = self._counts(layout, kind, coder, units)
        width = _seed_bits(layout.components, sum(each))
        seed = take(width)
        return Plan(kept_sizes(layout, kind, _components(layout, seed, each)), (seed, *each), width)

    def place(self, layout: Layout, kind: str, units: int, plan: Plan, flat: Array) -> Sent:
        """Components in their places, scaled where unbiased."""
        seed, *each = plan.sides
        sent = place_components(layout, kind, _components(layout, seed, tuple(each)), flat)
        if not self.unbiased:
            return sent
        out: Sent = []
        for group, taken, (db, da) in zip(layout.groups, each, sent, strict=True):
            gain = len(group.index) * layout.rank / taken if taken else 1.0
            out.append(((db * gain).astype(flat.dtype), (da * gain).astype(flat.dtype)))
        return out

    def _counts(self, layout: Layout, kind: str, coder: ValueCoder, units: int) -> tuple[int, ...]:
        menu = _component_menu(layout, kind, coder)
        if not 0 <= units < len(menu):
            raise ValueError(f"units must be 0..{len(menu) - 1}, got {units}")
        return menu[units][0]


@dataclass(frozen=True)
class _Sums:
    """What the expectation needs of one group: sums over its matrices.

    The product changes by L + Q, L = dB A0 + B0 dA and Q = dB dA, each a sum over components; `all_*` are the inner
    products of these sums, `own_*` those of equal (and equally drawn) terms only.
    """

    all_ll: float
    all_lq: float
    all_qq: float
    own_ll: float
    own_lq: float
    own_qq: float
    noise: tuple[float, float, float, float]  # coefficients of start^2, start x change, change^2, noise x noise

    @staticmethod
    def of_components(part: Part, var_b: Array, var_a: Array) -> _Sums:
        """Terms are whole components."""
        rank = part.db.shape[-1]
        linear = (np.concatenate([part.db, part.b0], -1), np.concatenate([part.a0, part.da], -2))
        quadratic = (part.db, part.da)
        ll, lq, qq = (
            paired_gram(*both, rank) for both in ((linear, linear), (linear, quadratic), (quadratic, quadratic))
        )
        everything = (float(ll.sum()), float(lq.sum()), float(qq.sum()))
        return _Sums(*everything, _trace(ll), _trace(lq), _trace(qq), _noise(part, var_b, var_a))

    @staticmethod
    def of_entries(part: Part, var_b: Array, var_a: Array) -> _Sums:
        """Terms are single entries of B and of A; in Q products of two of them."""
        whole = _Sums.of_components(part, var_b, var_a)
        db2, da2 = (part.db**2).sum(1), (part.da**2).sum(2)
        own_ll = float(((part.b0**2).sum(1) * da2 + db2 * (part.a0**2).sum(2)).sum())
        own_lq = float(((part.b0 * part.db).sum(1) * da2 + (part.a0 * part.da).sum(2) * db2).sum())
        return _Sums(whole.all_ll, whole.all_lq, whole.all_qq, own_ll, own_lq, float((db2 * da2).sum()), whole.noise)

    def expected(self, gain: float, p: tuple[float, float, float, float], entries: bool) -> float:
        """E ||L + Q - received||^2 / s^2 over supports of k out of n, received scaled by `gain`.

        p[t - 1] is the probability that t given pieces are all drawn. A term of L is drawn with one entry, a term of Q
        with two (entries) or one (components); products of terms need the union of theirs.
        """
        p1, p2, p3, p4 = p if entries else (p[0], p[0], p[1], p[1])
        q2 = p[1]
        g2, g3, g4 = gain**2, gain**3, gain**4
        total = (1 - 2 * gain * p1 + g2 * q2) * self.all_ll + g2 * (p1 - q2) * self.own_ll
        total += 2 * ((1 - gain * p1 - g2 * p2 + g3 * p3) * self.all_lq + g3 * (p2 - p3) * self.own_lq)
        total += (1 - 2 * g2 * p2 + g4 * p4) * self.all_qq + g4 * (p2 - p4) * self.own_qq
        start, cross, change, both = self.noise
        return total + g2 * (p1 * start + 2 * gain * p2 * cross + g2 * p2 * change) + g4 * p2 * both


def _noise(part: Part, var_b: Array, var_a: Array) -> tuple[float, float, float, float]:
    """Quantiser noise of every component against the other factor's start, change and noise."""
    vb, va = var_b.sum(1), var_a.sum(2)
    start = (part.b0**2).sum(1) * va + (part.a0**2).sum(2) * vb
    cross = (part.b0 * part.db).sum(1) * va + (part.a0 * part.da).sum(2) * vb
    change = (part.db**2).sum(1) * va + (part.da**2).sum(2) * vb
    return float(start.sum()), float(cross.sum()), float(change.sum()), float((va * vb).sum())


def _trace(gram: Array) -> float:
    return float(np.trace(gram, axis1=-2, axis2=-1).sum())


def _inclusion(total: int, count: int) -> tuple[float, float, float, float]:
    """Probability that 1, 2, 3, 4 given items are all among `count` of `total` drawn without replacement."""
    chances = []
    chance = 1.0
    for taken in range(4):
        chance *= max(count - taken, 0) / max(total - taken, 1)
        chances.append(chance)
    return chances[0], chances[1], chances[2], chances[3]


@lru_cache(maxsize=256)
def _group_counts(sizes: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """Components of every group at 0, 1, ..., N in all: shares as equal as they can be."""
    places = [((step + 0.5) / size, number) for number, size in enumerate(sizes) for step in range(size)]
    rows = [(0,) * len(sizes)]
    for _, number in sorted(places):
        rows.append(tuple(taken + (at == number) for at, taken in enumerate(rows[-1])))
    return tuple(rows)


def _component_menu(layout: Layout, kind: str, coder: ValueCoder) -> list[tuple[tuple[int, ...], int]]:
    """(components of every group, bits) of every unit."""
    sizes = tuple(len(group.index) * layout.rank for group in layout.groups)
    rows = [_group_counts(sizes)[count] for count in counts(layout.components)]
    per_matrix = component_bits(layout, kind, coder)
    cost = np.array([per_matrix[group.index[0]] for group in layout.groups])
    bits = [int(np.dot(row, cost)) + _seed_bits(layout.components, sum(row)) for row in rows]
    return [(rows[k], bits[k]) for k in cheapest_first(bits)]


def _components(layout: Layout, seed: int, each: tuple[int, ...]) -> Array:
    """The drawn components, bool [L, R]."""
    kept = np.zeros((layout.matrices, layout.rank), dtype=bool)
    for number, (group, taken) in enumerate(zip(layout.groups, each, strict=True)):
        size = len(group.index) * layout.rank
        kept[group.index] = _subset(seed, number, size, taken).reshape(-1, layout.rank)
    return kept


def _subset(seed: int, stream: int, total: int, count: int) -> Array:
    """`count` of `total` items, uniformly: bool [total]."""
    kept = np.full(total, count == total)
    if 0 < count < total:
        kept[Rng(seed)("randomk", stream).permutation(total)[:count]] = True
    return kept


def _draw_seed(rng: np.random.Generator) -> int:
    return int(rng.integers(0, 2**64, dtype=np.uint64))


def scheme(config: Config) -> Scheme:
    """What is sent, without how it is written."""
    return RandomComponents(config.unbiased) if config.unit == "component" else RandomEntries(config.unbiased)


def build(config: Config, space: ParamSpace) -> Codec:
    """The codec."""
    return wrap(build_codec(config, space, scheme(config)), config)
