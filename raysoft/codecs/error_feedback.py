"""Error feedback: what was not sent is kept and added to the next update.

With update u and memory e, c = u + e is what is scored and encoded. Delivered: e <- c - sent. Lost: e <- c. Absent:
unchanged. So the sum of what was delivered plus the memory is the sum of the updates (Seide et al., Interspeech 2014;
Stich, Cordonnier and Jaggi, NeurIPS 2018). The memory is float64, named "ef/<parameter>"; it starts at zero, and again
when the client's rank changes. It is tied to the coordinates of the factors: a method that rotates them must reset it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from raysoft.codecs.base import Codec, CodecConfig, Encoded
from raysoft.types import Array, Curve, Payload, Tensors, Update

PREFIX = "ef/"


@dataclass(frozen=True)
class ErrorFeedback:
    """A codec with a memory around another codec."""

    inner: Codec

    @property
    def superposable(self) -> bool:
        """As the inner codec."""
        return self.inner.superposable

    def menu(self, update: Update, start: Tensors, memory: Tensors) -> Curve:
        """The curve of update plus memory."""
        return self.inner.menu(_corrected(update, memory), start, {})

    def encode(
        self, update: Update, start: Tensors, memory: Tensors, units: int, mask: Array | None, rng: np.random.Generator
    ) -> Encoded:
        """Encodes update plus memory; the relative error refers to that sum."""
        wanted = _corrected(update, memory)
        encoded = self.inner.encode(wanted, start, {}, units, mask, rng)
        sent = self.inner.decode(encoded.payload, start, units)
        delivered = dict(memory)
        lost = dict(memory)
        for name, value in wanted.items():
            lost[PREFIX + name] = value
            delivered[PREFIX + name] = value - sent[name] if name in sent else value
        return replace(encoded, memory_if_delivered=delivered, memory_if_lost=lost)

    def decode(self, payload: Payload, start: Tensors, units: int) -> Update:
        """As the inner codec; the server knows nothing of the memory."""
        return self.inner.decode(payload, start, units)


def _corrected(update: Update, memory: Tensors) -> dict[str, Array]:
    """u + e in float64."""
    out: dict[str, Array] = {}
    for name, value in update.items():
        kept = memory.get(PREFIX + name)
        exact = np.asarray(value, dtype=np.float64)
        out[name] = exact + kept if kept is not None and kept.shape == exact.shape else exact
    return out


def wrap(codec: Codec, config: CodecConfig) -> Codec:
    """The codec itself, or with error feedback where the configuration asks for it."""
    return ErrorFeedback(codec) if config.error_feedback else codec
