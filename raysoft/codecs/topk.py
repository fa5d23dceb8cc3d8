"""Top-k: the largest single entries of the factors travel.

Source: Stich et al., "Sparsified SGD with Memory", NeurIPS 2018; on LoRA factors FLASC, arXiv 2406.05233.

The server averages factors, so it is always entries of (dB, dA) that travel; `of` says by what they are ranked:

* `factors`: by |db_oj|, |da_ji|. Then ||sent - u||^2 <= (1 - k/n) ||u||^2 over the entries.
* `update`: by their effect on the effective update s (B A - B0 A0): dropping db_oj alone changes it by
  |db_oj| ||a_j||, dropping da_ji alone by |da_ji| ||b_j||. A top-k of the dense O x I update itself could not be added
  to B or A under separate averaging.

Ties go to the smaller index. The payload is the values and a mask of ceil(log2 C(n, k)) bits.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np
from pydantic import model_validator

from raysoft.codecs.base import Codec, CodecConfig
from raysoft.codecs.measure.entries import (
    diagonal_spread,
    entry_moments,
    entry_values,
    kept_blocks,
    menu_of,
    place_entries,
)
from raysoft.codecs.measure.factors import Factors, Layout, Sent, split_flat
from raysoft.codecs.memory.error_feedback import wrap
from raysoft.codecs.scheme import Choice, Lengths, Parcel, Plan, Scheme, Take, build_codec
from raysoft.codecs.state import StateCodec
from raysoft.codecs.wire.bits import subset_mask, subset_rank
from raysoft.codecs.wire.quantizer import ValueCoder
from raysoft.config import Traits
from raysoft.kernels.subsets import subset_bits
from raysoft.types import Array, ParamSpace


class Config(CodecConfig):
    """What entries are ranked by, and what an entry that is not sent is at the server.

    `fallback`: `broadcast`, entries of the change travel and the rest keeps the broadcast's value; `zero`, entries of
    the factors themselves travel and the rest is zero, as pruning would have it (see state.py), to compare with.
    """

    LATER: ClassVar[tuple[str, ...]] = ("fallback",)

    of: Literal["update", "factors"] = "factors"
    """What entries are ranked by: their change, or their value."""
    fallback: Literal["broadcast", "zero"] = "broadcast"
    """What an entry that is not sent is at the server: the broadcast's value, or zero."""

    @property
    def traits(self) -> Traits:
        """The state of one factor alone has no zero to fall to."""
        return replace(super().traits, needs_both_factors="fallback=zero" if self.fallback == "zero" else "")

    @model_validator(mode="after")
    def _no_memory(self) -> Config:
        if self.fallback == "zero" and self.error_feedback:
            raise ValueError("fallback: zero sends the state, of which nothing is left to feed back: no error_feedback")
        return self


@dataclass(frozen=True)
class TopK:
    """See the module."""

    of: Literal["update", "factors"]
    follows_order: ClassVar[bool] = False
    lengths: ClassVar[Lengths] = "fixed"

    def curve(self, factors: Factors, coder: ValueCoder) -> tuple[Array, Array]:
        """Exact errors of every count; the expectation over the quantiser."""
        layout, kind = factors.layout, factors.kind
        order = self._order(factors)
        mean, variance = entry_moments(factors, coder)
        menu = menu_of(layout, kind, coder, subset_bits)
        errors = []
        for count, _ in menu:
            kept = np.zeros(mean.size)
            kept[order[:count]] = 1.0
            spread = diagonal_spread(layout, kind, variance * kept) if coder.stochastic else None
            errors.append(factors.error(split_flat(layout, kind, mean * kept), spread))
        return np.array([bits for _, bits in menu]), np.array(errors)

    def pick(self, factors: Factors, coder: ValueCoder, units: int, rng: np.random.Generator) -> Choice:
        """The best entries."""
        count = _count(factors.layout, factors.kind, coder, units)
        flat = factors.flat()
        kept = np.zeros(flat.size, dtype=bool)
        kept[self._order(factors)[:count]] = True
        side = (subset_rank(kept), subset_bits(kept.size, count))
        return Choice(Parcel(entry_values(factors, flat, kept), (side,), support=kept))

    def plan(self, layout: Layout, kind: str, coder: ValueCoder, units: int, take: Take) -> Plan | None:
        """Reads the mask."""
        total, count = layout.entries(kind), _count(layout, kind, coder, units)
        width = subset_bits(total, count)
        rank = take(width)
        kept = subset_mask(total, count, rank)
        return Plan(kept_blocks(layout, kind, kept), (rank,), width, support=kept)

    def place(self, layout: Layout, kind: str, units: int, plan: Plan, flat: Array) -> Sent:
        """Entries in their places."""
        assert plan.support is not None
        return place_entries(layout, kind, plan.support, flat)

    def _order(self, factors: Factors) -> Array:
        if self.of == "factors":
            scores = np.abs(factors.flat())
        else:
            pieces = []
            for part in factors.parts:
                b, a = part.b0 + part.db, part.a0 + part.da
                if "b" in factors.kind:
                    pieces.append((np.abs(part.db) * np.linalg.norm(a, axis=2)[:, None, :]).reshape(-1))
                if "a" in factors.kind:
                    pieces.append((np.abs(part.da) * np.linalg.norm(b, axis=1)[:, :, None]).reshape(-1))
            scores = np.concatenate(pieces)
        return np.argsort(-scores, kind="stable")


def _count(layout: Layout, kind: str, coder: ValueCoder, units: int) -> int:
    menu = menu_of(layout, kind, coder, subset_bits)
    if not 0 <= units < len(menu):
        raise ValueError(f"units must be 0..{len(menu) - 1}, got {units}")
    return menu[units][0]


def scheme(config: Config) -> Scheme:
    """What is sent, without how it is written."""
    return TopK(config.of)


def build(config: Config, space: ParamSpace) -> Codec:
    """The codec."""
    codec = build_codec(config, space, scheme(config))
    return StateCodec(codec) if config.fallback == "zero" else wrap(codec, config)
