"""What a round is made of, and what it changes: the parts of a run and its state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from raysoft.allocation.base import Allocator
from raysoft.config import RunConfig
from raysoft.federation.executor import Executor
from raysoft.federation.workload import WorkloadInfo
from raysoft.methods.base import Method
from raysoft.methods.initial import initial_theta
from raysoft.rng import Rng
from raysoft.types import Array, ClientState, ServerState
from raysoft.uplinks.base import Uplink
from raysoft.wireless.base import Channel
from raysoft.wireless.link import Devices, Link


@dataclass(frozen=True)
class Parts:
    """What a round is made of; nothing in it changes."""

    config: RunConfig
    info: WorkloadInfo
    executor: Executor
    method: Method
    allocator: Allocator
    uplink: Uplink
    channel: Channel
    link: Link
    devices: Devices
    rng: Rng
    pack_size: int
    even_packs: bool
    shares_band: bool  # False: an allocator without a channel to share
    analog: bool  # what is sent adds up on the air


@dataclass(frozen=True)
class Totals:
    """Sums over the rounds so far, for their records alone: nothing is decided by them."""

    dense_bits: int = 0  # what everybody's float32 update would have cost, on the air
    sent_counts: Array | None = None  # how often each rank component arrived, int64 [N], where codecs say

    def after(self, dense_bits: int, sent_counts: Array | None) -> Totals:
        """With one round more."""
        known = [one for one in (self.sent_counts, sent_counts) if one is not None]
        return Totals(self.dense_bits + dense_bits, sum(known[1:], known[0]) if known else None)


@dataclass(frozen=True)
class RunState:
    """Everything that a round changes: all of it, and nothing else, belongs into a checkpoint."""

    server: ServerState
    allocator: Mapping[str, Array]
    clients: Mapping[int, ClientState] = field(default_factory=dict)  # only those that remember something
    clock_s: float = 0.0
    totals: Totals = field(default_factory=Totals)


def first_state(parts: Parts) -> RunState:
    """The state before the first round."""
    info = parts.info
    theta = initial_theta(info.space, info.head, parts.config.model.lora.init, parts.rng)
    return RunState(server=ServerState(theta=theta), allocator=parts.allocator.init())
