"""A mean of factors over clients of unequal ranks, weighted by how much each client's product holds.

A client counts in the mean of a matrix with the Frobenius norm of its own product there, times its factor in the mean;
where all products are zero, with that factor alone. Shapes: R rank at r_max, O out, I in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from raysoft.kernels.lowrank import product_norm2
from raysoft.methods.folds import Arrived, Sum, value_of
from raysoft.types import Array, LoraPair, ParamSpace, Tensors

NORM, SHARE = "norm/", "share/"


@dataclass(frozen=True)
class ByNorm:
    """Mean changes of both factors, and `share/<module>` [R]: the share of the weight whose clients have a component.

    Parts hold the sums twice, with and without the norms (`norm/`), since only the whole shows whether all are zero.
    """

    space: ParamSpace
    weighted: bool = True  # by the norms; False: by the factors in the mean alone
    linear: bool = False

    def part(self, arrived: Sequence[Arrived]) -> dict[str, Array]:
        """Of a pack."""
        total = Sum().part(arrived)
        for pair in self.space.pairs if arrived else ():
            norm_K = [self._norm(pair, one) if self.weighted else 0.0 for one in arrived]
            for name in (pair.b, pair.a):
                terms = [
                    one.mix * n * one.update[name].astype(np.float64) for one, n in zip(arrived, norm_K, strict=True)
                ]
                total[NORM + name] = sum(terms[1:], terms[0])
            has_KR = np.array([np.arange(self.space.rank) < self._rank(one) for one in arrived], dtype=np.float64)
            mix_K = np.array([one.mix for one in arrived])
            for name, weight_K in ((SHARE, mix_K), (NORM + SHARE, mix_K * norm_K)):
                total[name + pair.module] = np.append((weight_K[:, None] * has_KR).sum(axis=0), weight_K.sum())
        return total

    def join(self, one: Tensors, two: Tensors) -> dict[str, Array]:
        """Name by name."""
        return Sum().join(one, two)

    def finish(self, total: Tensors) -> Tensors:
        """Means by the norms where there are any."""
        mean = {name: total[name] for name in total if not name.startswith((NORM, SHARE))}
        for pair in self.space.pairs:
            which = NORM if total[NORM + SHARE + pair.module][-1] > 0 else ""
            *has_R, whole = total[which + SHARE + pair.module]
            for name in (pair.b, pair.a):
                mean[name] = total[which + name] / whole
            mean[SHARE + pair.module] = np.array(has_R) / whole
        return mean

    def _rank(self, one: Arrived) -> int:
        return self.space.rank if one.rank is None else one.rank

    def _norm(self, pair: LoraPair, one: Arrived) -> float:
        """||B_k A_k||_F of the components that the client has."""
        rank = self._rank(one)
        return float(np.sqrt(product_norm2(value_of(pair.b, one)[:, :rank], value_of(pair.a, one)[:rank])))


def over_owners(mean: Array, share: Array) -> Array:
    """A mean over all clients as the mean over those who have a component; zero where nobody has it."""
    out: Array = np.divide(mean, share, out=np.zeros_like(mean), where=share > 0)
    return out
