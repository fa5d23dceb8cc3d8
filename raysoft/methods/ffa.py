"""FFA-LoRA: federated LoRA with A frozen at its shared start.

Sun et al., "Improving LoRA in Privacy-preserving Federated Learning", arXiv 2403.12313. Only B is trained and sent:
half the traffic (exactly, where a matrix is square), and the mean of the products is exact because A is shared.
Uploaded: the change of B and of a trained head.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from raysoft.methods.base import MethodConfig, add_sum, broadcast_all, difference, downlink_bits, pad_to_rank
from raysoft.types import Broadcast, ClientState, LocalJob, ParamSpace, Reception, ServerState, Tensors, Update


class Config(MethodConfig):
    """Nothing beyond the common options."""


@dataclass(frozen=True)
class FFA:
    """A frozen, B averaged."""

    config: Config
    space: ParamSpace
    needs: ClassVar[Literal["sum", "updates"]] = "sum"

    def broadcast(self, server: ServerState, tick: int) -> Broadcast:
        """All trained parameters; A travels only as a seed, so `local` does not charge it."""
        return broadcast_all(server)

    def _trainable(self, names: Tensors) -> dict[str, bool]:
        frozen = {pair.a for pair in self.space.pairs}
        return {name: name not in frozen for name in names}

    def local(self, start: Tensors, client: ClientState, steps: int, tick: int) -> LocalJob:
        """Train B and the head."""
        trainable = self._trainable(start)
        sent = {name: value for name, value in start.items() if trainable[name]}
        return LocalJob(start, downlink_bits(sent), steps, trainable)

    def upload(self, start: Tensors, end: Tensors, client: ClientState) -> tuple[Update, ClientState]:
        """The change of B and the head."""
        return difference(start, end, self._trainable(start)), client

    def contribute(self, received: Update) -> Tensors:
        """The decoded change, padded to the server's rank."""
        return pad_to_rank(received, self.space)

    def aggregate(self, server: ServerState, received: Reception, tick: int) -> ServerState:
        """Add the weighted mean change."""
        return add_sum(server, received.sums, self.config.server_lr)


def build(config: Config, space: ParamSpace) -> FFA:
    """The method for a parameter space."""
    return FFA(config, space)
