"""Each round alone meets the budget: the least error that fits into it, without memory of earlier rounds.

What TSFA would do without its queue: good channels cannot pay for bad ones. Where even the least does not fit, the
round is as fast as it can be.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from raysoft.allocation.base import AllocationContext, AllocatorConfig, State
from raysoft.allocation.cohort import Cohort, everyone
from raysoft.allocation.inner import solve_inner
from raysoft.allocation.menus import round_to_menu
from raysoft.rng import Rng
from raysoft.types import Allocation, Array, ChannelState, ClientReport, Outcome, Participants

NEEDS_BUDGET = True


class Config(AllocatorConfig):
    """Nothing beyond the budget."""


@dataclass(frozen=True)
class Greedy:
    """Minimise the penalty at tau = budget."""

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
        """The least penalty within one budget, in whole units."""
        cohort = Cohort.of(self.config, self.context, reports, who, needs_curve=True)
        if cohort.index.size == 0:
            return cohort.nobody({})
        assert self.config.latency_budget_s is not None
        budget = self.config.latency_budget_s
        problem, menus, penalty = cohort.problem()
        inner = solve_inner(problem, np.array([budget]))
        if not np.isfinite(inner.penalty_G[0]):
            return cohort.fastest_plan(menus.least_K, {"tau_s": budget, "slack": 0.0, "infeasible": 1.0})
        chosen, slack = round_to_menu(problem, menus, penalty, inner.bits_GK[0], budget)
        return cohort.fastest_plan(chosen, {
            "tau_s": budget, "price_per_hz": float(inner.price_G[0]), "slack": slack, "infeasible": 0.0,
            "continuous_penalty": float(inner.penalty_G[0]),
        })  # fmt: skip

    def observe(self, plan: Allocation, outcome: Outcome, state: State) -> State:
        """Nothing to learn."""
        return state


def build(config: Config, context: AllocationContext) -> Greedy:
    """The allocator."""
    return Greedy(config, context)
