"""FedEx-LoRA: both factors are averaged, and what that loses of the mean product goes into the base, exactly.

Source: Singhal et al., "FedEx-LoRA: Exact Aggregation for Federated and Efficient Fine-Tuning of Foundation Models",
arXiv 2410.09432.

The mean of the products differs from the product of the means by the covariance of the factors over clients,
sum_k p_k B_k A_k - B~ A~ = sum_k p_k (B_k - B~)(A_k - A_m), of rank (K - 1) R at most. The server broadcasts B~, A~ and
this residual, which every client adds to W0, scaled by s. So clients go on from the means and in the exact model.
Uploaded: the change of A, of B and of a head. Received: both factors, 32 P(r) bits, and of every merge since the client
last took part the residual, 32 min(sum o i, (K - 1) P(r)) bits, or the change of the base where that is less.
"""

from __future__ import annotations

from typing import ClassVar

from raysoft.config import Traits
from raysoft.methods.averaging import Averaging
from raysoft.methods.base import MethodConfig, add_change
from raysoft.methods.folds import Stack
from raysoft.methods.rules.base_log import BaseLog
from raysoft.methods.rules.products import points, residual
from raysoft.types import ParamSpace, Reception, ServerState


class Config(MethodConfig):
    """Nothing beyond the common options."""

    TRAITS: ClassVar[Traits] = Traits(base_drift=True, single_updates="the products of each client's factors")


def corrected(before: ServerState, received: Reception, log: BaseLog, server_lr: float) -> ServerState:
    """The means of both factors, and in the base what they miss of the mean product."""
    folded, space = received.folded, log.space
    assert folded is not None  # asked where something arrived
    assert received.mix_K is not None
    after = add_change(before, folded, server_lr)
    missing, count = {}, 1
    for pair in space.pairs:
        weights_N, b, a = points(before, folded, pair, server_lr)
        count = len(weights_N)
        missing[pair.module] = residual(weights_N, b, a)
    # Beyond the rank of the largest client there is nothing that differs.
    rank = max(report.rank for report, mix in zip(received.reports, received.mix_K, strict=True) if mix != 0)
    bits = min(log.whole_bits, log.pairs_bits((count - 1) * rank))
    return log.merged(before, after, missing, space.scale, bits)


def build(config: Config, space: ParamSpace) -> Averaging:
    """Means, and a base that takes the rest."""
    log = BaseLog(space)
    return Averaging(
        config,
        space,
        side=log.side,
        catch_up=log.missed,
        remembers=log.received,
        fold=Stack(space),
        change_of=lambda server, folded: None,  # the step is the mean of the products itself
        then=lambda before, after, received: corrected(before, received, log, config.server_lr),
    )
