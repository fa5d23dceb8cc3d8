"""All entries at few bits: the units are the resolutions 2, 3, ..., `bits` of the quantiser.

Source: stochastic levels as in QSGD; Alistarh et al., NeurIPS 2017 (arXiv 1610.02132).

Every column of B and row of A has its own scale. Errors are 4 times smaller a bit, roughly; those of the stochastic
quantiser are expectations. The decoder knows the resolution from the unit.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field, model_validator

from raysoft.codecs.base import Codec, CodecConfig
from raysoft.codecs.components import kept_sizes, kept_values, place_components
from raysoft.codecs.identity import dense_bits, dense_errors, everything
from raysoft.codecs.measure.factors import Factors, Layout, Sent
from raysoft.codecs.memory.error_feedback import wrap
from raysoft.codecs.scheme import Choice, Lengths, Parcel, Plan, Scheme, Take, build_codec, sent_components
from raysoft.codecs.wire.quantizer import ValueCoder
from raysoft.config import Traits
from raysoft.types import Array, ParamSpace

FIRST = 2


class Config(CodecConfig):
    """The finest resolution."""

    rotates: ClassVar[bool] = True
    TRAITS: ClassVar[Traits] = Traits(sends_components=True)

    bits: Annotated[int, Field(ge=FIRST, le=15)] = 8
    """Finest resolution of a value. [bit]"""

    @model_validator(mode="after")
    def _one_resolution(self) -> Config:
        if self.bits_per_value != 32:
            raise ValueError(
                f"quantize takes its resolution from `bits`; leave bits_per_value at 32, not {self.bits_per_value}"
            )
        return self


@dataclass(frozen=True)
class Quantize:
    """See the module."""

    bits: int
    follows_order: ClassVar[bool] = False
    lengths: ClassVar[Lengths] = "fixed"

    def curve(self, factors: Factors, coder: ValueCoder) -> tuple[Array, Array]:
        """One point a resolution."""
        coders = [replace(coder, bits=bits) for bits in range(FIRST, self.bits + 1)]
        costs = [dense_bits(factors.layout, factors.kind, each) for each in coders]
        errors = [float(dense_errors(factors, each)[1]) for each in coders]
        return np.array([0, *costs]), np.array([factors.energy(), *errors])

    def pick(self, factors: Factors, coder: ValueCoder, units: int, rng: np.random.Generator) -> Choice:
        """Everything at this unit's resolution."""
        kept = everything(factors.layout)
        parcel = Parcel(kept_values(factors, kept), coder=self._coder(coder, units))
        return Choice(parcel, stats={"sent": sent_components(factors.layout, kept)})

    def plan(self, layout: Layout, kind: str, coder: ValueCoder, units: int, take: Take) -> Plan | None:
        """All blocks at this unit's resolution."""
        return Plan(kept_sizes(layout, kind, everything(layout)), coder=self._coder(coder, units))

    def place(self, layout: Layout, kind: str, units: int, plan: Plan, flat: Array) -> Sent:
        """All values."""
        return place_components(layout, kind, everything(layout), flat)

    def _coder(self, coder: ValueCoder, units: int) -> ValueCoder:
        if not 1 <= units <= self.bits - FIRST + 1:
            raise ValueError(f"units must be 0..{self.bits - FIRST + 1}, got {units}")
        return replace(coder, bits=FIRST + units - 1)


def scheme(config: Config) -> Scheme:
    """What is sent, without how it is written."""
    return Quantize(config.bits)


def build(config: Config, space: ParamSpace) -> Codec:
    """The codec."""
    return wrap(build_codec(config, space, scheme(config)), config)
