"""How the kept values are written: float32, float16, an unbiased stochastic uniform quantiser, or rotated.py's.

Values come in blocks (one component's column of B, its row of A, a head tensor, ...). A block of the quantiser has
its own scale, the largest magnitude m, sent as float32: 32 bits a block, counted. Levels are symmetric: 2^q - 1 of
them over [-m, m], zero among them, so that what did not move is not moved (q = 1: the two levels -m and m). A value
between two levels goes up with the probability that makes the decoded value unbiased (Alistarh et al., "QSGD", 2017):
|error| < step = 2 m / (levels - 1), variance step^2 f (1 - f) <= step^2 / 4 with f the position between the levels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from raysoft.codecs.wire import rotated
from raysoft.codecs.wire.bits import BitReader, BitWriter
from raysoft.types import Array

SCALE_BITS = 32
_HALF_MAX = float(np.finfo(np.float16).max)
_FLOAT_MAX = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Values:
    """Numbers to send: flat float64 [M], the sizes of their blocks [N], and each block's peak where it is not its own.

    A peak above the block's largest magnitude is allowed: it makes the grid independent of which entries are sent.
    """

    flat: Array
    sizes: Array
    peaks: Array | None = None


class BlockCoder(Protocol):
    """How the values of a parcel are written."""

    def size(self, count: int, blocks: int) -> int:
        """Bits of `count` values in `blocks` blocks."""
        ...

    def write(self, writer: BitWriter, values: Values, rng: np.random.Generator) -> Array:
        """Append the values; returns what the reader will see, float32 [M]."""
        ...

    def read(self, reader: BitReader, sizes: Array) -> Array:
        """The values of blocks of these sizes, float32 [M]."""
        ...


@dataclass(frozen=True)
class ValueCoder:
    """Writes `bits` bits a value; 32 and 16 are floats, everything else is quantised."""

    bits: int
    rotated: bool = False  # rotate blocks before rounding; peaks are not used then

    @property
    def quantised(self) -> bool:
        """True where values are not floats."""
        return self.bits not in (16, 32)

    @property
    def stochastic(self) -> bool:
        """True where values are rounded at random."""
        return self.quantised and not self.rotated

    @property
    def block_bits(self) -> int:
        """Bits a block costs besides its values."""
        return (rotated.SCALE_BITS if self.rotated else SCALE_BITS) if self.quantised else 0

    def size(self, count: int, blocks: int) -> int:
        """Bits of `count` values in `blocks` blocks."""
        return count * self.bits + blocks * self.block_bits

    def write(self, writer: BitWriter, values: Values, rng: np.random.Generator) -> Array:
        """Append the values; returns what the reader will see, float32 [M]."""
        if not self.quantised:
            sent = _to_float(values.flat, self.bits)
            writer.floats(sent, self.bits)
            return sent
        if self.rotated:
            codes, exponents = rotated.round_blocks(values.flat, values.sizes, self._each(values.sizes))
            writer.integers(exponents, rotated.SCALE_BITS)
            writer.integers(codes, self.bits)
            return rotated.restore_blocks(codes, exponents, values.sizes, self._each(values.sizes))
        scales = _scales(values)
        writer.floats(scales, SCALE_BITS)
        step, position = self._positions(values, scales)
        levels = np.floor(position + rng.random(position.size)).clip(0, self._levels - 1).astype(np.int64)
        writer.integers(levels, self.bits)
        return self._decode(levels, step)

    def read(self, reader: BitReader, sizes: Array) -> Array:
        """The values of blocks of these sizes, float32 [M]."""
        count = int(np.sum(sizes))
        if not self.quantised:
            return reader.floats(count, self.bits)
        if self.rotated:
            exponents = reader.integers(len(sizes), rotated.SCALE_BITS)
            return rotated.restore_blocks(reader.integers(count, self.bits), exponents, sizes, self._each(sizes))
        scales = reader.floats(len(sizes), SCALE_BITS)
        levels = reader.integers(count, self.bits)
        return self._decode(levels, np.repeat(self._step(scales), sizes))

    def moments(self, values: Values) -> tuple[Array, Array]:
        """Mean and variance of what the reader will see, float64 [M] each."""
        if not self.quantised:
            return _to_float(values.flat, self.bits).astype(np.float64), np.zeros_like(values.flat)
        if self.rotated:
            each = self._each(values.sizes)
            codes, exponents = rotated.round_blocks(values.flat, values.sizes, each)
            mean = rotated.restore_blocks(codes, exponents, values.sizes, each)
            return mean.astype(np.float64), np.zeros_like(values.flat)
        step, position = self._positions(values, _scales(values))
        fraction = position - np.floor(position)
        return values.flat, step * step * fraction * (1.0 - fraction)

    def _each(self, sizes: Array) -> Array:
        return np.full(len(sizes), self.bits)

    @property
    def _levels(self) -> int:
        return 2 if self.bits == 1 else (1 << self.bits) - 1

    def _step(self, scales: Array) -> Array:
        return 2.0 * scales.astype(np.float64) / (self._levels - 1)

    def _positions(self, values: Values, scales: Array) -> tuple[Array, Array]:
        step = np.repeat(self._step(scales), values.sizes)
        safe = np.where(step > 0, step, 1.0)
        return step, values.flat / safe + (self._levels - 1) / 2.0

    def _decode(self, levels: Array, step: Array) -> Array:
        values: Array = (levels - (self._levels - 1) / 2.0) * step
        return values.astype(np.float32)


def _to_float(flat: Array, bits: int) -> Array:
    """Values as the wire rounds them, float32; out of range goes to the largest finite number."""
    if bits == 32:
        return flat.clip(-_FLOAT_MAX, _FLOAT_MAX).astype(np.float32)
    return flat.clip(-_HALF_MAX, _HALF_MAX).astype(np.float16).astype(np.float32)


def _scales(values: Values) -> Array:
    """Largest magnitude of every block, rounded up to float32 [N]."""
    peaks = values.peaks if values.peaks is not None else block_peaks(values.flat, values.sizes)
    scales = peaks.clip(0.0, _FLOAT_MAX).astype(np.float32)
    return np.where(scales < peaks, np.nextafter(scales, np.float32(_FLOAT_MAX)), scales)


def block_peaks(flat: Array, sizes: Array) -> Array:
    """max |value| of every block, 0 for an empty one; float64 [N]."""
    peaks = np.zeros(len(sizes))
    filled = np.asarray(sizes) > 0
    if filled.any():
        starts = np.cumsum(sizes) - sizes
        peaks[filled] = np.maximum.reduceat(np.abs(flat), starts[filled])
    return peaks
