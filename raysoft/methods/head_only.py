"""Head only: LoRA stays at its start (B = 0, so no matrix changes), the trained head is averaged.

The baseline for runs that train a head: what the head explains without any adapter. FedAvg (McMahan et al., AISTATS
2017) on the head alone. Uploaded, and charged on the downlink: the head. Codec and allocator have nothing to leave
out; the head is always sent whole, at the codec's `head_bits` a value.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from raysoft.methods.base import MethodConfig, add_sum, broadcast_all, difference, downlink_bits
from raysoft.types import Broadcast, ClientState, LocalJob, ParamSpace, Reception, ServerState, Tensors, Update

NEEDS_HEAD = True
TRAINS_LORA = False


class Config(MethodConfig):
    """Nothing beyond the common options."""


@dataclass(frozen=True)
class HeadOnly:
    """LoRA frozen, the head averaged."""

    config: Config
    space: ParamSpace
    needs: ClassVar[Literal["sum", "updates"]] = "sum"

    def broadcast(self, server: ServerState, tick: int) -> Broadcast:
        """All parameters; LoRA never changes, so `local` does not charge it."""
        return broadcast_all(server)

    def _trainable(self, names: Tensors) -> dict[str, bool]:
        return {name: name in self.space.always_sent for name in names}

    def local(self, start: Tensors, client: ClientState, steps: int, tick: int) -> LocalJob:
        """Train the head."""
        trainable = self._trainable(start)
        head = {name: value for name, value in start.items() if trainable[name]}
        return LocalJob(start, downlink_bits(head), steps, trainable)

    def upload(self, start: Tensors, end: Tensors, client: ClientState) -> tuple[Update, ClientState]:
        """The change of the head."""
        return difference(start, end, self._trainable(start)), client

    def contribute(self, received: Update) -> Tensors:
        """The decoded change of the head."""
        return {name: value for name, value in received.items() if name in self.space.always_sent}

    def aggregate(self, server: ServerState, received: Reception, tick: int) -> ServerState:
        """Add the weighted mean change."""
        return add_sum(server, received.sums, self.config.server_lr)


def build(config: Config, space: ParamSpace) -> HeadOnly:
    """The method for a parameter space."""
    return HeadOnly(config, space)
