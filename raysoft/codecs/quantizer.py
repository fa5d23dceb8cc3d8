"""How the kept values are written: float32, float16, or an unbiased stochastic uniform quantiser.

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

from raysoft.codecs.bits import BitReader, BitWriter
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

    @property
    def stochastic(self) -> bool:
        """True where values are quantised at random."""
        return self.bits not in (16, 32)

    @property
    def block_bits(self) -> int:
        """Bits a block costs besides its values."""
        return SCALE_BITS if self.stochastic else 0

    def size(self, count: int, blocks: int) -> int:
        """Bits of `count` values in `blocks` blocks."""
        return count * self.bits + blocks * self.block_bits

    def write(self, writer: BitWriter, values: Values, rng: np.random.Generator) -> Array:
        """Append the values; returns what the reader will see, float32 [M]."""
        if not self.stochastic:
            sent = _to_float(values.flat, self.bits)
            writer.floats(sent, self.bits)
            return sent
        scales = _scales(values)
        writer.floats(scales, SCALE_BITS)
        step, position = self._positions(values, scales)
        levels = np.floor(position + rng.random(position.size)).clip(0, self._levels - 1).astype(np.int64)
        writer.integers(levels, self.bits)
        return self._decode(levels, step)

    def read(self, reader: BitReader, sizes: Array) -> Array:
        """The values of blocks of these sizes, float32 [M]."""
        count = int(np.sum(sizes))
        if not self.stochastic:
            return reader.floats(count, self.bits)
        scales = reader.floats(len(sizes), SCALE_BITS)
        levels = reader.integers(count, self.bits)
        return self._decode(levels, np.repeat(self._step(scales), sizes))

    def moments(self, values: Values) -> tuple[Array, Array]:
        """Mean and variance of what the reader will see, float64 [M] each."""
        if not self.stochastic:
            return _to_float(values.flat, self.bits).astype(np.float64), np.zeros_like(values.flat)
        step, position = self._positions(values, _scales(values))
        fraction = position - np.floor(position)
        return values.flat, step * step * fraction * (1.0 - fraction)

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
        return ((levels - (self._levels - 1) / 2.0) * step).astype(np.float32)


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
