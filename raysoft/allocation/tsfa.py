"""TSFA, online stage: how much everybody sends, and over which bandwidth, under a long-term latency budget.

Source: after Kim and Choi, "Two-Stage Wireless Federated LoRA Fine-Tuning with Sparsified Orthogonal Updates", arXiv
2505.00333.

Its version 1: "Communication-Efficient Wireless Federated Fine-Tuning for Large-Scale AI Models". The idea is drift
plus penalty (Lyapunov optimisation). A virtual queue remembers how far the rounds so far overran the budget,

    Z_(t+1) = max(Z_t + tau_t - budget, 0)          tau_t: realised round latency,

and each round solves, with everything dimensionless,

    minimise  V sum_k p_k psi_k(x_k) + (Z_t / budget) (tau / budget)

over units, bandwidth and round time tau. psi_k is the squared error that client k's codec leaves, divided by the
cohort's mean sum p_k E_k, so a client with a tiny update does not count like one with a large one. Because it reads
nothing but the reported rate-distortion curves, it works with every codec that has one. An empty queue keeps
everything.

Facts: the mean latency of T rounds is at most budget + (Z_T - Z_0) / T. A larger V gives a lower penalty and a longer
queue. If the fastest rounds exceed the budget on average, the queue grows linearly: `infeasible` marks such rounds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from raysoft.allocation.base import BACKLOG, AllocationContext, AllocatorConfig, State
from raysoft.allocation.cohort import Cohort, everyone
from raysoft.allocation.solvers.inner import solve_inner
from raysoft.allocation.solvers.menus import round_to_menu
from raysoft.allocation.solvers.online import fastest_s, solve_online
from raysoft.config import NonNegative, Positive, Traits
from raysoft.rng import Rng
from raysoft.types import Allocation, Array, ChannelState, ClientReport, Outcome, Participants


class Config(AllocatorConfig):
    """Options of TSFA.

    v: weight of the error against the queue (1 to 3 work well; 10 overshot the budget by 5 % over 40 rounds).
    queue_init: `zero` starts with an empty queue, so the first rounds keep everything and overrun the budget until
    the queue is filled. `steady` starts at the queue at which a round takes about one budget: `queue_start` budgets,
    or, if that is null, the median over the first rounds of the queue that makes the budget stationary for a round's
    curves and channels. (The first alone may meet a cohort in a fade: a price that a whole run could not work off.)
    longest_round: no round is planned longer than this many budgets (unless the least takes longer); null: no limit. An
    empty queue keeps everything at any price: if one client is in a fade, that can cost many budgets at once.
    certify: prove this relative optimality gap in every round (slower); null: grid and refinement.
    """

    TRAITS: ClassVar[Traits] = Traits(needs_budget=True)

    v: Positive = 1.0
    """Weight V of the error against the queue; larger keeps more and overshoots longer. [1]"""
    queue_init: Literal["zero", "steady"] = "zero"
    """Whether the virtual queue starts empty, or where a round takes about one budget."""
    queue_start: NonNegative | None = None
    """With steady: the queue's start; null: the median over the first rounds of what makes the budget stationary.
    [budgets]"""
    longest_round: Positive | None = None
    """No round is planned longer than this, unless the least takes longer; null: no limit. [budgets]"""
    certify: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Relative optimality gap to prove in every round (slower); null: grid and refinement. [1]"""


