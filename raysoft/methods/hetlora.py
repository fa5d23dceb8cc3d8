"""HetLoRA: clients of unequal ranks that prune themselves, averaged by what their products hold.

Source: Cho et al., "Heterogeneous LoRA for Federated Fine-tuning of On-Device Foundation Models", EMNLP 2024 (arXiv
2401.06432).

The server keeps r_max and a client its first r_k components. The local loss has the additional term
lambda ||B_tail|| ||A_tail||, summed over the matrices, where the tail are the components from gamma r_k on (never below
`min_rank`). A client whose tail is smaller after training than it was at receipt drops it: r_k <- max(min_rank,
floor(gamma r_k)), for good, once its upload has arrived. The server pads factors with zeros and averages them with
weights p_k ~ mix_k ||B_k A_k||_F, matrix by matrix (the paper's where all mix_k are equal: cohort.weighting=equal).
Uploaded: the change of A and B at the rank after pruning and of a head, and that rank, 16 bits; received: A and B.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from raysoft.config import Count, Fraction, NonNegative, Traits
from raysoft.errors import ConfigError
from raysoft.methods.averaging import Averaging
from raysoft.methods.base import MethodConfig, difference
from raysoft.methods.ranks import cut_to_rank
from raysoft.methods.rules.by_norm import SHARE, ByNorm, over_owners
from raysoft.types import LocalJob, LossTerm, ParamSpace, ServerState, Tensors, Upload, View

if TYPE_CHECKING:
    from torch import Tensor

RANK = "rank"  # what a client that has pruned itself remembers, int64 []


class Config(MethodConfig):
    """`gamma: 1` prunes nothing and needs no term of the loss."""

    gamma: Fraction = 0.99
    """Share of a client's components that are no tail; 1: no pruning. [1]"""
    tail_weight: NonNegative = 1e-3
    """Weight lambda of the tail in the loss. [1]"""
    min_rank: Count = 1
    """Rank that no client goes below. [1]"""
    sparsity_weights: bool = True
    """Whether clients count by the norms of their products, too."""
    mean: Literal["padded", "row_count"] = "padded"
    """Whether a component is averaged over all clients, zero for those who lack it, or over those who have it."""

    @property
    def traits(self) -> Traits:
        """Pruning changes what a client's coordinates are."""
        pruning = "" if self.gamma == 1.0 else f"gamma={self.gamma:g}"
        return Traits(moves_gauge=pruning, single_updates="the norm of each client's product")

    def tail(self, rank: int) -> int:
        """Where it begins; at the rank itself: there is none."""
        return min(rank, max(self.min_rank, int(self.gamma * rank + 1e-9)))


@dataclass(frozen=True)
class TailPenalty:
    """lambda sum ||B[:, tail:]|| ||A[tail:]|| over the matrices, for K clients of one rank at once."""

    space: ParamSpace
    tail: int
    weight: float

    def __call__(self, now: Mapping[str, Tensor], start: Mapping[str, Tensor]) -> Tensor:
        """Added loss per client, shape [K]. A norm has slope 0 at 0."""
        terms = []
        for pair in self.space.pairs:
            sides = now[pair.b][..., self.tail :], now[pair.a][:, self.tail :]
            b, a = (side.flatten(start_dim=1).norm(dim=1) for side in sides)
            terms.append(b * a)
        return self.weight * sum(terms)  # type: ignore[no-any-return]


def tail_size(values: Tensors, space: ParamSpace, tail: int) -> float:
    """sum ||B[:, tail:]|| ||A[tail:]|| over the matrices."""
    return float(sum(np.linalg.norm(values[p.b][:, tail:]) * np.linalg.norm(values[p.a][tail:]) for p in space.pairs))


def build(config: Config, space: ParamSpace) -> Averaging:
    """Ranks that shrink, and a mean by norms. Raises ConfigError where nobody could ever prune."""
    if config.min_rank > space.rank:
        raise ConfigError("method.min_rank", f"must be at most the largest rank, {space.rank}, got {config.min_rank}")

    def penalty(view: View) -> LossTerm | None:
        tail = config.tail(view.rank)
        return TailPenalty(space, tail, config.tail_weight) if tail < view.rank and config.tail_weight else None

    def sends(view: View, job: LocalJob, end: Tensors, memory: Tensors) -> Upload:
        change, tail = difference(view.start, end, view.trains), config.tail(view.rank)
        if tail_size(end, space, tail) < tail_size(view.start, space, tail):  # not where there is no tail
            pruned = cut_to_rank(change, space, tail)
            return Upload(pruned, memory_if_delivered={RANK: np.array(tail)}, memory_if_lost=memory, rank=tail)
        told = None if config.gamma == 1.0 else view.rank
        return Upload(change, memory_if_delivered=memory, memory_if_lost=memory, rank=told)

    def change(server: ServerState, folded: Tensors) -> Tensors:
        out = {name: folded[name] for name in server.theta if name in folded}
        for pair in space.pairs:
            share_R = folded[SHARE + pair.module]
            for name, share in ((pair.b, share_R), (pair.a, share_R[:, None])):
                if config.mean == "padded":  # with zeros, which draws towards zero what others lack
                    out[name] = out[name] + server.theta[name] * (share - 1.0)
                else:
                    out[name] = over_owners(out[name], share)
        return out

    return Averaging(
        config,
        space,
        rank_of=lambda rank, memory: min(rank, int(memory.get(RANK, rank))),
        penalty=penalty,
        sends=sends,
        fold=ByNorm(space, config.sparsity_weights),
        change_of=change,
    )
