"""Each round alone meets the budget: the least error that fits into it, without memory of earlier rounds.

What TSFA would do without its queue: good channels cannot pay for bad ones. Where even the least does not fit, the
round is as fast as it can be.

Source: this project's.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from raysoft.allocation.base import AllocationContext, AllocatorConfig
from raysoft.allocation.cohort import Cohort
from raysoft.allocation.memoryless import Memoryless
from raysoft.allocation.solvers.inner import solve_inner
from raysoft.allocation.solvers.menus import round_to_menu
from raysoft.config import Traits
from raysoft.rng import Rng
from raysoft.types import Allocation


class Config(AllocatorConfig):
    """Nothing beyond the budget."""

    TRAITS: ClassVar[Traits] = Traits(needs_budget=True)


def decide(cohort: Cohort, tick: int, rng: Rng) -> Allocation:
    """The least penalty within one budget, in whole units."""
    if cohort.index.size == 0:
        return cohort.nobody({})
    assert cohort.budget_s is not None
    budget = cohort.budget_s
    problem, menus, penalty = cohort.problem()
    inner = solve_inner(problem, np.array([budget]))
    if not np.isfinite(inner.penalty_G[0]):
        return cohort.fastest_plan(menus.least_K, {"tau_s": budget, "slack": 0.0, "infeasible": 1.0})
    chosen, slack = round_to_menu(problem, menus, penalty, inner.bits_GK[0], budget)
    return cohort.fastest_plan(
        chosen,
        {
            "tau_s": budget,
            "price_per_hz": float(inner.price_G[0]),
            "slack": slack,
            "infeasible": 0.0,
            "continuous_penalty": float(inner.penalty_G[0]),
        },
    )


def build(config: Config, context: AllocationContext) -> Memoryless:
    """The allocator."""
    return Memoryless(config, context, decide)
