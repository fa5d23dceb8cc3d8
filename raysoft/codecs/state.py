"""A codec that sparsifies the *state* of the factors instead of their change: what is not sent is zero at the server.

Pruning before the upload, as it is often done: the client ranks and sends entries of its own A and B, and the server
fills the rest with zeros instead of the broadcast's values. Received as a change, so that any method can average it:
-start wherever nothing arrived, which moves the global model even where the client did not.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from raysoft.codecs.base import Encoded
from raysoft.codecs.scheme import SchemeCodec
from raysoft.types import Array, Curve, ParamSpace, Payload, Tensors, Update, View


@dataclass(frozen=True)
class StateCodec:
    """A codec for changes applied to the factors themselves, as changes from zero; heads are sent as ever."""

    inner: SchemeCodec

    @property
    def space(self) -> ParamSpace:
        """The inner codec's."""
        return self.inner.space

    def menu(self, update: Update, view: View, memory: Tensors) -> Curve:
        """Errors are those of the client's own effective weights: sending nothing loses all of them."""
        return self.inner.menu(self._state(update, view.start), self._origin(view), memory)

    def encode(self, update: Update, view: View, memory: Tensors, units: int, rng: np.random.Generator) -> Encoded:
        """The payload of `units`; the relative error refers to the state."""
        origin = self._origin(view)
        encoded = self.inner.encode(self._state(update, view.start), origin, memory, units, rng)
        return replace(encoded, received=self._change(encoded.received, view.start))

    def decode(self, payload: Payload, view: View, units: int) -> Update:
        """Float32 changes from `start`: -start where nothing was sent."""
        return self._change(self.inner.decode(payload, self._origin(view), units), view.start)

    def _change(self, state: Update, start: Tensors) -> Update:
        factors = self._factors()
        return {name: value - start[name] if name in factors else value for name, value in state.items()}

    def _state(self, update: Update, start: Tensors) -> dict[str, Array]:
        """The client's factors. Raises ValueError where one of the two stays at home: there is no zero to fall to."""
        factors = self._factors()
        missing = sorted(factors - set(update))
        if missing:
            raise ValueError(f"fallback: zero needs a method that sends both factors, {missing[0]} is not sent")
        return {name: start[name] + value if name in factors else value for name, value in update.items()}

    def _origin(self, view: View) -> View:
        factors = self._factors()
        start = {name: np.zeros_like(value) if name in factors else value for name, value in view.start.items()}
        return replace(view, start=start)

    def _factors(self) -> set[str]:
        return {name for pair in self.space.pairs for name in (pair.a, pair.b)}
