"""Sparsification by rank components, the codec of SOFT: the most important pairs travel, the others stay at home.

Source: Kim and Choi, "Two-Stage Wireless Federated LoRA Fine-Tuning with Sparsified Orthogonal Updates", arXiv
2505.00333.

A component (b_j, a_j) travels whole or not at all; what is not sent keeps the broadcast's value. The payload is the
kept pairs and a mask of ceil(log2 C(N, n)) bits. Units are counts n of components (65 of them where N > 64); larger
counts nest where the importance is `norm` or `update`.

Where the broadcast holds an `order` of all components (method.shared_mask), it takes the place of the client's own
choice, importance and scope included: n components are its first n, both ends know them, and the mask costs nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import ClassVar

import numpy as np
from pydantic import model_validator

from raysoft.codecs.base import Codec, CodecConfig, told_revision
from raysoft.codecs.components import kept_sizes, kept_values, place_components
from raysoft.codecs.measure.curves import count_of, counts
from raysoft.codecs.measure.factors import Factors, Layout, Sent
from raysoft.codecs.measure.importance import (
    Importance,
    Losses,
    Ranking,
    Scope,
    norm_scores,
    rank_as_ordered,
    rank_components,
    rank_greedily,
)
from raysoft.codecs.memory.error_feedback import wrap
from raysoft.codecs.scheme import Choice, Lengths, Parcel, Plan, Scheme, Take, build_codec, sent_components
from raysoft.codecs.unmatched import Unmatched
from raysoft.codecs.wire.bits import subset_mask, subset_rank
from raysoft.codecs.wire.quantizer import ValueCoder
from raysoft.config import RunConfig, Traits
from raysoft.kernels.lowrank import component_gram
from raysoft.kernels.subsets import subset_bits
from raysoft.types import Array, ParamSpace


class Config(CodecConfig):
    """Which components come first, and whether matrices compete for bits."""

    rotates: ClassVar[bool] = True
    LATER: ClassVar[tuple[str, ...]] = ("matched",)

    importance: Importance = "update"
    """What components are ranked by: their norm, their change, or the largest exact drop of the error."""
    scope: Scope = "model"
    """Whether the components of all matrices compete, or each matrix keeps as many."""
    matched: bool = True
    """Whether a component's column of B and row of A travel together; false, to compare with: each chosen apart."""

    TRAITS: ClassVar[Traits] = Traits(follows_order=True, sends_components=True)

    @property
    def traits(self) -> Traits:
        """An order is one of whole components."""
        return replace(super().traits, follows_order=self.matched, sends_components=self.matched)

    def revision_in(self, run: RunConfig) -> int:
        """See `told_revision`."""
        return max(self.REVISION, told_revision(run, shapes_matter=True))

    @model_validator(mode="after")
    def _apart(self) -> Config:
        others = {"importance": ("norm", "update"), "scope": ("model",)}
        for option, allowed in others.items():
            if not self.matched and getattr(self, option) not in allowed:
                values = " or ".join(map(str, allowed))
                raise ValueError(f"matched: false goes with {option}: {values}, got {getattr(self, option)}")
        return self


