"""The plainest rule: an equal share of the band for every sender, a fixed fraction of its bits.

The fraction is the codec's `kept_fraction`, rounded down to the menu, at least one unit. The slowest channel decides
how long the round takes.
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
class Equal:
    """Equal bandwidth, fixed fraction."""

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
        """B / (number of senders) for each, and the codec's fixed fraction."""
        cohort = Cohort.of(self.config, self.context, reports, who, needs_curve=False)
        senders = max(cohort.index.size, 1)
        bandwidth = np.where(cohort.active_K, self.context.link.bandwidth_hz / senders, 0.0)
        units = cohort.units_for(np.full(len(reports), self.context.kept_fraction))
        return cohort.plan(units, bandwidth, {})

    def observe(self, plan: Allocation, outcome: Outcome, state: State) -> State:
        """Nothing to learn."""
        return state


def build(config: Config, context: AllocationContext) -> Equal:
    """The allocator."""
    return Equal(config, context)
