"""A fixed fraction of everybody's bits, and the bandwidth that ends the round earliest (see `fdma.py`).

The fraction is the codec's `kept_fraction`, rounded down to the menu, at least one unit.
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
class MinMax:
    """Min-max bandwidth, fixed fraction."""

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
        """The codec's fixed fraction, delivered as fast as the band allows."""
        cohort = Cohort.of(self.config, self.context, reports, who, needs_curve=False)
        units = cohort.units_for(np.full(len(reports), self.context.kept_fraction))
        return cohort.fastest_plan(units[cohort.index], {})

    def observe(self, plan: Allocation, outcome: Outcome, state: State) -> State:
        """Nothing to learn."""
        return state


def build(config: Config, context: AllocationContext) -> MinMax:
    """The allocator."""
    return MinMax(config, context)
