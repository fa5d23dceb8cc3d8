"""Codecs one after another: the first picks what travels, `topk` thins it out, `quantize` writes what is left.

Source: this project's; members have their own.

Encoding runs the list forwards, decoding backwards. Allowed are

* one codec that picks: identity, rank_components, topk, randomk, svd (or quantize alone);
* then topk, after identity or rank_components: of the picked values the `kept_fraction` of largest magnitude;
* then quantize: the values at `bits` bits instead of the chain's `bits_per_value`.

Units are those of the first codec. Options of the whole (kept fractions of the allocator, head_bits, error_feedback)
belong to the chain; a member may not have its own error feedback.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field, field_validator, model_validator

from raysoft.codecs import identity, quantize, randomk, rank_components, svd, topk
from raysoft.codecs.base import Codec, CodecConfig
from raysoft.codecs.measure.entries import diagonal_spread
from raysoft.codecs.measure.factors import Factors, Layout, Sent, Spread
from raysoft.codecs.memory.error_feedback import wrap
from raysoft.codecs.scheme import Choice, Lengths, Parcel, Plan, Scheme, Take, build_codec
from raysoft.codecs.wire.bits import subset_mask, subset_rank
from raysoft.codecs.wire.quantizer import ValueCoder, Values, block_peaks
from raysoft.config import PartError, Plugin, PluginList, RunConfig, Traits, parse_section
from raysoft.config.gone import without_gone
from raysoft.errors import ConfigError
from raysoft.kernels.subsets import subset_bits
from raysoft.types import Array, ParamSpace

MEMBERS: dict[str, ModuleType] = {
    "identity": identity,
    "rank_components": rank_components,
    "topk": topk,
    "randomk": randomk,
    "svd": svd,
    "quantize": quantize,
}


def _complete(member: Plugin) -> Plugin:
    """A member with its defaults filled in. Raises ConfigError, its field counted from the member on."""
    module = MEMBERS.get(member.name)
    if module is None:
        raise ConfigError("name", f"unknown codec {member.name!r} in a chain, choose from {', '.join(MEMBERS)}")
    config = parse_section(module.Config, without_gone("codec", member.name, member.options(), ""))
    for option, usual in (("fallback", "broadcast"), ("matched", True)):
        if getattr(config, option, usual) != usual:
            raise ConfigError(option, f"of {member.name} does not go with a chain, leave it at {usual}")
    for option, default in (
        ("error_feedback", False),
        ("error_feedback_decay", 1.0),
        ("error_feedback_clip", None),
        ("bits_per_value", 32),
        ("head_bits", 32),
        ("quantizer", "uniform"),
    ):
        if getattr(config, option) != default:
            raise ConfigError(option, f"belongs to the chain itself, leave it at {default} in {member.name}")
    return Plugin(name=member.name, **config.model_dump(mode="json", exclude=set(config.LATER)))


def _check_order(names: list[str]) -> None:
    if names[0] == "quantize" and len(names) > 1:
        raise ValueError("quantize comes last")
    middle = names[1:]
    if middle and middle[-1] == "quantize":
        middle = middle[:-1]
    if any(name != "topk" for name in middle) or len(middle) > 1:
        raise ValueError(f"after the first codec come topk at most once, then quantize; got {', '.join(names)}")
    if middle and names[0] not in ("identity", "rank_components"):
        raise ValueError(f"topk thins out identity or rank_components only, not {names[0]}")


class Config(CodecConfig):
    """The members, each {name, **options} or a name, in encoding order."""

    rotates: ClassVar[bool] = True

    codecs: Annotated[PluginList, Field(min_length=1, max_length=3)]
    """Member codecs in encoding order, each {name, options} or a name."""

    @model_validator(mode="after")
    def _blocks(self) -> Config:
        first = self.codecs[0].name
        if self.quantizer == "rotated" and not MEMBERS[first].Config.rotates:
            raise ValueError(f"quantizer: rotated needs whole columns and rows, which {first} does not send")
        return self

    def revision_in(self, run: RunConfig) -> int:
        """The latest one of the chain and its members."""
        members: list[int] = [_options(member).revision_in(run) for member in self.codecs]
        return max(self.REVISION, *members)

    @property
    def traits(self) -> Traits:
        """As the first member follows an order; what later ones thin out or quantise is not plain."""
        first: Traits = _options(self.codecs[0]).traits
        plain = super().traits.plain_values and len(self.codecs) == 1
        whole = first.sends_components and all(member.name != "topk" for member in self.codecs)
        return replace(super().traits, follows_order=first.follows_order, sends_components=whole, plain_values=plain)

    @field_validator("codecs", mode="after")
    @classmethod
    def _members(cls, members: list[Plugin]) -> list[Plugin]:
        complete = []
        for number, member in enumerate(members):
            try:
                complete.append(_complete(member))
            except ConfigError as error:
                raise PartError(number, error) from None
        _check_order([member.name for member in complete])
        return complete


def _options(member: Plugin) -> Any:
    return parse_section(MEMBERS[member.name].Config, member.options())


@dataclass(frozen=True)
class Thinned:
    """A picking scheme whose values are thinned out to the largest share of them.

    The mask over the picked values lies in front of the first scheme's; its size follows from that one.
    """

    first: Scheme
    share: float
    coder: ValueCoder

    @property
    def follows_order(self) -> bool:
        """As the first scheme."""
        return self.first.follows_order

    @property
    def lengths(self) -> Lengths:
        """As the first scheme."""
        return self.first.lengths

    def curve(self, factors: Factors, coder: ValueCoder) -> tuple[Array, Array]:
        """Every unit carried out; the expectation over the quantiser."""
        layout, kind = factors.layout, factors.kind
        units = len(self.first.curve(factors, coder)[0])
        unused = np.random.default_rng(0)  # identity and rank_components draw nothing
        bits, errors = [0], [factors.energy()]
        for unit in range(1, units):
            parcel = self.first.pick(factors, coder, unit, unused).parcel
            first = _plan_of(self.first, layout, kind, coder, unit, tuple(value for value, _ in parcel.sides))
            values, kept = self._thin(parcel.values)
            mean, variance = np.zeros(kept.size), np.zeros(kept.size)
            mean[kept], variance[kept] = coder.moments(values)
            spread: Spread | None = None
            if coder.stochastic:
                placed = self.first.place(layout, kind, unit, first, variance)
                flat = np.concatenate([t.reshape(-1) for b, a in placed for t in _travelling(kind, b, a)])
                spread = diagonal_spread(layout, kind, flat)
            errors.append(factors.error(self.first.place(layout, kind, unit, first, mean), spread))
            sides = first.side_bits + subset_bits(kept.size, values.flat.size)
            bits.append(coder.size(values.flat.size, len(values.sizes)) + sides)
        return np.array(bits), np.array(errors)

    def pick(self, factors: Factors, coder: ValueCoder, units: int, rng: np.random.Generator) -> Choice:
        """The first scheme's values, thinned out."""
        choice = self.first.pick(factors, coder, units, rng)
        values, kept = self._thin(choice.parcel.values)
        side = (subset_rank(kept), subset_bits(kept.size, values.flat.size))
        parcel = Parcel(values, (*choice.parcel.sides, side), support=kept)
        return Choice(parcel, None, choice.energy, choice.stats)

    def plan(self, layout: Layout, kind: str, coder: ValueCoder, units: int, take: Take) -> Plan | None:
        """The first scheme's plan, then the mask over its values."""
        first = self.first.plan(layout, kind, coder, units, take)
        if first is None:
            return None
        total = int(first.sizes.sum())
        width = subset_bits(total, self._count(total))
        rank = take(width)
        kept = subset_mask(total, self._count(total), rank)
        return Plan(_inside(kept, first.sizes), (*first.sides, rank), first.side_bits + width, support=kept)

    def place(self, layout: Layout, kind: str, units: int, plan: Plan, flat: Array) -> Sent:
        """Undoes the thinning, then the picking."""
        first = _plan_of(self.first, layout, kind, self.coder, units, plan.sides)
        assert plan.support is not None
        full = np.zeros(plan.support.size, dtype=flat.dtype)
        full[plan.support] = flat
        return self.first.place(layout, kind, units, first, full)

    def _thin(self, values: Values) -> tuple[Values, Array]:
        """The largest values, with their blocks' peaks as they were, and which ones they are (bool [M])."""
        kept = np.zeros(values.flat.size, dtype=bool)
        kept[np.argsort(-np.abs(values.flat), kind="stable")[: self._count(kept.size)]] = True
        peaks = block_peaks(values.flat, values.sizes)
        return Values(values.flat[kept], _inside(kept, values.sizes), peaks), kept

    def _count(self, total: int) -> int:
        return max(1, math.ceil(self.share * total))


def _plan_of(scheme: Scheme, layout: Layout, kind: str, coder: ValueCoder, units: int, sides: tuple[int, ...]) -> Plan:
    """The plan of a scheme whose integers are known."""
    known = iter(sides)
    plan = scheme.plan(layout, kind, coder, units, lambda width: next(known))
    assert plan is not None
    return plan


def _inside(kept: Array, sizes: Array) -> Array:
    return np.add.reduceat(kept.astype(np.int64), np.cumsum(sizes) - sizes)


def _travelling(kind: str, b: Array, a: Array) -> tuple[Array, ...]:
    return {"ab": (b, a), "b": (b,), "a": (a,)}[kind]


def build(config: Config, space: ParamSpace) -> Codec:
    """The codec."""
    members = [(member.name, _options(member)) for member in config.codecs]
    name, options = members[0]
    bits = members[-1][1].bits if len(members) > 1 and members[-1][0] == "quantize" else config.bits_per_value
    scheme: Scheme = MEMBERS[name].scheme(options)
    for name, options in members[1:]:
        if name == "topk":
            scheme = Thinned(scheme, options.kept_fraction, ValueCoder(bits, config.quantizer == "rotated"))
    return wrap(build_codec(config, space, scheme, bits), config)
