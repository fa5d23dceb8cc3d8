"""Small signed integers, mostly zero, as bits: the entropy coder of quantised updates.

Entries come in blocks of the same kind. On the wire: the number of non-zero entries of every block (Rice code); which
entries they are, all blocks as one number in mixed radix, ceil(log2 prod C(length, count)) bits (seldom one more); which magnitudes
exceed one, as a subset; signs; the rest of those magnitudes (Rice code). All codes are exact and need no model on
either side. Rice codes: quotients in unary, all of them first, then the remainders.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import gammaln

from raysoft.codecs.bits import BitReader, BitWriter, subset_bits, subset_mask, subset_rank
from raysoft.types import Array

_RICE_BITS = 4  # the parameter of a Rice code, 0..15


@dataclass(frozen=True)
class Symbols:
    """Integers [P] and the lengths of their blocks [M], which both ends know."""

    values: Array
    lengths: Array

    def counts(self) -> Array:
        """Non-zero entries of every block, int64 [M]."""
        edges = np.concatenate([[0], np.cumsum(self.lengths)])
        below = np.concatenate([[0], np.cumsum(self.values != 0)])
        return below[edges[1:]] - below[edges[:-1]]


def symbol_bits(symbols: Symbols) -> int:
    """Bits of `write_symbols`."""
    counts = symbols.counts()
    used = int(counts.sum())
    magnitudes = np.abs(symbols.values[symbols.values != 0])
    large = magnitudes[magnitudes > 1] - 2
    return (
        _rice_bits(counts)
        + _places(symbols.lengths, counts)
        + used.bit_length()
        + subset_bits(used, large.size)
        + used
        + (_rice_bits(large) if large.size else 0)
    )


def write_symbols(writer: BitWriter, symbols: Symbols) -> None:
    """Append all symbols."""
    counts = symbols.counts()
    used = symbols.values[symbols.values != 0]
    large = np.abs(used) > 1
    _write_rice(writer, counts)
    writer.integer(_rank(symbols, counts), _places(symbols.lengths, counts))
    writer.integer(int(large.sum()), used.size.bit_length())
    writer.integer(subset_rank(large), subset_bits(used.size, int(large.sum())))
    writer.integers((used < 0).astype(np.int64), 1)
    if large.any():
        _write_rice(writer, np.abs(used[large]) - 2)


def read_symbols(reader: BitReader, lengths: Array) -> Symbols:
    """The inverse. Raises ValueError where the payload is too short or names a subset that does not exist."""
    counts = _read_rice(reader, len(lengths))
    if (counts > lengths).any():
        raise ValueError("a block cannot have more non-zero entries than entries")
    places = _unrank(lengths, counts, reader.integer(_places(lengths, counts)))
    used = int(counts.sum())
    size = reader.integer(used.bit_length())
    large = subset_mask(used, size, reader.integer(subset_bits(used, size)))
    signs = reader.integers(used, 1)
    magnitudes = np.ones(used, dtype=np.int64)
    if large.any():
        magnitudes[large] = 2 + _read_rice(reader, size)
    values = np.zeros(int(np.sum(lengths)), dtype=np.int64)
    values[places] = np.where(signs == 1, -magnitudes, magnitudes)
    return Symbols(values, lengths)


def _ways(lengths: Array, counts: Array) -> list[int]:
    return [math.comb(n, k) for n, k in zip(lengths.tolist(), counts.tolist(), strict=True)]


def _places(lengths: Array, counts: Array) -> int:
    """ceil(log2 prod C(length, count)), or one more where the sum of logarithms is too close to tell."""
    log = gammaln(lengths + 1.0) - gammaln(counts + 1.0) - gammaln(lengths - counts + 1.0)
    return math.ceil(float(log.sum()) / math.log(2.0) + 1e-6)


def _rank(symbols: Symbols, counts: Array) -> int:
    """Every block's subset number, as digits of one number in mixed radix."""
    code, start = 0, 0
    mask = symbols.values != 0
    for length, count, ways in zip(symbols.lengths, counts, _ways(symbols.lengths, counts), strict=True):
        code *= ways
        if 0 < count < length:
            code += subset_rank(mask[start : start + length])
        start += int(length)
    return code


def _unrank(lengths: Array, counts: Array, code: int) -> Array:
    """The mask over all entries."""
    masks: list[Array] = []
    for length, count, ways in zip(lengths[::-1], counts[::-1], _ways(lengths, counts)[::-1], strict=True):
        code, rank = divmod(code, ways)
        masks.append(subset_mask(int(length), int(count), rank))
    if code:
        raise ValueError("the payload names a subset that does not exist")
    return np.concatenate(masks[::-1]) if masks else np.zeros(0, dtype=bool)


def _rice_sizes(values: Array) -> Array:
    """Bits of the values under every parameter, int64 [16]."""
    return np.array([int((values >> k).sum()) + len(values) * (1 + k) for k in range(1 << _RICE_BITS)])


def _rice_bits(values: Array) -> int:
    return _RICE_BITS + int(_rice_sizes(values).min())


def _write_rice(writer: BitWriter, values: Array) -> None:
    k = int(_rice_sizes(values).argmin())
    writer.integer(k, _RICE_BITS)
    writer.unary(values >> k)
    if k:
        writer.integers(values & ((1 << k) - 1), k)


def _read_rice(reader: BitReader, count: int) -> Array:
    k = reader.integer(_RICE_BITS)
    quotients = reader.unary(count)
    return quotients << k | reader.integers(count, k) if k else quotients
