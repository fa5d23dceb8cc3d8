"""Every column of B and row of A at its own resolution: what matters gets bits, what does not gets none.

Source: this project's, by reverse water-filling; Cover and Thomas, Elements of Information Theory, section 10.3.

Reverse water-filling (Shannon 1959): the error of a vector falls about four times a
bit, so the bits that lower the error in effective weights the most for their cost are those that leave every vector
the same weighted error. A column db_j counts ||db_j||^2 ||a_j||^2, a row da_j counts ||da_j||^2 ||b_j||^2; both are
rounded as in wire/rotated.py to 1..`max_bits` bits a value, or stay at home (0 bits), so this is sparsification and
quantisation in one. The unit u of 64 may spend u/64 of `bits` bits a value, all included; exactly that is sent.

Payload: scales of the vectors that travel, their values, zeros up to the budget, then (read from the back) the
resolutions: how many vectors have at least 1 bit, and which; how many of these at least 2, and which; and so on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field, model_validator

from raysoft.codecs.base import Codec, CodecConfig
from raysoft.codecs.components import kept_sizes, kept_values, place_components
from raysoft.codecs.identity import everything
from raysoft.codecs.measure.curves import MAX_UNITS
from raysoft.codecs.measure.factors import Factors, Layout, Sent
from raysoft.codecs.measure.gradings import Grades, grade
from raysoft.codecs.memory.error_feedback import wrap
from raysoft.codecs.scheme import Choice, Lengths, Parcel, Plan, Scheme, Take, build_codec, sent_components
from raysoft.codecs.wire.bits import BitReader, BitWriter, subset_mask, subset_rank
from raysoft.codecs.wire.quantizer import ValueCoder, Values
from raysoft.codecs.wire.rotated import FINEST, SCALE_BITS, restore_blocks, round_blocks
from raysoft.kernels.subsets import subset_bits
from raysoft.types import Array, ParamSpace


class Config(CodecConfig):
    """`bits`: of a value on average, in the largest unit."""

    bits: Annotated[int, Field(ge=1, le=FINEST)] = 4
    """Bits of a value on average, in the largest unit. [bit]"""
    max_bits: Annotated[int, Field(ge=1, le=FINEST)] = 6
    """Bits of a value where it matters most. [bit]"""

    @model_validator(mode="after")
    def _checked(self) -> Config:
        if self.bits_per_value != 32:
            raise ValueError(
                f"waterfill chooses its own resolutions; leave bits_per_value at 32, not {self.bits_per_value}"
            )
        if self.max_bits < self.bits:
            raise ValueError(f"max_bits ({self.max_bits}) must not be below bits ({self.bits})")
        return self


@dataclass(frozen=True)
class GradedCoder:
    """Blocks of rotated values, each at its own resolution, then `padding` zeros."""

    sizes_N: Array
    bits_N: Array
    padding: int

    def size(self, count: int, blocks: int) -> int:
        """Bits of its own blocks."""
        return _value_bits(self.sizes_N, self.bits_N) + self.padding

    def write(self, writer: BitWriter, values: Values, rng: np.random.Generator) -> Array:
        """Append the values; returns what the reader will see, float32 [M]."""
        codes, scales = round_blocks(values.flat, values.sizes, self.bits_N)
        writer.integers(scales, SCALE_BITS)
        each = np.repeat(self.bits_N, self.sizes_N)
        for bits in np.unique(each).tolist():
            writer.integers(codes[each == bits], bits)
        writer.integer(0, self.padding)
        return restore_blocks(codes, scales, values.sizes, self.bits_N)

    def read(self, reader: BitReader, sizes: Array) -> Array:
        """The values of its blocks, float32 [M]."""
        scales = reader.integers(len(sizes), SCALE_BITS)
        each = np.repeat(self.bits_N, sizes)
        codes = np.zeros(each.size, dtype=np.int64)
        for bits in np.unique(each).tolist():
            codes[each == bits] = reader.integers(int((each == bits).sum()), bits)
        return restore_blocks(codes, scales, sizes, self.bits_N)


@dataclass(frozen=True)
class Waterfill:
    """See the module. Vectors are numbered as blocks of `kept_values`."""

    bits: int
    max_bits: int
    follows_order: ClassVar[bool] = False
    lengths: ClassVar[Lengths] = "fixed"

    def curve(self, factors: Factors, coder: ValueCoder) -> tuple[Array, Array]:
        """The budgets, and the exact error of what would be sent for each."""
        budgets = self._budgets(factors.layout, factors.kind)
        grades = grade(factors, self.max_bits)
        errors = [factors.energy()]
        errors += [grades.error(self._resolutions(grades, int(budget))) for budget in budgets[1:]]
        return budgets, np.array(errors)

    def pick(self, factors: Factors, coder: ValueCoder, units: int, rng: np.random.Generator) -> Choice:
        """What the budget of this unit buys."""
        layout, kind = factors.layout, factors.kind
        budget = self._budget(layout, kind, units)
        bits_N = self._resolutions(grade(factors, self.max_bits), budget)
        every = kept_values(factors, everything(layout))
        travels = bits_N > 0
        flat = every.flat[np.repeat(travels, every.sizes)]
        sides = resolution_sides(bits_N, self.max_bits)
        sizes, spent = every.sizes[travels], sum(width for _, width in sides)
        graded = GradedCoder(sizes, bits_N[travels], budget - spent - _value_bits(sizes, bits_N[travels]))
        kept_LR = np.zeros((layout.matrices, layout.rank), dtype=bool)
        for index, *vectors in _by_group(layout, kind, travels):
            kept_LR[index] = np.any(vectors, axis=0)
        return Choice(
            Parcel(Values(flat, sizes), sides, coder=graded, support=travels),
            stats={"sent": sent_components(layout, kept_LR)},
        )

    def plan(self, layout: Layout, kind: str, coder: ValueCoder, units: int, take: Take) -> Plan | None:
        """Reads the resolutions. Raises ValueError where they are none of this unit."""
        budget = self._budget(layout, kind, units)
        sizes = kept_sizes(layout, kind, everything(layout))
        bits_N, taken, spent = take_resolutions(len(sizes), self.max_bits, take)
        travels = bits_N > 0
        padding = budget - spent - _value_bits(sizes[travels], bits_N[travels])
        if padding < 0:
            raise ValueError(f"more than the {budget} bits of {units} units")
        graded = GradedCoder(sizes[travels], bits_N[travels], padding)
        return Plan(sizes[travels], taken, spent, coder=graded, support=travels)

    def place(self, layout: Layout, kind: str, units: int, plan: Plan, flat: Array) -> Sent:
        """Vectors in their places."""
        sizes = kept_sizes(layout, kind, everything(layout))
        assert plan.support is not None
        full = np.zeros(int(sizes.sum()), dtype=flat.dtype)
        full[np.repeat(plan.support, sizes)] = flat
        return place_components(layout, kind, everything(layout), full)

    def _budgets(self, layout: Layout, kind: str) -> Array:
        """Bits of every unit; a function of the shapes alone. Unit 0 sends nothing."""
        sizes = kept_sizes(layout, kind, everything(layout))
        least = _count_bits(len(sizes))  # says that nothing has a resolution
        full = _value_bits(sizes, np.full(len(sizes), self.bits))
        units = min(MAX_UNITS, max(full // 4, 1))  # steps wider than the bits that tell the kinds apart
        return np.array([0, *(least + unit * full // units for unit in range(1, units + 1))], dtype=np.int64)

    def _budget(self, layout: Layout, kind: str, units: int) -> int:
        budgets = self._budgets(layout, kind)
        if not 0 <= units < len(budgets):
            raise ValueError(f"units must be 0..{len(budgets) - 1}, got {units}")
        return int(budgets[units])

    def _resolutions(self, grades: Grades, budget: int) -> Array:
        """Resolutions of all vectors, int64 [N]: the most steps of the order that the budget allows."""
        fit, stop = 0, int(np.searchsorted(grades.spent_S, budget, side="right"))
        while stop - fit > 1:  # `fit` steps fit, `stop` steps are not known to
            middle = (fit + stop) // 2
            above = [len(grades.sizes_N), *grades.above_SQ[middle].tolist()]
            if int(grades.spent_S[middle]) + side_bits(above) <= budget:
                fit = middle
            else:
                stop = middle
        return grades.resolutions(fit)


def resolution_sides(bits_N: Array, most: int) -> tuple[tuple[int, int], ...]:
    """Resolutions 0..most as integers (value, width): count and subset of those above 0, of these above 1, ..."""
    sides: list[tuple[int, int]] = []
    left = bits_N
    for level in range(most):
        if not left.size:
            break
        above = left > level
        count = int(above.sum())
        sides.append((count, _count_bits(left.size)))
        sides.append((subset_rank(above), subset_bits(left.size, count)))
        left = left[above]
    return tuple(sides)


def side_bits(above: Sequence[int]) -> int:
    """Bits of `resolution_sides`: of all vectors, those above 0, above 1, ..."""
    return sum(_count_bits(of) + subset_bits(of, count) for of, count in pairwise(above) if of)


def take_resolutions(total: int, most: int, take: Take) -> tuple[Array, tuple[int, ...], int]:
    """The inverse of `resolution_sides`: resolutions, the integers read, and their bits."""
    bits_N = np.zeros(total, dtype=np.int64)
    taken: list[int] = []
    spent = 0
    members = np.arange(total)
    for _ in range(most):
        if not members.size:
            break
        count = take(_count_bits(members.size))
        if count > members.size:
            raise ValueError(f"{count} of {members.size} vectors")
        width = subset_bits(members.size, count)
        rank = take(width)
        above = subset_mask(members.size, count, rank)
        if above.sum() != count:
            raise ValueError(f"no subset of {count} out of {members.size}")
        taken += [count, rank]
        spent += _count_bits(members.size) + width
        members = members[above]
        bits_N[members] += 1
    return bits_N, tuple(taken), spent


def _count_bits(size: int) -> int:
    return size.bit_length()


def _value_bits(sizes_N: Array, bits_N: Array) -> int:
    """Values and scales of the vectors that travel."""
    return int(np.dot(sizes_N, bits_N)) + SCALE_BITS * int((bits_N > 0).sum())


def _by_group(layout: Layout, kind: str, of_N: Array) -> Sequence[tuple[Array, ...]]:
    """Something of every vector by group: (matrix numbers, of B [L, R], of A [L, R]) as far as they travel."""
    out, at = [], 0
    for group in layout.groups:
        size = len(group.index) * layout.rank
        stacks = []
        for _ in kind:
            stacks.append(of_N[at : at + size].reshape(-1, layout.rank))
            at += size
        out.append((group.index, *stacks))
    return out


def scheme(config: Config) -> Scheme:
    """What is sent, without how it is written."""
    return Waterfill(config.bits, config.max_bits)


def build(config: Config, space: ParamSpace) -> Codec:
    """The codec."""
    return wrap(build_codec(config, space, scheme(config)), config)
