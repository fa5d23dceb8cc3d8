"""The always-sent part of an update: trained heads, whole, in front of every payload."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from raysoft.codecs.measure.factors import Layout
from raysoft.codecs.wire.bits import BitReader, BitWriter
from raysoft.codecs.wire.quantizer import ValueCoder, Values
from raysoft.types import Array, Update


@dataclass(frozen=True)
class HeadCoder:
    """Writes the head tensors of a layout one after the other, a block each."""

    coder: ValueCoder

    def size(self, layout: Layout) -> int:
        """Bits of all heads."""
        return self.coder.size(int(layout.head_sizes.sum()), len(layout.heads))

    def write(self, writer: BitWriter, layout: Layout, update: Update, rng: np.random.Generator) -> None:
        """Append them. Raises ValueError where the update lacks one."""
        missing = [name for name in layout.heads if name not in update]
        if missing:
            raise ValueError(f"an update must hold the always-sent parameters, missing {', '.join(missing)}")
        if layout.heads:
            flat = np.concatenate([np.asarray(update[name], dtype=np.float64).reshape(-1) for name in layout.heads])
            self.coder.write(writer, Values(flat, layout.head_sizes), rng)

    def read(self, reader: BitReader, layout: Layout) -> dict[str, Array]:
        """What the receiver sees, float32 by name."""
        if not layout.heads:
            return {}
        pieces = np.split(self.coder.read(reader, layout.head_sizes), np.cumsum(layout.head_sizes)[:-1])
        return {block.name: piece.reshape(block.shape) for block, piece in zip(layout.space.dense, pieces, strict=True)}
