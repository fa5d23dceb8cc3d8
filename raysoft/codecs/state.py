"""A codec that sparsifies the *state* of the factors instead of their change: what is not sent is zero at the server.

Pruning before the upload, as it is often done: the client ranks and sends entries of its own A and B, and the server
fills the rest with zeros instead of the broadcast's values. Received as a change, so that any method can average it:
-start wherever nothing arrived, which moves the global model even where the client did not.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from raysoft.codecs.base import Encoded
from raysoft.codecs.scheme import SchemeCodec
from raysoft.types import Array, Curve, ParamSpace, Payload, Tensors, Update


@dataclass(frozen=True)
class StateCodec:
    """A codec for changes applied to the factors themselves, as changes from zero; heads are sent as ever."""

    inner: SchemeCodec

    @property
    def space(self) -> ParamSpace:
        """The inner codec's."""
        return self.inner.space

    @property
    def superposable(self) -> bool:
        """As the inner codec."""
        return self.inner.superposable

    def menu(self, update: Update, start: Tensors, memory: Tensors, order: Array | None = None) -> Curve:
        """Errors are those of the client's own effective weights: sending nothing loses all of them."""
        return self.inner.menu(self._state(update, start), self._origin(start), memory, order)

    def encode(
        self, update: Update, start: Tensors, memory: Tensors, units: int, order: Array | None, rng: np.random.Generator
    ) -> Encoded:
        """The payload of `units`; the relative error refers to the state."""
        return self.inner.encode(self._state(update, start), self._origin(start), memory, units, order, rng)

    def decode(self, payload: Payload, start: Tensors, units: int, order: Array | None = None) -> Update:
        """Float32 changes from `start`: -start where nothing was sent."""
        state = self.inner.decode(payload, self._origin(start), units, order)
        factors = self._factors()
        return {name: value - start[name] if name in factors else value for name, value in state.items()}

    def _state(self, update: Update, start: Tensors) -> dict[str, Array]:
        """The client's factors. Raises ValueError where one of the two stays at home: there is no zero to fall to."""
        factors = self._factors()
        missing = sorted(factors - set(update))
        if missing:
            raise ValueError(f"fallback: zero needs a method that sends both factors, {missing[0]} is not sent")
        return {name: start[name] + value if name in factors else value for name, value in update.items()}

    def _origin(self, start: Tensors) -> dict[str, Array]:
        factors = self._factors()
        return {name: np.zeros_like(value) if name in factors else value for name, value in start.items()}

    def _factors(self) -> set[str]:
        return {name for pair in self.space.pairs for name in (pair.a, pair.b)}
