"""The offline stage of TSFA: the largest kept fraction whose mean round latency meets the budget, on sampled rounds.

Kim and Choi (arXiv 2505.00333) choose the structural rank before training; how much of an update of that rank fits the
long-term latency budget decides what a rank is worth. All participants send the same number of units u of their menu
(one rank, so one menu) under min-max bandwidth (`fdma.py`), those in outage are silent, a round in which nobody may
send costs the budget. Each round's latency grows with u, and so does its trimmed mean: bisection over units is exact.

Shapes: M sampled rounds, K participants, J menu points.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from raysoft.allocation.solvers.budget import MIN_SENDERS, Draws
from raysoft.allocation.solvers.fdma import solve_minmax
from raysoft.types import Array
from raysoft.wireless.link import Link
from raysoft.wireless.rates import in_outage


@dataclass(frozen=True)
class Latency:
    """Round latency over M sampled rounds [s]; the mean is trimmed at both ends, its error that of the sampling."""

    mean_s: float
    standard_error_s: float
    median_s: float
    p95_s: float

    @classmethod
    def of(cls, tau_M: Array, trim: float) -> Latency:
        """`trim`: share cut off at each end, 0 <= trim < 0.5. The standard error follows Tukey and McLaughlin (1963):
        the deviation of the winsorised sample over (1 - 2 trim) sqrt(M)."""
        rounds = len(tau_M)
        cut = int(trim * rounds)
        ordered = np.sort(tau_M)
        inner = ordered[cut : rounds - cut]
        winsorised = np.clip(ordered, inner[0], inner[-1])
        error = winsorised.std(ddof=1) / (len(inner) / rounds * math.sqrt(rounds)) if rounds > 1 else math.inf
        return cls(
            mean_s=float(inner.mean()),
            standard_error_s=float(error),
            median_s=float(np.median(tau_M)),
            p95_s=float(np.quantile(tau_M, 0.95)),
        )


@dataclass(frozen=True)
class SampledRounds:
    """M rounds under one budget: who may send is decided by the least payload, as in every finite-channel allocator."""

    draws: Draws
    link: Link
    budget_s: float
    limit_s: float  # the outage rule: outage_factor budgets

    @property
    def outage_MK(self) -> Array:
        """Who is told not to send."""
        draws, link = self.draws, self.link
        return in_outage(
            draws.start_s_MK,
            draws.least_bits_MK,
            draws.snr_hz_MK,
            link.bandwidth_hz,
            link.max_spectral_efficiency,
            self.limit_s,
        )

    def latency_M(self, payload_bits: float) -> Array:
        """Min-max latency [s] of each round when every sender has this payload on the air."""
        out = self.outage_MK
        tau = solve_minmax(
            np.where(out, 0.0, self.draws.start_s_MK),
            np.where(out, 0.0, payload_bits),
            np.where(out, 1.0, self.draws.snr_hz_MK),
            self.link.bandwidth_hz,
            self.link.max_spectral_efficiency,
        ).tau_s
        return np.where(out.all(axis=1), self.budget_s, tau)


@dataclass(frozen=True)
class Fit:
    """What fits a budget. `units` None: not even the least; then `latency` is that of the least."""

    units: int | None
    latency: Latency
    senders: float  # share of participants that may send
    reason: str = ""  # why nothing fits


def largest_units(rounds: SampledRounds, bits_J: Array, least: int, trim: float) -> Fit:
    """The largest u >= least with trimmed mean latency within the budget.

    bits_J: payload on the air of every menu point, increasing. Raises ValueError where `least` is not on the menu.
    """
    if not 0 <= least < len(bits_J):
        raise ValueError(f"least must be one of the units 0..{len(bits_J) - 1}, got {least}")

    def latency(units: int) -> Latency:
        return Latency.of(rounds.latency_M(float(bits_J[units])), trim)

    senders = float(1.0 - rounds.outage_MK.mean())
    low, low_latency = least, latency(least)
    if senders < MIN_SENDERS:
        silent = f"{100 * (1 - senders):.0f} % of the participants could not send the least in time"
        return Fit(None, low_latency, senders, silent)
    if low_latency.mean_s > rounds.budget_s:
        reason = f"the least takes {low_latency.mean_s:.3g} s on average, above the budget of {rounds.budget_s:g} s"
        return Fit(None, low_latency, senders, reason)
    high = len(bits_J)  # too much
    while high - low > 1:
        # The first trial is everything: a generous budget is done after one step.
        middle = high - 1 if high == len(bits_J) and low == least else (low + high) // 2
        tried = latency(middle)
        if tried.mean_s <= rounds.budget_s:
            low, low_latency = middle, tried
        else:
            high = middle
    return Fit(low, low_latency, senders)