@dataclass(frozen=True)
class RankComponents:
    """See the module."""

    importance: Importance
    scope: Scope
    follows_order: ClassVar[bool] = True
    lengths: ClassVar[Lengths] = "joint"

    def curve(self, factors: Factors, coder: ValueCoder) -> tuple[Array, Array]:
        """Costs and errors of every count on the menu."""
        ranking = self._ranking(factors, losses(factors, coder), coder)
        total = factors.layout.components
        spent = np.concatenate(
            [[0], component_bits(factors.layout, factors.kind, coder)[ranking.steps(total)].cumsum()]
        )
        menu = np.array(counts(total))
        told = 0 if factors.layout.order_N is not None else _mask_bits(total)
        return spent[menu] + told, ranking.error_N1[menu]

    def pick(self, factors: Factors, coder: ValueCoder, units: int, rng: np.random.Generator) -> Choice:
        """The best components of this count, or the first ones of the given order."""
        layout = factors.layout
        lost = losses(factors, coder)
        count = count_of(layout.components, units)
        given = layout.order_N is not None
        kept = layout.prefix(count) if given else self._ranking(factors, lost, coder).kept(count)
        # float32 values arrive as they are, so what is lost is what was dropped.
        gone = ~kept
        error = float((lost.dropped * (gone[:, :, None] & gone[:, None, :])).sum()) if coder.bits == 32 else None
        energy = float(lost.dropped.sum())
        diagonal = float(np.trace(lost.dropped, axis1=1, axis2=2).sum())
        stats = {
            "sent": sent_components(layout, kept),
            "cross_term_share": np.array((energy - diagonal) / energy if energy > 0 else 0.0),
        }
        sides = () if given else ((subset_rank(kept.reshape(-1)), subset_bits(layout.components, count)),)
        return Choice(Parcel(kept_values(factors, kept), sides, support=kept), error, energy, stats)

    def plan(self, layout: Layout, kind: str, coder: ValueCoder, units: int, take: Take) -> Plan | None:
        """Reads the mask, or knows it."""
        count = count_of(layout.components, units)
        if layout.order_N is not None:
            kept = layout.prefix(count)
            return Plan(kept_sizes(layout, kind, kept), support=kept)
        width = subset_bits(layout.components, count)
        rank = take(width)
        kept = subset_mask(layout.components, count, rank).reshape(layout.matrices, layout.rank)
        return Plan(kept_sizes(layout, kind, kept), (rank,), width, support=kept)

    def place(self, layout: Layout, kind: str, units: int, plan: Plan, flat: Array) -> Sent:
        """Columns of B and rows of A in their places."""
        assert plan.support is not None
        return place_components(layout, kind, plan.support, flat)

    def _ranking(self, factors: Factors, lost: Losses, coder: ValueCoder) -> Ranking:
        cost = component_bits(factors.layout, factors.kind, coder)
        if factors.layout.order_N is not None:
            return rank_as_ordered(lost, factors.layout)
        if self.importance == "gram_greedy":
            return rank_greedily(lost, cost, self.scope)
        scores = norm_scores(factors) if self.importance == "norm" else np.diagonal(lost.dropped, axis1=1, axis2=2)
        return rank_components(lost, scores, cost, self.scope)


def losses(factors: Factors, coder: ValueCoder) -> Losses:
    """What dropping, rounding and quantising components loses."""
    dropped = factors.gram_LRR()
    if coder.bits == 32:
        return Losses(dropped)
    layout = factors.layout
    everything = np.ones((layout.matrices, layout.rank), dtype=bool)
    mean, variance = coder.moments(kept_values(factors, everything))
    sent = place_components(layout, factors.kind, everything, mean)
    if coder.stochastic:
        noise = np.empty((layout.matrices, layout.rank))
        spread = place_components(layout, factors.kind, everything, variance)
        for part, (db, da), (vb, va) in zip(factors.parts, sent, spread, strict=True):
            b, a, var_b, var_a = part.b0 + db, part.a0 + da, vb.sum(1), va.sum(2)
            noise[part.group.index] = (b * b).sum(1) * var_a + (a * a).sum(2) * var_b + var_b * var_a
        return Losses(dropped, noise_LR=noise * factors.scale2)
    rounded, mixed = np.empty_like(dropped), np.empty_like(dropped)
    for part, (db, da) in zip(factors.parts, sent, strict=True):
        rest = (part.db - db, part.da - da, part.b0 + db, part.a0 + da)
        rounded[part.group.index] = component_gram(rest)
        mixed[part.group.index] = component_gram((part.db, part.da, part.b0, part.a0), rest)
    return Losses(dropped, rounded * factors.scale2, mixed * factors.scale2)


def component_bits(layout: Layout, kind: str, coder: ValueCoder) -> Array:
    """c_j: bits of one component of every matrix, its scales included; int64 [L]."""
    return layout.widths_L(kind) * coder.bits + len(kind) * coder.block_bits


@lru_cache(maxsize=1024)
def _mask_bits(total: int) -> Array:
    return np.array([subset_bits(total, count) for count in counts(total)], dtype=np.int64)


def scheme(config: Config) -> Scheme:
    """What is sent, without how it is written."""
    if not config.matched:
        assert config.importance != "gram_greedy"
        return Unmatched(config.importance)
    return RankComponents(config.importance, config.scope)


def build(config: Config, space: ParamSpace) -> Codec:
    """The codec."""
    return wrap(build_codec(config, space, scheme(config)), config)
