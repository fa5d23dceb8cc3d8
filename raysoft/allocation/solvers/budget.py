"""Can a latency budget be met at all? Asked before the first round, on sampled cohorts.

The least a round can take is the min-max latency of the least payload (`min_kept_fraction`), over those the outage
rule lets send. Averaged over cohorts, this floor must not exceed the budget, or the virtual queue grows without end.
The outage rule itself depends on the budget, and a budget so small that nearly everybody is in outage would always
"hold". So a budget also has to let at least half of the participants send.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from raysoft.allocation.solvers.fdma import solve_minmax
from raysoft.errors import ConfigError
from raysoft.types import Array
from raysoft.wireless.link import Link
from raysoft.wireless.rates import in_outage

MIN_SENDERS = 0.5  # share of participants that a meaningful budget must let send
_ACCURACY = 1e-3


@dataclass(frozen=True)
class Draws:
    """M sampled cohorts of K participants, arrays [M, K].

    start_s: when uploads may begin (downlink + compute + control); least_bits: the least payload on the air;
    snr_hz: a_k from the reported gains.
    """

    start_s_MK: Array
    least_bits_MK: Array
    snr_hz_MK: Array


@dataclass(frozen=True)
class Floor:
    """What a budget would mean: mean fastest round [s], its standard error over the cohorts, share that may send."""

    mean_s: float
    standard_error_s: float
    senders: float

    def meets(self, budget_s: float) -> bool:
        """Whether rounds can keep the budget on average, with enough participants."""
        return self.mean_s <= budget_s and self.senders >= MIN_SENDERS


def latency_floor(draws: Draws, link: Link, budget_s: float, outage_factor: float) -> Floor:
    """Mean min-max latency of the least payload under the outage rule; a round without senders costs the budget."""
    out = in_outage(
        draws.start_s_MK,
        draws.least_bits_MK,
        draws.snr_hz_MK,
        link.bandwidth_hz,
        link.max_spectral_efficiency,
        outage_factor * budget_s,
    )
    start = np.where(out, 0.0, draws.start_s_MK)
    tau = solve_minmax(
        start,
        np.where(out, 0.0, draws.least_bits_MK),
        np.where(out, 1.0, draws.snr_hz_MK),
        link.bandwidth_hz,
        link.max_spectral_efficiency,
    ).tau_s
    tau = np.where(out.all(axis=1), budget_s, tau)
    error = float(tau.std(ddof=1) / math.sqrt(len(tau))) if len(tau) > 1 else math.inf
    return Floor(float(tau.mean()), error, float(1.0 - out.mean()))


def smallest_feasible_budget(draws: Draws, link: Link, outage_factor: float) -> float:
    """The smallest budget [s] that the cohorts can keep, to 0.1 %; inf if none does (too many without any channel).

    Bisection between a budget that holds and one that does not. (More budget lets weaker clients send, which can make
    the floor rise; then this is one of several thresholds, the one next to large budgets.)
    """
    low = high = max(float(draws.start_s_MK.mean()), 1e-9)
    while not latency_floor(draws, link, high, outage_factor).meets(high):
        low, high = high, 2.0 * high
        if high > 1e12:
            return math.inf
    while low >= high or latency_floor(draws, link, low, outage_factor).meets(low):
        low /= 2.0
        if low < 1e-12:
            return low
    while high > low * (1.0 + _ACCURACY):
        middle = math.sqrt(low * high)
        if latency_floor(draws, link, middle, outage_factor).meets(middle):
            high = middle
        else:
            low = middle
    return high


def check_budget(draws: Draws, link: Link, budget_s: float, outage_factor: float) -> Floor:
    """The floor under this budget. Raises ConfigError naming the smallest feasible one where it cannot be met.

    A budget within two standard errors of its floor passes: the sample cannot tell.
    """
    floor = latency_floor(draws, link, budget_s, outage_factor)
    tolerated = 2.0 * floor.standard_error_s if math.isfinite(floor.standard_error_s) else 0.0
    if floor.meets(budget_s + tolerated):
        return floor
    smallest = smallest_feasible_budget(draws, link, outage_factor)
    if floor.senders < MIN_SENDERS:
        reason = f"{100 * (1 - floor.senders):.0f} % of the participants could not send the least in time"
    else:
        reason = f"rounds that send the least take {floor.mean_s:.3g} s on average"
    if math.isinf(smallest):
        remedy = "no budget can be met with these channels; raise channel.bandwidth_hz or device.tx_power_dbm"
    else:
        remedy = f"the smallest feasible budget is about {rounded_up(smallest)} s"
    raise ConfigError("allocator.latency_budget_s", f"{budget_s:g} s cannot be met: {reason}; {remedy}")


def rounded_up(value: float) -> str:
    """Three digits, never below the value."""
    digits = 10.0 ** (2 - math.floor(math.log10(value)))
    return f"{math.ceil(value * digits - 1e-9) / digits:.3g}"
