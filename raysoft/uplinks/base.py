"""What an uplink decides: who arrives, when, at which energy, how distorted. It sees bits, never payloads."""

from __future__ import annotations

from typing import Literal, Protocol

from raysoft.config import Positive, Section
from raysoft.rng import Rng
from raysoft.types import Allocation, Array, Folded, Outcome, Participants, Tensors


class UplinkConfig(Section):
    """Options every uplink has."""

    deadline_s: Positive | None = None
    """Simulated time after which arrivals are lost; null: none is. [s]"""
    downlink: Literal["ignore", "broadcast"] = "ignore"
    """Whether the broadcast to the clients takes time."""
    downlink_rate_bps: Positive = 2e7
    """With broadcast: rate of the downlink. [bit/s]"""


def downlink_seconds(config: UplinkConfig, num_bits: float) -> float:
    """Seconds until every client has the global model, given the bits sent to each.

    `ignore`: 0 (a server with power to spare). `broadcast`: one transmission that all clients hear, at
    `downlink_rate_bps`.
    """
    if config.downlink == "ignore":
        return 0.0
    return float(num_bits) / config.downlink_rate_bps


def is_late(seconds_K: Array, deadline_s: float) -> Array:
    """Who misses a deadline, bool [K]. A relative 1e-9 is forgiven: an optimal plan ends exactly on its deadline."""
    return seconds_K > deadline_s * (1 + 1e-9)


class Uplink(Protocol):
    """Built from (config, Link); runs in the coordinator only.

    What it needs of the others is in its Config's traits: `shares_band`, `analog`.
    """

    @property
    def config(self) -> UplinkConfig:
        """The options it was built with; the coordinator reads the downlink from them."""
        ...

    def deliver(self, plan: Allocation, num_bits_K: Array, who: Participants, tick: int, rng: Rng) -> Outcome:
        """Latency, energy and fate of each participant of the plan."""
        ...

    def receive(self, folded: Folded, outcome: Outcome, tick: int, rng: Rng) -> Tensors:
        """Digital uplinks: the values as they are. Analog ones add their noise once, on the support."""
        ...
