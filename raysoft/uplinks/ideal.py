"""Uplink `ideal`: a perfect wire. Everything arrives at once and costs nothing; only computing takes time.

Source: this project's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from raysoft.config import Traits
from raysoft.rng import Rng
from raysoft.types import Allocation, Array, Folded, Outcome, Participants, Tensors
from raysoft.uplinks.base import UplinkConfig, is_late
from raysoft.wireless.link import Link


class Config(UplinkConfig):
    """Options of `ideal`. A `deadline_s` still loses clients that compute for too long."""

    TRAITS: ClassVar[Traits] = Traits(shares_band=False)


@dataclass(frozen=True)
class IdealUplink:
    """Latency = downlink + compute; energy = compute."""

    config: Config

    def deliver(self, plan: Allocation, num_bits_K: Array, who: Participants, tick: int, rng: Rng) -> Outcome:
        """Everyone who was told to send arrives, unless a deadline was set and missed."""
        active_K = np.asarray(plan.active_K, dtype=bool)
        latency_K = who.downlink_s + np.asarray(who.compute_s_K, dtype=float)
        late_K = np.zeros(len(active_K), dtype=bool)
        if self.config.deadline_s is not None:
            late_K = active_K & is_late(latency_K, self.config.deadline_s)
            latency_K = np.where(late_K, self.config.deadline_s, latency_K)
        return Outcome(
            arrived_K=active_K & ~late_K,
            latency_s_K=latency_K,
            energy_j_K=np.asarray(who.compute_j_K, dtype=float),
            reason_K=tuple(np.where(late_K, "deadline", np.where(active_K, "", "outage")).tolist()),
            round_s=float(latency_K[active_K].max()) if active_K.any() else plan.round_s,
        )

    def receive(self, folded: Folded, outcome: Outcome, tick: int, rng: Rng) -> Tensors:
        """The identity."""
        return folded.values


def build(config: Config, link: Link) -> IdealUplink:
    """The uplink; the radio constants do not matter to it."""
    return IdealUplink(config)
