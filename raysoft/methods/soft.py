"""SOFT: a penalty keeps rank components nearly orthogonal, so that the unimportant ones need not be sent.

Source: Kim and Choi, "Two-Stage Wireless Federated LoRA Fine-Tuning with Sparsified Orthogonal Updates", arXiv
2505.00333.

Its version 1: "Communication-Efficient Wireless Federated Fine-Tuning for Large-Scale AI Models".
Clients train both LoRA factors with a penalty that keeps rank components nearly orthogonal, so that the norm of a
component is close to its singular value and unimportant components can be left out without an SVD (the
`rank_components` codec). The server averages what arrives; what a client did not send keeps the broadcast's value.
Uploaded: the change of the kept rank components and of a trained head.
The penalty (rules/orthogonality.py) goes with other methods as the extra `orthogonal`. An option beyond the paper:
`shared_mask`, one order of components for all clients (see rules/shared_order.py).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from pydantic import model_validator

from raysoft.config import NonNegative, Positive, Traits, Unit
from raysoft.methods.averaging import Averaging
from raysoft.methods.base import MethodConfig
from raysoft.methods.rules.gauge import reorthogonalized
from raysoft.methods.rules.orthogonality import OrthogonalityPenalty
from raysoft.methods.rules.shared_order import observed, order_bits, shared_order
from raysoft.types import ORDER, ParamSpace, Reception, ServerState, Tensors


class Config(MethodConfig):
    """`penalty_weight` is lambda in loss + lambda * Omega(A, B).

    With `shared_mask` masks cost no bit, and no mean is taken over clients that did not send (rules/shared_order.py);
    with `reorthogonalize` (rules/gauge.py) a component is then a place in the order of singular values.
    """

    penalty: Literal["cosine", "offdiag", "identity", "none"] = "cosine"
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
