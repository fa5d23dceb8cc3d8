"""What an uplink decides: who arrives, when, at which energy, how distorted. It sees bits, never payloads."""

from __future__ import annotations

from typing import Literal, Protocol

from raysoft.config import Positive, Section
from raysoft.rng import Rng
from raysoft.types import Allocation, Array, ChannelState, Outcome, Tensors


class UplinkConfig(Section):
    """Options every uplink has."""

    deadline_s: Positive | None = None  # simulated seconds; later arrivals are lost
    downlink: Literal["ignore", "broadcast"] = "ignore"
    downlink_rate_bps: Positive = 2e7  # with downlink: broadcast


class Uplink(Protocol):
    """Built from (config, Link); runs in the coordinator only."""

    superposes: bool

    def deliver(
        self, plan: Allocation, num_bits_K: Array, compute_s_K: Array, compute_j_K: Array, downlink_s: float,
        channel: ChannelState, tick: int, rng: Rng,
    ) -> Outcome:
        """Latency, energy and fate of each participant of the plan."""
        ...

    def receive(self, sums: Tensors, outcome: Outcome, rng: Rng) -> Tensors:
        """Digital uplinks: the identity. Analog ones add their noise once."""
        ...
