"""The frame of every allocator that decides each round by itself: nothing to remember, everybody sampled takes part."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from raysoft.allocation.base import AllocationContext, AllocatorConfig, State
from raysoft.allocation.cohort import Cohort, everyone
from raysoft.rng import Rng
from raysoft.types import Allocation, Array, ChannelState, ClientReport, Outcome, Participants

Rule = Callable[[Cohort, int, Rng], Allocation]
"""(cohort with the outage rule applied, tick, rng) -> the plan of the round."""


@dataclass(frozen=True)
class Memoryless:
    """An allocator made of one rule."""

    config: AllocatorConfig
    context: AllocationContext
    rule: Rule

    def init(self) -> State:
        """Nothing to remember."""
        return {}

    def select(self, candidates_K: Array, channel: ChannelState, state: State, tick: int, rng: Rng) -> Array:
        """All candidates, by client id."""
        return everyone(candidates_K)

    def allocate(
        self, reports: tuple[ClientReport, ...], who: Participants, state: State, tick: int, rng: Rng
    ) -> Allocation:
        """What the rule decides."""
        return self.rule(Cohort.of(self.config, self.context, reports, who), tick, rng)

    def observe(self, plan: Allocation, outcome: Outcome, state: State) -> State:
        """Nothing to learn."""
        return state
