"""Keyed random numbers: every draw is a pure function of (seed, purpose, keys).

There is no state to carry, so a draw can be repeated on any process, in any order. `Rng(...)` gives a numpy
Generator for one key; `Rng.uniform` gives numbers for many keys at once (SplitMix64 over mixed keys; Steele, Lea and
Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014).

>>> rng = Rng(0)
>>> bool(rng("batch", 3, 7).random() == rng("batch", 3, 7).random())
True
>>> rng.uniform("gain", [4, 9], 2, size=3).shape
(2, 3)
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def _digest(*parts: object) -> int:
    text = "\x1f".join(str(part) for part in parts).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=16).digest(), "little")


def _mix64(x: np.ndarray) -> np.ndarray:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@dataclass(frozen=True)
class Rng:
    """Source of keyed generators for one root seed."""

    seed: int

    def __call__(self, purpose: str, *keys: int) -> np.random.Generator:
        """A generator that depends on the seed, the purpose and the integer keys only."""
        return np.random.Generator(np.random.Philox(key=_digest(self.seed, purpose, *(int(k) for k in keys))))

    def uniform(self, purpose: str, *keys: ArrayLike, size: int = 1) -> np.ndarray:
        """Uniform numbers in (0, 1), shape [K, size], for K keys at once.

        Each of `keys` is an integer or an array of K integers; row k depends on its own keys only, so a client's
        numbers do not change with the company it keeps.
        """
        columns = np.broadcast_arrays(*[np.atleast_1d(np.asarray(key, dtype=np.int64)) for key in keys])
        state = np.full(columns[0].shape, _digest(self.seed, purpose) & 0xFFFFFFFFFFFFFFFF, dtype=np.uint64)
        with np.errstate(over="ignore"):
            for column in columns:
                state = _mix64((state ^ column.astype(np.uint64)) * _GOLDEN + _GOLDEN)
            steps = np.arange(1, size + 1, dtype=np.uint64) * _GOLDEN
            bits = _mix64(state[:, None] + steps[None, :])
        # 52 bits: with 53, adding one half would round the largest value up to exactly 1.
        return ((bits >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52

    def normal(self, purpose: str, *keys: ArrayLike, size: int = 1) -> np.ndarray:
        """Standard normal numbers, shape [K, size] (Box-Muller on `uniform`)."""
        half = (size + 1) // 2
        u = self.uniform(purpose, *keys, size=2 * half)
        radius = np.sqrt(-2.0 * np.log(u[:, :half]))
        angle = 2.0 * np.pi * u[:, half:]
        return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], axis=1)[:, :size]
