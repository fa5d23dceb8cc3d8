"""A base that drifts: what is merged into it round by round, and what that costs those who were away.

A client has to receive what was merged since it last took part: every merge as it was told at the time, or the change
of the base itself, 32 O I bits, where that is less. Clients remember how many merges they have, whatever becomes of
their uploads.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from raysoft.types import Array, Broadcast, ParamSpace, ServerState, Tensors, View

VERSION = "base_version"  # how many merges of the base a client has, int64 []


@dataclass(frozen=True)
class BaseLog:
    """What `Averaging` asks of a method that merges into the base."""

    space: ParamSpace

    @property
    def whole_bits(self) -> int:
        """Of the change of the base itself, as float32."""
        return 32 * sum(pair.out_features * pair.in_features for pair in self.space.pairs)

    def pairs_bits(self, rank: int) -> int:
        """Of factors of this rank for every matrix, as float32."""
        return 32 * rank * sum(pair.out_features + pair.in_features for pair in self.space.pairs)

    def side(self, server: ServerState) -> Tensors:
        """How many merges there are."""
        return {VERSION: np.array(len(server.base_bits))}

    def missed(self, down: Broadcast, memory: Tensors) -> int:
        """Bits of what was merged without the client."""
        return min(sum(down.base_bits[int(memory.get(VERSION, 0)) :]), self.whole_bits)

    def received(self, view: View) -> Tensors:
        """What the client remembers."""
        return {VERSION: view.side[VERSION]}

    def merged(
        self,
        before: ServerState,
        after: ServerState,
        factors: Mapping[str, tuple[Array, Array]],
        step: float,
        bits: int,
    ) -> ServerState:
        """`after` with step * B A added to the base of `before`, by module: B [O, T], A [T, I], and what tells it."""
        base: dict[str, Array] = {}
        for module, (b, a) in factors.items():  # the base is dense: the one place where a product becomes [O, I]
            base[module] = (before.base.get(module, 0.0) + step * (b @ a)).astype(np.float32)
        return replace(after, base=base, base_bits=(*before.base_bits, bits))
