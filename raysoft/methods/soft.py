"""SOFT: a penalty keeps rank components nearly orthogonal, so that the unimportant ones need not be sent.

Source: Kim and Choi, "Two-Stage Wireless Federated LoRA Fine-Tuning with Sparsified Orthogonal Updates", arXiv
2505.00333.

Its version 1: "Communication-Efficient Wireless Federated Fine-Tuning for Large-Scale AI Models".
Clients train both LoRA factors with a penalty that keeps rank components nearly orthogonal, so that the norm of a
component is close to its singular value and unimportant components can be left out without an SVD (the
`rank_components` codec). The server averages what arrives; what a client did not send keeps the broadcast's value.
Uploaded: the change of the kept rank components and of a trained head.
The penalties are this project's reading of the paper's idea, not quoted equations. An option beyond the paper:
`shared_mask`, one order of components for all clients (see rules/shared_order.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from pydantic import model_validator

from raysoft.config import NonNegative, Positive, Traits, Unit
from raysoft.methods.averaging import Averaging
from raysoft.methods.base import MethodConfig
from raysoft.methods.rules.gauge import reorthogonalized
from raysoft.methods.rules.shared_order import observed, order_bits, shared_order
from raysoft.types import ORDER, ParamSpace, Reception, ServerState, Tensors

if TYPE_CHECKING:
    from torch import Tensor

Penalty = Literal["cosine", "offdiag", "identity", "none"]


class Config(MethodConfig):
    """`penalty_weight` is lambda in loss + lambda * Omega(A, B).

    With `shared_mask` masks cost no bit, and no mean is taken over clients that did not send (rules/shared_order.py);
    with `reorthogonalize` (rules/gauge.py) a component is then a place in the order of singular values.
    """

    penalty: Penalty = "cosine"
    """Penalty that keeps rank components orthogonal: on cosines, on off-diagonal products, on the distance from
    identity, or none."""
    penalty_weight: NonNegative = 1e-3
    """Weight lambda of the penalty in the loss. [1]"""
    norm_floor: Positive = 1e-2
    """With cosine: shorter rows count as this long, so that B = 0 has a bounded gradient. [1]"""
    reorthogonalize: bool = False
    """Whether the factors are broadcast in singular coordinates, largest first."""
    shared_mask: bool = False
    """Whether all clients send the first components of one order that the server makes of the mean changes it has
    seen."""
    shared_mask_age_bonus: Positive = 0.02
    """With shared_mask: what a round of waiting adds to a component's score, in units of the largest. [1]"""
    shared_mask_memory: Unit = 0.5
    """With shared_mask: share of a component's score that is kept when it arrives again. [1]"""

    @model_validator(mode="after")
    def _shared_mask_options(self) -> Config:
        default = type(self).model_fields
        for name in ("shared_mask_age_bonus", "shared_mask_memory"):
            if not self.shared_mask and getattr(self, name) != default[name].default:
                raise ValueError(f"{name} needs shared_mask: true")
        return self

    @property
    def traits(self) -> Traits:
        """As the options beyond the paper are set."""
        return Traits(
            common_order="shared_mask=true" if self.shared_mask else "",
            moves_gauge="reorthogonalize=true" if self.reorthogonalize else "",
        )


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

    def __call__(self, now: Mapping[str, Tensor], start: Mapping[str, Tensor]) -> Tensor:
        """Added loss per client, shape [K]; `now` holds stacked A [K, R, I] and B [K, O, R]."""
        # Rows of equal length are stacked: one small batched product instead of one a matrix.
        groups: dict[int, list[Tensor]] = {}
        for pair in self.space.pairs:
            groups.setdefault(pair.in_features, []).append(now[pair.a])
            if self.penalty != "identity":
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


def _penalty(config: Config, space: ParamSpace) -> OrthogonalityPenalty | None:
    if config.penalty == "none" or config.penalty_weight == 0:
        return None
    return OrthogonalityPenalty(space, config.penalty, config.penalty_weight, config.norm_floor)


def build(config: Config, space: ParamSpace) -> Averaging:
    """Orthogonality penalty on the client, separate averaging on the server, then what the options add."""

    def order(server: ServerState) -> Tensors:
        return {ORDER: shared_order(server, space, config.shared_mask_age_bonus)}

    def then(before: ServerState, after: ServerState, received: Reception) -> ServerState:
        """Note what the mean change says of the components, then choose the coordinates."""
        if config.shared_mask:
            assert received.folded is not None  # `then` is called where something arrived
            assert received.sent_counts is not None  # a codec that follows an order says what it sent
            after = observed(before, after, space, received.folded, received.sent_counts, config.shared_mask_memory)
        return reorthogonalized(before, after, space) if config.reorthogonalize else after

    term = _penalty(config, space)
    method = Averaging(config, space, penalty=lambda view: term, then=then)
    if not config.shared_mask:
        return method
    # A client receives the order of the components that its rank has.
    return replace(method, side=order, side_bits=lambda rank: order_bits(len(space.pairs) * rank))
