"""Small signed integers, mostly zero, as bits: the entropy coder of quantised updates.

Entries come in blocks of the same kind. On the wire: the number of non-zero entries of every block (Rice code); which
entries they are, all blocks as one number in mixed radix, ceil(log2 prod C(length, count)) bits (seldom one more);
which magnitudes exceed one, as a subset; signs; the rest of those magnitudes (Rice code). All codes are exact and need
no model on either side. Rice codes: quotients in unary, all of them first, then the remainders.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.special import gammaln

from raysoft.codecs.wire.bits import BitReader, BitWriter, subset_mask, subset_masks, subset_rank, subset_ranks
from raysoft.kernels.subsets import comb, subset_bits
from raysoft.types import Array

_RICE_BITS = 4  # the parameter of a Rice code, 0..15


@dataclass(frozen=True)
class Symbols:
    """Integers [P] and the lengths of their blocks [M], which both ends know."""

    values: Array
    lengths: Array


def symbol_bits(symbols: Symbols) -> int:
    """Bits of `write_symbols`; signs do not matter, and the integers may be of any type."""
    places = np.flatnonzero(symbols.values != 0)
    counts = _counts(places, symbols.lengths)
    magnitudes = np.abs(symbols.values[places]).astype(np.int64)
    large = magnitudes[magnitudes > 1] - 2
    return (
        _rice(counts)[1]
        + _place_bits(symbols.lengths, counts)
        + places.size.bit_length()
        + subset_bits(places.size, large.size)
        + places.size
        + (_rice(large)[1] if large.size else 0)
    )


def write_symbols(writer: BitWriter, symbols: Symbols) -> None:
    """Append all symbols, int64 of magnitudes below 2^31."""
    mask = symbols.values != 0
    counts = _counts(np.flatnonzero(mask), symbols.lengths)
    used = symbols.values[mask]
    large = np.abs(used) > 1
    size = int(large.sum())
    _write_rice(writer, counts)
    writer.integer(_rank(mask, symbols.lengths, counts), _place_bits(symbols.lengths, counts))
    writer.integer(size, used.size.bit_length())
    writer.integer(subset_rank(large), subset_bits(used.size, size))
    writer.integers((used < 0).astype(np.int64), 1)
    if size:
        _write_rice(writer, np.abs(used[large]) - 2)


def read_symbols(reader: BitReader, lengths: Array) -> Symbols:
    """The inverse. Raises ValueError where the payload is too short or names a subset that does not exist."""
    counts = _read_rice(reader, len(lengths))
    if (counts > lengths).any():
        raise ValueError("a block cannot have more non-zero entries than entries")
    mask = _unrank(lengths, counts, reader.integer(_place_bits(lengths, counts)))
    used = int(counts.sum())
    size = reader.integer(used.bit_length())
    large = subset_mask(used, size, reader.integer(subset_bits(used, size)))
    if int(large.sum()) != size:  # lists beyond the exact code carry their counts themselves
        raise ValueError(f"{size} magnitudes above one are announced, {int(large.sum())} are named")
    signs = reader.integers(used, 1)
    magnitudes = np.ones(used, dtype=np.int64)
    if size:
        magnitudes[large] = 2 + _read_rice(reader, size)
    values = np.zeros(int(np.sum(lengths)), dtype=np.int64)
    values[mask] = np.where(signs == 1, -magnitudes, magnitudes)
    return Symbols(values, lengths)


def _counts(places: Array, lengths: Array) -> Array:
    """Non-zero entries of every block, int64 [M], from their places in increasing order."""
    below = np.concatenate([[0], np.searchsorted(places, np.cumsum(lengths))])
    counts: Array = below[1:] - below[:-1]
    return counts


def _place_bits(lengths: Array, counts: Array) -> int:
    """ceil(log2 prod C(length, count)), or one more where the sum of logarithms is too close to tell."""
    log = _log_factorials(int(lengths.max(initial=0)))
    ways = log[lengths] - log[counts] - log[lengths - counts]
    return math.ceil(float(ways.sum()) / math.log(2.0) + 1e-6)


@lru_cache(maxsize=16)
def _log_factorials(largest: int) -> Array:
    """log n! for n = 0..largest."""
    logs: Array = gammaln(np.arange(largest + 1) + 1.0)
    return logs


def _rank(mask: Array, lengths: Array, counts: Array) -> int:
    """Every block's subset number, as digits of one number in mixed radix."""
    ranks = [0] * len(lengths)
    for blocks, places in _equal_lengths(lengths):
        for block, rank in zip(blocks.tolist(), subset_ranks(mask[places]), strict=True):
            ranks[block] = rank
    return _join(ranks, _ways(lengths, counts))


