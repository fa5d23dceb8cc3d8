"""FedIT: federated averaging of LoRA factors.

Zhang et al., "Towards Building the Federated GPT: Federated Instruction Tuning", arXiv 2305.05644. Every client trains
both factors from the broadcast; the server averages A and B separately (which differs from averaging the products by
the covariance that `aggregation_covariance` reports). Uploaded: the change of A, of B and of a trained head.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from raysoft.methods.base import add_sum, broadcast_all, difference, downlink_bits
from raysoft.methods.rules.senders import AveragingConfig, contribution, mean_change
from raysoft.types import Broadcast, ClientState, LocalJob, ParamSpace, Reception, ServerState, Tensors, Update


class Config(AveragingConfig):
    """Nothing beyond the common options."""


@dataclass(frozen=True)
class FedIT:
    """Separate averaging of both factors."""

    config: Config
    space: ParamSpace
    needs: ClassVar[Literal["sum", "updates"]] = "sum"

    def broadcast(self, server: ServerState, tick: int) -> Broadcast:
        """All trained parameters."""
        return broadcast_all(server)

    def local(self, start: Tensors, client: ClientState, steps: int, tick: int) -> LocalJob:
        """Train everything."""
        return LocalJob(start, downlink_bits(start), steps, trainable=dict.fromkeys(start, True))

    def upload(self, start: Tensors, end: Tensors, client: ClientState) -> tuple[Update, ClientState]:
        """The change of every parameter."""
        return difference(start, end), client

    def contribute(self, received: Update) -> Tensors:
        """The decoded change, padded to the server's rank."""
        return contribution(self.config, self.space, received)

    def mean(self, sums: Tensors) -> Tensors:
        """The mean change that a sum of contributions stands for."""
        return mean_change(self.config, self.space, sums)

    def aggregate(self, server: ServerState, received: Reception, tick: int) -> ServerState:
        """Add the weighted mean change."""
        if received.sums is None:  # nobody arrived
            return server
        return add_sum(server, self.mean(received.sums), self.config.server_lr)


def build(config: Config, space: ParamSpace) -> FedIT:
    """The method for a parameter space."""
    return FedIT(config, space)
