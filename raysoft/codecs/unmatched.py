"""Columns of B and rows of A chosen apart: a kept b_j may meet a dropped a_j, unlike in `rank_components`.

The counterpart of SOFT's matched components with everything else alike: of n units n columns of B and n rows of A
travel, each chosen for itself, what is not sent keeps the broadcast's value, and there are two masks instead of one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from raysoft.codecs.components import kept_sizes, kept_values, place_components
from raysoft.codecs.measure.curves import count_of, counts
from raysoft.codecs.measure.entries import diagonal_spread
from raysoft.codecs.measure.factors import Factors, Layout, Sent, Spread
from raysoft.codecs.scheme import Choice, Lengths, Parcel, Plan, Take, sent_components
from raysoft.codecs.wire.bits import subset_mask, subset_rank
from raysoft.codecs.wire.quantizer import ValueCoder
from raysoft.kernels.subsets import subset_bits
from raysoft.types import Array


@dataclass(frozen=True)
class Unmatched:
    """`importance`: by the norm of a column or row itself (`norm`, of the client's own values), or by what dropping its
    change alone does to the effective update (`update`); per bit, over all matrices."""

    importance: Literal["norm", "update"]
    follows_order: ClassVar[bool] = False
    lengths: ClassVar[Lengths] = "apart"

    def curve(self, factors: Factors, coder: ValueCoder) -> tuple[Array, Array]:
        """Every count carried out; the expectation over the quantiser."""
        bits, errors = [0], [factors.energy()]
        layout = factors.layout
        for count in counts(layout.components)[1:]:
            kept = self._kept(factors, coder, count)
            values = kept_values(factors, kept)
            mean, variance = coder.moments(values)
            spread: Spread | None = None
            if coder.stochastic:
                placed = [
                    part.reshape(-1) for both in place_components(layout, factors.kind, kept, variance) for part in both
                ]
                spread = diagonal_spread(layout, factors.kind, np.concatenate(placed))
            errors.append(factors.error(place_components(layout, factors.kind, kept, mean), spread))
            sides = 2 * subset_bits(layout.components, count)
            bits.append(coder.size(values.flat.size, len(values.sizes)) + sides)
        return np.array(bits), np.array(errors)

    def pick(self, factors: Factors, coder: ValueCoder, units: int, rng: np.random.Generator) -> Choice:
        """The best columns and the best rows."""
        layout = factors.layout
        count = count_of(layout.components, units)
        kept = self._kept(factors, coder, count)
        width = subset_bits(layout.components, count)
        sides = tuple((subset_rank(mask.reshape(-1)), width) for mask in kept)
        stats = {"sent": sent_components(layout, kept[0] | kept[1])}
        return Choice(Parcel(kept_values(factors, kept), sides, support=kept), stats=stats)

    def plan(self, layout: Layout, kind: str, coder: ValueCoder, units: int, take: Take) -> Plan | None:
        """Reads both masks."""
        if kind != "ab":
            return None
        count = count_of(layout.components, units)
        width = subset_bits(layout.components, count)
        ranks = (take(width), take(width))
        masks = [subset_mask(layout.components, count, rank) for rank in ranks]
        kept = np.stack([mask.reshape(layout.matrices, layout.rank) for mask in masks])
        return Plan(kept_sizes(layout, kind, kept), ranks, 2 * width, support=kept)

    def place(self, layout: Layout, kind: str, units: int, plan: Plan, flat: Array) -> Sent:
        """Columns of B and rows of A in their places."""
        assert plan.support is not None
        return place_components(layout, kind, plan.support, flat)

    def _kept(self, factors: Factors, coder: ValueCoder, count: int) -> Array:
        """Columns of B and rows of A that travel, bool [2, L, R]."""
        if factors.kind != "ab":
            raise ValueError("matched: false needs a method that sends both factors")
        layout = factors.layout
        kept = np.zeros((2, layout.components), dtype=bool)
        for number, (letter, scores) in enumerate(zip("ba", self._scores(factors), strict=True)):
            cost = layout.widths_L(letter) * coder.bits + coder.block_bits
            best = np.argsort(-(scores / cost[:, None]).reshape(-1), kind="stable")
            kept[number, best[:count]] = True
        return kept.reshape(2, layout.matrices, layout.rank)

    def _scores(self, factors: Factors) -> Array:
        """Energies, float64 [2, L, R]: of columns of B, of rows of A."""
        scores = np.empty((2, factors.layout.matrices, factors.layout.rank))
        for part in factors.parts:
            b, a = part.b0 + part.db, part.a0 + part.da
            if self.importance == "norm":
                scores[0, part.group.index], scores[1, part.group.index] = (b * b).sum(1), (a * a).sum(2)
            else:
                scores[0, part.group.index] = (part.db**2).sum(1) * (a * a).sum(2)
                scores[1, part.group.index] = (part.da**2).sum(2) * (b * b).sum(1)
        return scores
