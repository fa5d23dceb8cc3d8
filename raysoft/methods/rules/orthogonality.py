"""Penalties that keep rank components nearly orthogonal: then a component's norm is close to its singular value.

Source: this project's reading of Kim and Choi, arXiv 2505.00333 (SOFT), whose equations are not quoted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from raysoft.types import ParamSpace

if TYPE_CHECKING:
    from torch import Tensor

Penalty = Literal["cosine", "offdiag", "identity"]


@dataclass(frozen=True)
class OrthogonalityPenalty:
    """lambda * Omega summed over the adapted matrices, for K clients at once. O(r^2 (o + i)) each.

    cosine: sum over i != j of cos^2(a_i, a_j) + cos^2(b_i, b_j) (unchanged by A -> cA, B -> B/c);
    offdiag: ||A A^T - diag||^2 + ||B^T B - diag||^2; identity: ||A A^T - I||^2, on A only, since on B it would drive
    every importance to one. Rank padding (zero rows) adds a constant at most, never a gradient.
    """

    space: ParamSpace
    penalty: Penalty
    weight: float
    norm_floor: float
    trains: frozenset[str] | None = None  # names of what is trained: the rest is no variable; None: everything

    def __call__(self, now: Mapping[str, Tensor], start: Mapping[str, Tensor]) -> Tensor:
        """Added loss per client, shape [K]; `now` holds stacked A [K, R, I] and B [K, O, R]."""
        # Rows of equal length are stacked: one small batched product instead of one a matrix.
        groups: dict[int, list[Tensor]] = {}
        for pair in self.space.pairs:
            if self.trains is None or pair.a in self.trains:
                groups.setdefault(pair.in_features, []).append(now[pair.a])
            if self.penalty != "identity" and (self.trains is None or pair.b in self.trains):
                groups.setdefault(pair.out_features, []).append(now[pair.b].transpose(1, 2))
        return self.weight * sum(self._rows(rows) for rows in groups.values())  # type: ignore[return-value]

    def _rows(self, rows: list[Tensor]) -> Tensor:
        import torch

        x_KLRI = torch.stack(rows, dim=1)
        if self.penalty == "cosine":
            x_KLRI = x_KLRI / torch.linalg.vector_norm(x_KLRI, dim=-1, keepdim=True).clamp_min(self.norm_floor)
        gram = x_KLRI @ x_KLRI.transpose(-1, -2)
        diagonal = torch.diagonal(gram, dim1=-2, dim2=-1)
        square = gram.square().sum(dim=(1, 2, 3))
        if self.penalty == "identity":  # ||G - I||^2 = ||G||^2 - 2 tr G + r, rows of padding left out
            used = (diagonal > 0).sum(dim=(1, 2))
            return square - 2.0 * diagonal.sum(dim=(1, 2)) + used
        return square - diagonal.square().sum(dim=(1, 2))
