"""A random fraction of each client's bits, and the bandwidth that ends the round earliest.

Uniform between the codec's `min_kept_fraction` and 1, keyed by client and round: what adapting the fraction to channel
and update is worth.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from raysoft.allocation.base import AllocationContext, AllocatorConfig, State
from raysoft.allocation.cohort import Cohort, everyone
from raysoft.rng import Rng
from raysoft.types import Allocation, Array, ChannelState, ClientReport, Outcome, Participants


class Config(AllocatorConfig):
    """Nothing of its own; a budget matters to the outage rule only."""


@dataclass(frozen=True)
class Random:
    """Min-max bandwidth, random fraction."""

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
        """Fractions drawn for (client, tick), delivered as fast as the band allows."""
        cohort = Cohort.of(self.config, self.context, reports, who, needs_curve=False)
        draw_K = rng.uniform("allocator.random", cohort.clients_K, tick)[:, 0]
        least = self.context.min_kept_fraction
        units = np.maximum(cohort.units_for(least + (1.0 - least) * draw_K), cohort.menus.least_K)
        return cohort.fastest_plan(units[cohort.index], {})

    def observe(self, plan: Allocation, outcome: Outcome, state: State) -> State:
        """Nothing to learn."""
        return state


def build(config: Config, context: AllocationContext) -> Random:
    """The allocator."""
    return Random(config, context)