def _unrank(lengths: Array, counts: Array, code: int) -> Array:
    """The mask over all entries."""
    ranks = _split(code, _ways(lengths, counts))
    mask = np.zeros(int(np.sum(lengths)), dtype=bool)
    for blocks, places in _equal_lengths(lengths):
        mask[places] = subset_masks(places.shape[1], counts[blocks].tolist(), [ranks[k] for k in blocks.tolist()])
    return mask


def _equal_lengths(lengths: Array) -> Iterator[tuple[Array, Array]]:
    """Per length that occurs, zero left out: its blocks [M'] and the places of their entries [M', length]."""
    starts = np.cumsum(lengths) - lengths
    for length in np.unique(lengths[lengths > 0]).tolist():
        blocks = np.flatnonzero(lengths == length)
        yield blocks, starts[blocks][:, None] + np.arange(length)


def _ways(lengths: Array, counts: Array) -> list[int]:
    return [comb(n, k) for n, k in zip(lengths.tolist(), counts.tolist(), strict=True)]


def _join(digits: list[int], radices: list[int]) -> int:
    """((d_1 r_2 + d_2) r_3 + d_3) ..., neighbours first, so that factors stay of equal size."""
    for level in _products(radices)[:-1]:
        pairs = [high * radix + low for high, low, radix in zip(digits[::2], digits[1::2], level[1::2], strict=False)]
        digits = pairs + digits[2 * len(pairs) :]
    return digits[0] if digits else 0


def _split(code: int, radices: list[int]) -> list[int]:
    """The digits of `_join`. Raises ValueError for a number that is too large."""
    levels = _products(radices)
    if code >= levels[-1][0]:
        raise ValueError("the payload names a subset that does not exist")
    digits = [code]
    for level in reversed(levels[:-1]):
        pairs = [x for digit, radix in zip(digits, level[1::2], strict=False) for x in divmod(digit, radix)]
        digits = pairs + digits[len(pairs) // 2 :]
    return digits if radices else []


def _products(radices: list[int]) -> list[list[int]]:
    """The numbers, the products of neighbours, and so on up to the product of all."""
    levels = [radices or [1]]
    while len(levels[-1]) > 1:
        last = levels[-1]
        levels.append([math.prod(last[at : at + 2]) for at in range(0, len(last), 2)])
    return levels


def _rice(values: Array) -> tuple[int, int]:
    """The parameter with the fewest bits, and the bits with the parameter itself."""
    best, bits, rest = 0, int(values.sum()) + len(values), values
    for k in range(1, 1 << _RICE_BITS):
        if len(values) * (1 + k) >= bits:
            break
        rest = rest >> 1
        now = int(rest.sum()) + len(values) * (1 + k)
        if now < bits:
            best, bits = k, now
    return best, _RICE_BITS + bits


def _write_rice(writer: BitWriter, values: Array) -> None:
    k = _rice(values)[0]
    writer.integer(k, _RICE_BITS)
    writer.unary(values >> k)
    if k:
        writer.integers(values & ((1 << k) - 1), k)


def _read_rice(reader: BitReader, count: int) -> Array:
    k = reader.integer(_RICE_BITS)
    quotients = reader.unary(count)
    return quotients << k | reader.integers(count, k) if k else quotients
