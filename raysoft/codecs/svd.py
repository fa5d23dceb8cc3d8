"""Low-rank truncation of the update, matrix by matrix.

Source: this project's, after Eckart and Young, Psychometrika 1936.

The server averages factors, so the truncation has to be one of (dB, dA), not of the product s (B A - B0 A0). The two
factor changes are truncated to rank t each in the metric of effective weights: with the SVD dB A = U S V^T (QR kernel,
no O x I matrix), U_t U_t^T dB is the X of rank t that minimises ||(dB - X) A||_F (Eckart-Young); likewise dA V_t V_t^T
with B dA = U' S' V^T. Sent are U_t [O, t] and U_t^T dB [t, R], and V_t [I, t] and dA V_t [R, t]: t (O + R) + t (R + I)
values a matrix, against R (O + I).

Units are t = 1, 2, ... as far as this is shorter than the factors themselves; the last unit sends the factors as they
are. Quantised, every column of a sent factor is a block.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from raysoft.codecs.base import Codec, CodecConfig
from raysoft.codecs.components import kept_sizes, kept_values, place_components
from raysoft.codecs.identity import dense_bits, dense_errors, everything
from raysoft.codecs.measure.curves import MAX_UNITS, cheapest_first
from raysoft.codecs.measure.factors import Factors, Group, Layout, Sent, Spread
from raysoft.codecs.memory.error_feedback import wrap
from raysoft.codecs.scheme import Choice, Lengths, Parcel, Plan, Scheme, Take, build_codec
from raysoft.codecs.wire.quantizer import ValueCoder, Values
from raysoft.config import Traits
from raysoft.kernels.lowrank import product_svd
from raysoft.types import Array, ParamSpace

Thin = tuple[Array, Array]
"""One truncated factor change as two thin matrices: basis [L, O or I, t] and coefficients [L, R, t]."""


class Config(CodecConfig):
    """No options of its own."""

    rotates: ClassVar[bool] = True
    TRAITS: ClassVar[Traits] = Traits(sends_components=True)


@dataclass(frozen=True)
class Svd:
    """See the module."""

    follows_order: ClassVar[bool] = False
    lengths: ClassVar[Lengths] = "fixed"

    def curve(self, factors: Factors, coder: ValueCoder) -> tuple[Array, Array]:
        """Exact errors of every rank; the expectation over the quantiser."""
        layout, kind = factors.layout, factors.kind
        thin = _thin(factors)
        menu = _menu(layout, kind, coder)
        errors = [factors.energy()]
        for rank in (rank for rank in menu[1:] if rank is not None):
            sizes = _sizes(layout, kind, rank)
            mean, variance = coder.moments(Values(_cut(thin, rank), sizes))
            means = _read(layout, kind, rank, mean)
            spread = _spread(means, _read(layout, kind, rank, variance), layout) if coder.stochastic else None
            errors.append(factors.error(_product(means, layout), spread))
        errors.append(float(dense_errors(factors, coder)[1]))
        bits = [_bits(layout, kind, rank, coder) for rank in menu]
        return np.array(bits), np.array(errors)

    def pick(self, factors: Factors, coder: ValueCoder, units: int, rng: np.random.Generator) -> Choice:
        """The truncation of this unit."""
        rank = _rank(factors.layout, factors.kind, coder, units)
        if rank is None:
            return Choice(Parcel(kept_values(factors, everything(factors.layout))))
        flat = _cut(_thin(factors), rank)
        return Choice(Parcel(Values(flat, _sizes(factors.layout, factors.kind, rank)), ((rank, 0),)))

    def plan(self, layout: Layout, kind: str, coder: ValueCoder, units: int, take: Take) -> Plan | None:
        """Sizes of the thin matrices."""
        rank = _rank(layout, kind, coder, units)
        if rank is None:
            return Plan(kept_sizes(layout, kind, everything(layout)))
        return Plan(_sizes(layout, kind, rank), (rank,))

    def place(self, layout: Layout, kind: str, units: int, plan: Plan, flat: Array) -> Sent:
        """Multiplies the thin matrices."""
        if not plan.sides:
            return place_components(layout, kind, everything(layout), flat)
        sent = _product(_read(layout, kind, plan.sides[0], flat.astype(np.float64)), layout)
        return [(db.astype(flat.dtype), da.astype(flat.dtype)) for db, da in sent]


def _bits(layout: Layout, kind: str, rank: int | None, coder: ValueCoder) -> int:
    if rank is None:
        return dense_bits(layout, kind, coder)
    sizes = _sizes(layout, kind, rank)
    return coder.size(int(sizes.sum()), len(sizes))


def _menu(layout: Layout, kind: str, coder: ValueCoder) -> list[int | None]:
    """Ranks of the units 0, 1, ...; None stands for the factors themselves."""
    ranks: list[int | None] = [*_ranks(layout), None]
    return [ranks[k] for k in cheapest_first([_bits(layout, kind, rank, coder) for rank in ranks])]


def _ranks(layout: Layout) -> list[int]:
    step = -(-layout.rank // (MAX_UNITS - 1))  # at most 65 points
    return list(range(0, layout.rank, step))


def _rank(layout: Layout, kind: str, coder: ValueCoder, units: int) -> int | None:
    menu = _menu(layout, kind, coder)
    if not 0 <= units < len(menu):
        raise ValueError(f"units must be 0..{len(menu) - 1}, got {units}")
    return menu[units]


def _width(group: Group, rank: int) -> int:
    """A matrix bounds the rank of its update."""
    return min(rank, group.out_features, group.in_features)


def _sizes(layout: Layout, kind: str, rank: int) -> Array:
    """One block for every column of a basis and of its coefficients."""
    sizes = [np.zeros(0, dtype=np.int64)]
    for group in layout.groups:
        for width in group.widths(kind):
            columns = len(group.index) * _width(group, rank)
            sizes += [np.full(columns, width), np.full(columns, layout.rank)]
    return np.concatenate(sizes)


def _thin(factors: Factors) -> list[list[Thin]]:
    """Bases and coefficients of every group at full rank; their first t columns are the truncation to rank t."""
    thin = []
    for part in factors.parts:
        pieces = []
        if "b" in factors.kind:
            u, _, _ = product_svd(part.db, part.a0 + part.da)
            pieces.append((u, np.swapaxes(part.db, -1, -2) @ u))
        if "a" in factors.kind:
            _, _, vt = product_svd(part.b0 + part.db, part.da)
            v = np.swapaxes(vt, -1, -2)
            pieces.append((v, part.da @ v))
        thin.append(pieces)
    return thin


def _cut(thin: list[list[Thin]], rank: int) -> Array:
    """First columns of every basis and its coefficients, column by column."""
    pieces = [
        np.swapaxes(matrix[:, :, :rank], -1, -2).reshape(-1) for group in thin for pair in group for matrix in pair
    ]
    return np.concatenate(pieces)


def _read(layout: Layout, kind: str, rank: int, flat: Array) -> list[dict[str, Thin]]:
    """The inverse of `_cut`, by group and factor."""
    out = []
    at = 0
    for group in layout.groups:
        found = {}
        for letter, width in zip((c for c in "ba" if c in kind), group.widths(kind), strict=True):
            columns = _width(group, rank)
            matrices = []
            for rows in (width, layout.rank):
                size = len(group.index) * columns * rows
                matrices.append(np.swapaxes(flat[at : at + size].reshape(len(group.index), columns, rows), -1, -2))
                at += size
            found[letter] = (matrices[0], matrices[1])
        out.append(found)
    return out


def _product(thin: list[dict[str, Thin]], layout: Layout) -> Sent:
    """dB = U C^T and dA = C V^T."""
    sent: Sent = []
    for group, found in zip(layout.groups, thin, strict=True):
        count = len(group.index)
        db, da = np.zeros((count, group.out_features, layout.rank)), np.zeros((count, layout.rank, group.in_features))
        if "b" in found:
            db = found["b"][0] @ np.swapaxes(found["b"][1], -1, -2)
        if "a" in found:
            da = found["a"][1] @ np.swapaxes(found["a"][0], -1, -2)
        sent.append((db, da))
    return sent


def _spread(means: list[dict[str, Thin]], variances: list[dict[str, Thin]], layout: Layout) -> Spread:
    """E[N^T N] of U C^T with independent noise on U and C, for both factors: float64 [L, R, R]."""
    spread: Spread = []
    for group, mean, variance in zip(layout.groups, means, variances, strict=True):
        none = np.zeros((len(group.index), layout.rank, layout.rank))
        both = {"b": none, "a": none}
        for letter, (basis, coefficients) in mean.items():
            var_basis = variance[letter][0].sum(axis=1)
            noise_u = var_basis[:, None, :]  # E||noise of column t||^2
            from_u = (coefficients * noise_u) @ np.swapaxes(coefficients, -1, -2)
            norms = (basis * basis).sum(axis=1) + var_basis
            from_c = (variance[letter][1] * norms[:, None, :]).sum(axis=2)
            both[letter] = from_u + from_c[:, :, None] * np.eye(layout.rank)
        spread.append((both["b"], both["a"]))
    return spread


def scheme(config: Config) -> Scheme:
    """What is sent, without how it is written."""
    return Svd()


def build(config: Config, space: ParamSpace) -> Codec:
    """The codec."""
    return wrap(build_codec(config, space, scheme(config)), config)
