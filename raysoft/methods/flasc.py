"""FLASC: clients receive the largest entries of the factors, train all of them, and send the largest of their change.

Source: Kuo et al., "Federated LoRA with Sparse Communication", arXiv 2406.05233.

The server's factors are dense. Down goes the global top-k of their absolute values, k = int(n density) of the n entries
that a client's rank has, the others are zero; the client trains all entries from there. Its change against what it
received goes up through the codec: `topk` makes it the paper's method, and `codec.kept_fraction`, or an allocator, is
the density of that way. The mean is over everybody that arrived, where an entry that was not sent counts as zero, and
is added to the dense factors; with the extra `fedadam` the server takes Adam's steps along it.
Down: 32 k bits and ceil(log2 C(n, k)) that say which; up: what the codec counts. A trained head travels whole.
"""

from typing import ClassVar

import numpy as np

from raysoft.config import Fraction, Traits
from raysoft.kernels.subsets import largest, subset_bits
from raysoft.methods.averaging import Averaging
from raysoft.methods.base import MethodConfig
from raysoft.types import Array, ParamSpace


class Config(MethodConfig):
    """`density` is that of the way down; that of the way up is the codec's. 1: fedit."""

    TRAITS: ClassVar[Traits] = Traits(own_start=True)

    density: Fraction = 0.25
    """Share of the factors' entries that clients receive, the largest. [1]"""


def build(config: Config, space: ParamSpace) -> Averaging:
    """Masked on the way down, averaged as fedit."""

    def part(cut: dict[str, Array]) -> tuple[dict[str, Array], int, int]:
        """The largest entries of all factors together, numbered matrix by matrix, A before B; one at least."""
        names = [name for pair in space.pairs for name in (pair.a, pair.b)]
        flat = np.concatenate([np.abs(cut[name]).reshape(-1) for name in names])
        count = max(int(flat.size * config.density), 1)
        heads = sum(value.size for name, value in cut.items() if name in space.always_sent)
        kept = np.split(largest(flat, count), np.cumsum([cut[name].size for name in names])[:-1])
        masked = {
            name: np.where(mask.reshape(cut[name].shape), cut[name], np.float32(0.0))
            for name, mask in zip(names, kept, strict=True)
        }
        return {**cut, **masked}, count + heads, subset_bits(flat.size, count)

    return Averaging(config, space, part=part)
