"""Error feedback: what was not sent is kept and added to the next update.

With update u and memory e, c = u + e is what is scored and encoded. Delivered: e <- c - sent. Lost: e <- c. Absent:
unchanged. So the sum of what was delivered plus the memory is the sum of the updates (Seide et al., Interspeech 2014;
Stich, Cordonnier and Jaggi, NeurIPS 2018). The memory is float64, named "ef/<parameter>"; it starts at zero, and again
when the client's rank changes. It is tied to the coordinates of the factors: with a method that rotates them goes the
memory of transport.py. `error_feedback_decay` forgets a share of e at each participation, `error_feedback_clip` keeps
||e|| <= clip ||u||.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from raysoft.codecs.base import Codec, CodecConfig, Encoded
from raysoft.codecs.memory.fading import PREFIX, Fading, of_feedback, of_inner
from raysoft.codecs.memory.transport import TransportedFeedback
from raysoft.types import Array, Curve, ParamSpace, Payload, Tensors, Update, View


@dataclass(frozen=True)
class ErrorFeedback:
    """A codec with a memory around another codec."""

    inner: Codec
    fading: Fading

    def menu(self, update: Update, view: View, memory: Tensors) -> Curve:
        """The curve of update plus memory."""
        return self.inner.menu(self._corrected(update, memory), view, of_inner(memory))

    def encode(self, update: Update, view: View, memory: Tensors, units: int, rng: np.random.Generator) -> Encoded:
        """Encodes update plus memory; the relative error refers to that sum."""
        wanted = self._corrected(update, memory)
        encoded = self.inner.encode(wanted, view, of_inner(memory), units, rng)
        sent = encoded.received
        delivered = {**of_feedback(memory), **encoded.memory_if_delivered}
        lost = {**of_feedback(memory), **encoded.memory_if_lost}
        for name, value in wanted.items():
            lost[PREFIX + name] = value
            delivered[PREFIX + name] = value - sent[name] if name in sent else value
        return replace(encoded, memory_if_delivered=delivered, memory_if_lost=lost)

    def decode(self, payload: Payload, view: View, units: int) -> Update:
        """As the inner codec; the server knows nothing of the memory."""
        return self.inner.decode(payload, view, units)

    def _corrected(self, update: Update, memory: Tensors) -> dict[str, Array]:
        """u + e in float64."""
        exact = {name: np.asarray(value, dtype=np.float64) for name, value in update.items()}
        kept = {
            name: memory[PREFIX + name]
            for name, value in exact.items()
            if PREFIX + name in memory and memory[PREFIX + name].shape == value.shape
        }
        if self.fading != Fading():
            factor = self.fading.factor(_norm2(kept), _norm2(exact))
            kept = {name: factor * value for name, value in kept.items()}
        return {name: value + kept[name] if name in kept else value for name, value in exact.items()}


def _norm2(tensors: Tensors) -> float:
    return float(sum(np.vdot(value, value) for value in tensors.values()))


class SpacedCodec(Codec, Protocol):
    """A codec that knows its parameter space."""

    @property
    def space(self) -> ParamSpace:
        """What it is built for."""
        ...


def wrap(codec: SpacedCodec, config: CodecConfig) -> Codec:
    """The codec itself, or with error feedback where the configuration asks for it."""
    if not config.error_feedback:
        return codec
    fading = Fading(config.error_feedback_decay, config.error_feedback_clip)
    if config.error_feedback == "transport":
        return TransportedFeedback(codec, codec.space, fading)
    return ErrorFeedback(codec, fading)
