"""The solvers in one place, for allocators, planning and anybody who wants to use them alone.

May use wireless and kernels.

>>> import numpy as np
>>> from raysoft.allocation.solvers import solve_minmax
>>> fastest = solve_minmax([0.1, 0.2], [1e5, 2e5], [1e7, 1e8], bandwidth_hz=1e6, max_efficiency=7.4)
>>> round(float(fastest.tau_s), 4), fastest.bandwidth_hz.sum().round(3).item()
(0.2331, 1000000.0)
"""

from __future__ import annotations

from raysoft.allocation.solvers.budget import Draws, Floor, check_budget, latency_floor, smallest_feasible_budget
from raysoft.allocation.solvers.fdma import MinMax, solve_minmax
from raysoft.allocation.solvers.inner import Inner, Problem, solve_inner
from raysoft.allocation.solvers.menus import Menus, convex_knots, round_to_menu
from raysoft.allocation.solvers.online import Solution, solve_online
from raysoft.wireless.rates import (
    bandwidth_from_nats,
    limit,
    nats_from_load,
    nats_from_marginal,
    rate,
    rho,
    share_for_rate,
)

__all__ = [
    "Draws",
    "Floor",
    "Inner",
    "Menus",
    "MinMax",
    "Problem",
    "Solution",
    "bandwidth_from_nats",
    "check_budget",
    "convex_knots",
    "latency_floor",
    "limit",
    "nats_from_load",
    "nats_from_marginal",
    "rate",
    "rho",
    "round_to_menu",
    "share_for_rate",
    "smallest_feasible_budget",
    "solve_inner",
    "solve_minmax",
    "solve_online",
]
