"""FlexLoRA: the mean of the products is cut anew into factors, so that clients of any rank get the best of their rank.

Source: Bai et al., "Federated Fine-tuning of Large Language Models under Heterogeneous Tasks and Client Resources",
NeurIPS 2024 (arXiv 2402.11505).

W* = sum_k p_k B_k A_k = U S V^T; the server keeps B = U S and A = V^T of r_max, and a client of rank r has the first r
components: the nearest product of its rank (Eckart-Young), those of smaller ranks nested in it. The decomposition is
that of a small core (kernels/lowrank.product_svd), the sign of a component is fixed, and directions that carry nothing
have B = 0 and drawn rows of A, never zero ones, which could not be trained. Components that a client's rank does not
have count as it received the model, with the server's. Uploaded: the change of A, of B and of a head; received: both
factors at the client's rank.
"""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import numpy as np

from raysoft.config import Traits
from raysoft.kernels.lowrank import svd_gauge
from raysoft.methods.averaging import Averaging
from raysoft.methods.base import MethodConfig
from raysoft.methods.folds import Stack
from raysoft.methods.rules.products import points
from raysoft.rng import Rng
from raysoft.types import Array, ParamSpace, Reception, ServerState, Tensors

FLOOR = 1e-12  # singular values below this share of the largest are the rounding of float64


class Config(MethodConfig):
    """Nothing beyond the common options."""

    TRAITS: ClassVar[Traits] = Traits(
        moves_gauge="name=flexlora", single_updates="the products of each client's factors"
    )


def redistributed(server: ServerState, folded: Tensors, space: ParamSpace, server_lr: float) -> dict[str, Array]:
    """The factors of the step's product at r_max, B [O, R] and A [R, I] with unit rows, float64."""
    theta: dict[str, Array] = {}
    for number, pair in enumerate(space.pairs):
        _, b, a = points(server, folded, pair, server_lr)
        draws = Rng(0)("flexlora", server.version, number).standard_normal((space.rank, pair.in_features))
        theta[pair.b], theta[pair.a] = svd_gauge(b, a, 1.0, draws, floor=FLOOR, rank=space.rank)
    return theta


def build(config: Config, space: ParamSpace) -> Averaging:
    """The mean of the products, cut to r_max."""

    def change(server: ServerState, folded: Tensors) -> Tensors:
        new = redistributed(server, folded, space, 1.0)
        return {name: new[name] - server.theta[name] if name in new else folded[name] for name in server.theta}

    def shortened(before: ServerState, after: ServerState, received: Reception) -> ServerState:
        """A step of another length is taken by the product: between two sets of factors there is nothing."""
        assert received.folded is not None  # `then` is called where something arrived
        new = redistributed(before, received.folded, space, config.server_lr)
        return replace(after, theta={**after.theta, **{name: new[name].astype(np.float32) for name in new}})

    then = None if config.server_lr == 1.0 else shortened
    return Averaging(config, space, fold=Stack(space), change_of=change, then=then)
