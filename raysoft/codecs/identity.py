"""Everything is sent: the dense uplink, at `bits_per_value` bits a value.

Source: this project's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from raysoft.codecs.base import Codec, CodecConfig
from raysoft.codecs.components import kept_sizes, kept_values, place_components
from raysoft.codecs.measure.factors import Factors, Layout, Sent
from raysoft.codecs.memory.error_feedback import wrap
from raysoft.codecs.rank_components import component_bits, losses
from raysoft.codecs.scheme import Choice, Lengths, Parcel, Plan, Scheme, Take, build_codec, sent_components
from raysoft.codecs.wire.quantizer import ValueCoder
from raysoft.config import Traits
from raysoft.types import Array, ParamSpace


class Config(CodecConfig):
    """No options of its own."""

    rotates: ClassVar[bool] = True
    TRAITS: ClassVar[Traits] = Traits(sends_everything=True, sends_components=True)


@dataclass(frozen=True)
class Identity:
    """One unit: all or nothing. Quantised values have a scale for every column of B and row of A."""

    follows_order: ClassVar[bool] = False
    lengths: ClassVar[Lengths] = "fixed"

    def curve(self, factors: Factors, coder: ValueCoder) -> tuple[Array, Array]:
        """Two points."""
        return np.array([0, dense_bits(factors.layout, factors.kind, coder)]), dense_errors(factors, coder)

    def pick(self, factors: Factors, coder: ValueCoder, units: int, rng: np.random.Generator) -> Choice:
        """Everything."""
        _check(units)
        kept = everything(factors.layout)
        error = 0.0 if coder.bits == 32 else None
        return Choice(Parcel(kept_values(factors, kept)), error, stats={"sent": sent_components(factors.layout, kept)})

    def plan(self, layout: Layout, kind: str, coder: ValueCoder, units: int, take: Take) -> Plan | None:
        """All blocks."""
        _check(units)
        return Plan(kept_sizes(layout, kind, everything(layout)))

    def place(self, layout: Layout, kind: str, units: int, plan: Plan, flat: Array) -> Sent:
        """All values."""
        return place_components(layout, kind, everything(layout), flat)


def _check(units: int) -> None:
    if units != 1:
        raise ValueError(f"units must be 0 or 1, got {units}")


def everything(layout: Layout) -> Array:
    """All components, bool [L, R]."""
    return np.ones((layout.matrices, layout.rank), dtype=bool)


def dense_bits(layout: Layout, kind: str, coder: ValueCoder) -> int:
    """Bits of all factors, scales included."""
    return int(component_bits(layout, kind, coder).sum()) * layout.rank


def dense_errors(factors: Factors, coder: ValueCoder) -> Array:
    """Errors of sending nothing and of sending everything, float64 [2]."""
    lost = losses(factors, coder)
    rounding = 0.0 if lost.rounded is None else float(lost.rounded.sum())
    noise = 0.0 if lost.noise_LR is None else float(lost.noise_LR.sum())
    return np.array([float(lost.dropped.sum()), rounding + noise])


def scheme(config: Config) -> Scheme:
    """What is sent, without how it is written."""
    return Identity()


def build(config: Config, space: ParamSpace) -> Codec:
    """The codec."""
    return wrap(build_codec(config, space, scheme(config)), config)
