"""Bits on the wire: a writer and a reader over real bytes, and the code for "which n of N".

Numbers are big-endian; the payload is padded with zeros to whole bytes and `num_bits` says where it ends. A subset
of n out of N costs ceil(log2 C(N, n)) bits, the shortest code of fixed length (enumerative coding: Cover, IEEE
Trans. Inf. Theory 19(1), 1973); n itself is known from the plan, so n = 0 and n = N cost nothing.
"""

from __future__ import annotations

from bisect import bisect_right
from functools import lru_cache
from itertools import accumulate

import numpy as np

from raysoft.codecs.wire.short_subsets import SHORT, short_masks, short_ranks, splits
from raysoft.kernels.subsets import BLOCK, blocks, ceil_log2_comb, comb, count_bits, subset_bits
from raysoft.types import Array, Payload

_TABLED = 512  # longest lists whose splits are remembered


class BitWriter:
    """Collects bits; whole bytes are kept as bytes, so that aligned floats cost no unpacking."""

    def __init__(self) -> None:
        self._chunks: list[Array] = []  # uint8 zeros and ones, or whole bytes (flag below)
        self._whole: list[bool] = []
        self.num_bits = 0

    def bytes_(self, data: Array) -> None:
        """Append whole bytes, uint8 [n]."""
        aligned = self.num_bits % 8 == 0
        self._push(data if aligned else np.unpackbits(data), aligned, 8 * data.size)

    def floats(self, values: Array, bits: int) -> None:
        """Append numbers as IEEE 754 binary32 (bits = 32) or binary16 (bits = 16)."""
        self.bytes_(np.frombuffer(values.astype(">f4" if bits == 32 else ">f2").tobytes(), dtype=np.uint8))

    def integers(self, values: Array, bits: int) -> None:
        """Append integers 0 <= value < 2^bits, each in `bits` <= 32 bits."""
        shifts = np.arange(bits - 1, -1, -1, dtype=np.uint32)
        flat = (values.astype(np.uint32)[:, None] >> shifts) & np.uint32(1)
        self._push(flat.astype(np.uint8).reshape(-1), False, flat.size)

    def integer(self, value: int, bits: int) -> None:
        """Append one integer of any width."""
        if bits:
            data = np.frombuffer(value.to_bytes((bits + 7) // 8, "big"), dtype=np.uint8)
            self._push(np.unpackbits(data)[8 * data.size - bits :], False, bits)

    def unary(self, values: Array) -> None:
        """Append numbers >= 0, each as that many ones and a zero."""
        ends = np.cumsum(values + 1)
        bits = np.ones(int(ends[-1]) if len(ends) else 0, dtype=np.uint8)
        bits[ends - 1] = 0
        self._push(bits, False, bits.size)

    def payload(self) -> Payload:
        """Everything written, padded to whole bytes."""
        parts: list[bytes] = []
        pending: list[Array] = []
        for chunk, whole in zip(self._chunks, self._whole, strict=True):
            if whole:
                parts.append(_pack(pending))
                pending = []
                parts.append(chunk.tobytes())
            else:
                pending.append(chunk)
        parts.append(_pack(pending))
        return Payload(b"".join(parts), self.num_bits)

    def _push(self, chunk: Array, whole: bool, num_bits: int) -> None:
        self._chunks.append(chunk)
        self._whole.append(whole)
        self.num_bits += num_bits


def _pack(pending: list[Array]) -> bytes:
    return np.packbits(np.concatenate(pending)).tobytes() if pending else b""


class BitReader:
    """Reads a payload from the front (values) and from the back (what says which values they are)."""

    def __init__(self, payload: Payload) -> None:
        self._data = np.frombuffer(payload.data, dtype=np.uint8)
        self._front = 0
        self._back = payload.num_bits

    @property
    def left(self) -> int:
        """Bits between the two ends."""
        return self._back - self._front

    def floats(self, count: int, bits: int) -> Array:
        """Numbers written by `BitWriter.floats`."""
        start = self._advance(count * bits)
        raw = (
            self._data[start // 8 : (start + count * bits) // 8]
            if start % 8 == 0
            else np.packbits(self._bits(start, count * bits))
        )
        return np.frombuffer(raw.tobytes(), dtype=">f4" if bits == 32 else ">f2").astype(np.float32)

    def integers(self, count: int, bits: int) -> Array:
        """Integers written by `BitWriter.integers`, int64 [count]."""
        flat = self._bits(self._advance(count * bits), count * bits).reshape(count, bits)
        return flat.astype(np.int64) @ (np.int64(1) << np.arange(bits - 1, -1, -1, dtype=np.int64))

    def integer(self, bits: int) -> int:
        """One integer of any width from the front."""
        start = self._advance(bits)
        if bits == 0:
            return 0
        data = np.packbits(np.concatenate([np.zeros(-bits % 8, dtype=np.uint8), self._bits(start, bits)]))
        return int.from_bytes(data.tobytes(), "big")

    def unary(self, count: int) -> Array:
        """Numbers written by `BitWriter.unary`, int64 [count]."""
        ends = np.flatnonzero(self._bits(self._front, self.left) == 0)[:count]
        if len(ends) < count:
            raise ValueError(f"payload too short: {count} numbers wanted, {len(ends)} found")
        self._advance(int(ends[-1]) + 1 if count else 0)
        return np.diff(ends, prepend=-1) - 1

    def last_integer(self, bits: int) -> int:
        """One integer of any width from the back."""
        if bits > self.left:
            raise ValueError(f"payload too short: {bits} bits wanted, {self.left} left")
        self._back -= bits
        if bits == 0:
            return 0
        data = np.packbits(np.concatenate([np.zeros(-bits % 8, dtype=np.uint8), self._bits(self._back, bits)]))
        return int.from_bytes(data.tobytes(), "big")

    def _advance(self, bits: int) -> int:
        if bits > self.left:
            raise ValueError(f"payload too short: {bits} bits wanted, {self.left} left")
        start, self._front = self._front, self._front + bits
        return start

    def _bits(self, start: int, count: int) -> Array:
        first = start // 8
        bits = np.unpackbits(self._data[first : (start + count + 7) // 8])
        return bits[start - 8 * first : start - 8 * first + count]


def subset_rank(mask: Array) -> int:
    """The number of a subset (bool [N]) among all of its size; written in `subset_bits(N, n)` bits."""
    total, count = mask.size, int(mask.sum())
    if count in (0, total):
        return 0
    if total <= BLOCK:
        return subset_ranks(mask[None])[0]
    code, used = 0, 0
    for start, stop in blocks(total):
        part, size = mask[start:stop], stop - start
        inside = int(part.sum())
        width = ceil_log2_comb(size, inside)
        code = (code << count_bits(size) | inside) << width | (subset_ranks(part[None])[0] if 0 < inside < size else 0)
        used += count_bits(size) + width
    return code << (subset_bits(total, count) - used)


def subset_mask(total: int, count: int, rank: int) -> Array:
    """The subset with this number, bool [total]: the inverse of `subset_rank`. Raises ValueError for no such number."""
    if count in (0, total):
        return np.full(total, count > 0)
    if total <= BLOCK:
        if not 0 <= rank < comb(total, count):
            raise ValueError(f"no subset of {count} out of {total} has this number")
        only: Array = subset_masks(total, [count], [rank])[0]
        return only
    mask = np.zeros(total, dtype=bool)
    left = subset_bits(total, count)
    for start, stop in blocks(total):
        left -= count_bits(stop - start)
        inside = min(rank >> left & ((1 << count_bits(stop - start)) - 1), stop - start)
        width = ceil_log2_comb(stop - start, inside)
        left -= width
        mask[start:stop] = subset_mask(stop - start, inside, rank >> left & ((1 << width) - 1))
    return mask


def subset_ranks(mask_MN: Array) -> list[int]:
    """Every subset's number among all of its size, for M masks over any N items.

    Divide and conquer: first how many lie in the left half (in the order of `splits`), then both halves. The sums
    touch a few standard deviations of a hypergeometric only, so N = 16384 takes milliseconds.
    """
    size = mask_MN.shape[1]
    if size <= SHORT:
        ranks: list[int] = short_ranks(mask_MN).tolist()
        return ranks
    middle = size // 2
    left, right = mask_MN[:, :middle], mask_MN[:, middle:]
    if size % 2:
        left_ranks, right_ranks = subset_ranks(left), subset_ranks(right)
    else:
        both = subset_ranks(mask_MN.reshape(-1, middle))
        left_ranks, right_ranks = both[::2], both[1::2]
    counts = zip(left.sum(axis=1).tolist(), right.sum(axis=1).tolist(), strict=True)
    return [
        _before(size, inside + others, inside) + high * comb(size - middle, others) + low
        for (inside, others), high, low in zip(counts, left_ranks, right_ranks, strict=True)
    ]


def subset_masks(size: int, counts: list[int], ranks: list[int]) -> Array:
    """The subsets with these numbers, bool [M, size]; a rank must be below C(size, count)."""
    if size <= SHORT:
        return short_masks(size, np.array(counts, dtype=np.int64), np.array(ranks, dtype=np.int64))
    middle = size // 2
    inside, others, high, low = [], [], [], []
    for count, rank in zip(counts, ranks, strict=True):
        left, rest = _split(size, count, rank)
        quotient, remainder = divmod(rest, comb(size - middle, count - left))
        inside.append(left)
        others.append(count - left)
        high.append(quotient)
        low.append(remainder)
    if size % 2:
        return np.concatenate([subset_masks(middle, inside, high), subset_masks(size - middle, others, low)], axis=1)
    both = [[x for pair in zip(*halves, strict=True) for x in pair] for halves in ((inside, others), (high, low))]
    return subset_masks(middle, *both).reshape(-1, size)


def _before(size: int, count: int, inside: int) -> int:
    """Subsets whose split comes before the one with `inside` items in the left half."""
    if size <= _TABLED:
        lefts, before = _order(size, count)
        return before[lefts.index(inside)]
    total = 0
    for left, ways in splits(size, count):
        if left == inside:
            break
        total += ways
    return total


def _split(size: int, count: int, rank: int) -> tuple[int, int]:
    """(items in the left half, number among the subsets with that split) of a subset's number."""
    if size <= _TABLED:
        lefts, before = _order(size, count)
        at = bisect_right(before, rank) - 1
        return lefts[at], rank - before[at]
    for left, ways in splits(size, count):
        if rank < ways:
            return left, rank
        rank -= ways
    raise ValueError(f"no subset of {count} out of {size} has this number")


@lru_cache(maxsize=4096)
def _order(size: int, count: int) -> tuple[list[int], list[int]]:
    """Items in the left half in the order of `splits`, and the subsets before each."""
    lefts, ways = zip(*splits(size, count), strict=True)
    return list(lefts), list(accumulate(ways[:-1], initial=0))