@dataclass(frozen=True)
class Tsfa:
    """Remembers the queue in seconds, nan until a steady start is known: {"queue_s": scalar}.

    While a steady start is being found also the stationary queue of every round so far and the time overrun since the
    start: {"starts_s": [up to WARM_UP], "overrun_s": scalar}.
    """

    config: Config
    context: AllocationContext

    @property
    def budget_s(self) -> float:
        """The long-term mean round latency."""
        assert self.config.latency_budget_s is not None
        return self.config.latency_budget_s

    def init(self) -> State:
        """The queue before the first round."""
        if self.config.queue_init == "zero":
            return {BACKLOG: np.array(0.0)}
        start = self.config.queue_start
        if start is not None:
            return {BACKLOG: np.array(start * self.budget_s)}
        return {BACKLOG: np.array(np.nan), "starts_s": np.zeros(0), "overrun_s": np.array(0.0)}

    def select(self, candidates_K: Array, channel: ChannelState, state: State, tick: int, rng: Rng) -> Array:
        """All candidates, by client id: the coordinator has sampled uniformly."""
        return everyone(candidates_K)

    def allocate(
        self, reports: tuple[ClientReport, ...], who: Participants, state: State, tick: int, rng: Rng
    ) -> Allocation:
        """Drift plus penalty for this round; units are whole, and the round ends by the optimal tau."""
        cohort = Cohort.of(self.config, self.context, reports, who)
        queue_s = float(state[BACKLOG])
        if cohort.index.size == 0:
            notes = {BACKLOG: 0.0 if np.isnan(queue_s) else queue_s}
            return replace(cohort.nobody(notes), notes=notes)
        problem, menus, penalty = cohort.problem()
        v, budget = self.config.v, self.budget_s
        found: dict[str, float] = {}
        if _warming_up(state):
            # Where not even the least fits, or hardly, the price at the budget is infinite: a little above the least.
            at_s = max(budget, ROOM * fastest_s(problem))
            start_s = v * budget**2 * max(0.0, -float(solve_inner(problem, np.array([at_s])).slope_G[0]))
            queue_s = _steady_queue(state, start_s)
            found = {"queue_start_s": start_s}
        longest_s = None if self.config.longest_round is None else self.config.longest_round * budget
        best = solve_online(problem, v, queue_s / budget**2, self.config.certify, longest_s)
        chosen, slack = round_to_menu(problem, menus, penalty, best.bits_K, best.tau_s)
        notes = {BACKLOG: queue_s, **found}
        plan = cohort.fastest_plan(
            chosen,
            {
                BACKLOG: queue_s,
                "tau_s": best.tau_s,
                "price_per_hz": best.price,
                "objective": best.objective,
                "continuous_penalty": best.penalty,
                "slack": slack,
                "gap": best.gap,
                "floor_s": best.floor_s,
                "ceiling_s": best.ceiling_s,
                "infeasible": float(best.floor_s > budget),
                "evaluations": float(best.evaluations),
                **found,
            },
        )
        return replace(plan, notes=notes)

    def observe(self, plan: Allocation, outcome: Outcome, state: State) -> State:
        """The queue after the realised latency."""
        queue = {BACKLOG: np.array(next_queue(plan.notes, outcome.round_s, self.budget_s))}
        if not _warming_up(state):
            return queue
        start_s = plan.notes.get("queue_start_s")  # None: nobody could send, nothing was learned
        starts = np.append(state["starts_s"], [] if start_s is None else start_s)
        overrun = np.array(float(state["overrun_s"]) + outcome.round_s - self.budget_s)
        return queue if len(starts) >= WARM_UP else {**queue, "starts_s": starts, "overrun_s": overrun}


ROOM = 1.25
WARM_UP = 8  # rounds whose median sets the steady start


def _warming_up(state: State) -> bool:
    return "starts_s" in state


def _steady_queue(state: State, start_s: float) -> float:
    """The queue of a run that had started at the median of the stationary queues seen so far, this round's included."""
    return max(float(np.median(np.append(state["starts_s"], start_s))) + float(state["overrun_s"]), 0.0)


def next_queue(notes: Mapping[str, float], round_s: float, budget_s: float) -> float:
    """max(Z + tau - budget, 0), from the queue with which the plan was made."""
    return max(notes[BACKLOG] + round_s - budget_s, 0.0)


def build(config: Config, context: AllocationContext) -> Tsfa:
    """The allocator."""
    return Tsfa(config, context)
