"""No channel at all: everybody sends everything at once. The reference that other allocators are compared with.

Bandwidth is nan ("no such number", null in records); a round takes as long as the slowest client computes.

Source: this project's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from raysoft.allocation.base import AllocationContext, AllocatorConfig, State
from raysoft.allocation.cohort import everyone
from raysoft.config import Traits
from raysoft.rng import Rng
from raysoft.types import Allocation, Array, ChannelState, ClientReport, Outcome, Participants


class Config(AllocatorConfig):
    """A budget changes nothing here; it is only shown next to the latency."""

    TRAITS: ClassVar[Traits] = Traits(needs_channel=False, reads_curves=False)


@dataclass(frozen=True)
class IdealAllocator:
    """Keep everything."""

    config: Config
    context: AllocationContext

    def init(self) -> State:
        """Nothing to remember."""
        return {}

    def select(self, candidates_K: Array, channel: ChannelState, state: State, tick: int, rng: Rng) -> Array:
        """All candidates, by client id."""
        return everyone(candidates_K)

    def allocate(
        self, reports: tuple[ClientReport, ...], who: Participants, state: State, tick: int, rng: Rng
    ) -> Allocation:
        """All units of everybody, no control traffic."""
        active_K = np.array([report.finite for report in reports], dtype=bool)
        latency_K = who.downlink_s + np.asarray(who.compute_s_K, np.float64)
        return Allocation(
            clients_K=who.clients_K,
            active_K=active_K,
            units_K=np.where(active_K, [report.curve.units for report in reports], 0),
            bandwidth_hz_K=np.full(len(reports), np.nan),
            power_w_K=who.power_w_K,
            latency_s_K=latency_K,
            round_s=float(latency_K[active_K].max(initial=0.0)),
            control_bits_K=np.zeros(len(reports), dtype=np.int64),
            diagnostics={"penalty": 0.0, "outages": float(np.count_nonzero(~active_K))},
        )

    def observe(self, plan: Allocation, outcome: Outcome, state: State) -> State:
        """Nothing to learn."""
        return state


def build(config: Config, context: AllocationContext) -> IdealAllocator:
    """The allocator."""
    return IdealAllocator(config, context)
