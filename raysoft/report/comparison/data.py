"""From runs of several seeds to what a comparison shows: pure numpy reductions, tested without drawing.

Shapes: T records of a run, P points of a common grid, R rounds of all seeds together, G groups of clients.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from raysoft.quantities import LEARNED, quantity
from raysoft.report.run.data import after_base, binned, client_rounds, client_table, latency_budget_s, megabytes
from raysoft.rundir.reading import Run
from raysoft.types import Array

POINTS = 200
GROUPS = 12
AXES = ("rounds", "seconds", "mb", "joules")


@dataclass(frozen=True)
class Trace:
    """What the figures need of one run: the costs so far and the metrics at each record, latencies, clients."""

    seed: int
    costs: Mapping[str, Array]  # [T] each: rounds, seconds, mb, joules, cumulative
    metrics: Mapping[str, Array]  # [T] each; NaN where not evaluated
    latency_s_R: Array
    budget_s: float | None
    gain_db_C: Array  # clients that were ever allowed to send
    kept_C: Array  # mean kept fraction in the rounds in which they were


@dataclass(frozen=True)
class MeanCurve:
    """A metric over a cost: mean over seeds and mean ± one standard deviation (NaN for a single seed)."""

    label: str
    x_P: Array
    mean_P: Array
    low_P: Array
    high_P: Array
    seeds: int = 1

    def scaled(self, factor: float) -> MeanCurve:
        """The same with the metric times `factor`."""
        return MeanCurve(
            self.label, self.x_P, factor * self.mean_P, factor * self.low_P, factor * self.high_P, self.seeds
        )


def trace(run: Run, seed: int) -> Trace:
    """Reduce a run to what a comparison needs of it."""
    costs = {
        "rounds": run.column("round"),
        "seconds": run.column("simulated_time_s"),
        "mb": megabytes(run),
        "joules": np.cumsum(np.nan_to_num(run.column("energy_j"))),
    }
    metrics = {metric: run.column(quantity(metric).record_key) for metric in LEARNED}
    latency = run.column("round_latency_s")[after_base(run)]
    rounds = client_rounds(run)
    gain = kept = np.empty(0)
    if rounds is not None:
        table = client_table(rounds)
        ok = np.isfinite(table.gain_db_C) & np.isfinite(table.kept_mean_C)
        gain, kept = table.gain_db_C[ok], table.kept_mean_C[ok]
    return Trace(seed, costs, metrics, latency[np.isfinite(latency)], latency_budget_s(run), gain, kept)


def held(x_T: Array, y_T: Array, grid_P: Array) -> Array:
    """[P] y of the last evaluation at or before each x (a model holds until the next); NaN before the first.

    >>> held(np.array([0.0, 1.0, 3.0]), np.array([5.0, np.nan, 7.0]), np.array([-1.0, 2.9, 3.0])).tolist()
    [nan, 5.0, 7.0]
    """
    ok = np.isfinite(x_T) & np.isfinite(y_T)
    x, y = x_T[ok], y_T[ok]
    place = np.searchsorted(x, grid_P, side="right") - 1
    return np.where(place >= 0, y[np.maximum(place, 0)], np.nan) if len(x) else np.full(len(grid_P), np.nan)


def mean_curve(label: str, traces: Sequence[Trace], axis: str, metric: str, log: bool = False) -> MeanCurve | None:
    """Mean and spread over seeds on a common grid, which ends where the first seed ends: nothing is extrapolated.

    Rounds: the rounds at which any seed was evaluated. Other costs: `POINTS` equal steps, or equal ratios for `log`.
    None where no seed has two evaluations.
    """
    seen = []
    for item in traces:
        x, y = item.costs[axis], item.metrics[metric]
        ok = np.isfinite(x) & np.isfinite(y)
        if ok.sum() > 1 and x[ok][-1] > 0:
            seen.append((x[ok], y[ok]))
    if not seen:
        return None
    end = min(x[-1] for x, _ in seen)
    if axis == "rounds":
        grid = np.unique(np.concatenate([x for x, _ in seen]))
        grid = grid[grid <= end]
    elif log:
        start = max(float(x[x > 0][0]) for x, _ in seen)
        grid = np.geomspace(min(start, end), end, POINTS)
        grid[-1] = end  # not a rounding error above it
    else:
        grid = np.linspace(0.0, end, POINTS)
    y_SP = np.stack([held(x, y, grid) for x, y in seen])
    mean, std = y_SP.mean(axis=0), np.full(len(grid), np.nan)
    if len(seen) > 1:
        std = y_SP.std(axis=0, ddof=1)
    return MeanCurve(label, grid, mean, mean - std, mean + std, len(seen))


def pareto_front(cost: Sequence[float], value: Sequence[float], lower_is_better: bool = False) -> list[int]:
    """Indices of the points that no other beats (not dearer and better, or cheaper and not worse), by rising cost.

    >>> pareto_front([1.0, 2.0, 3.0], [0.5, 0.4, 0.9])
    [0, 2]
    """
    sign = 1.0 if lower_is_better else -1.0
    front: list[int] = []
    for i in sorted(range(len(cost)), key=lambda i: (cost[i], sign * value[i])):
        if not front or sign * value[i] < sign * value[front[-1]]:
            front.append(i)
    return front


def cdf(values: Array) -> tuple[Array, Array]:
    """Sorted values and the share of all that is no larger, both with a first point at share 0."""
    x = np.sort(values)
    return np.concatenate([x[:1], x]), np.arange(len(x) + 1) / max(len(x), 1)


def kept_by_gain(label: str, traces: Sequence[Trace], groups: int = GROUPS) -> MeanCurve | None:
    """Mean kept fraction of the clients of all seeds, in groups of equal size from the weakest mean gain (dB) up.

    None where every client keeps the same, or nothing is known about them.
    """
    gain = np.concatenate([item.gain_db_C for item in traces]) if traces else np.empty(0)
    kept = np.concatenate([item.kept_C for item in traces]) if traces else np.empty(0)
    if not len(kept) or np.ptp(kept) <= 1e-6:
        return None
    order = np.argsort(gain, kind="stable")
    x, y = binned(gain[order], groups), binned(kept[order], groups)
    nothing = np.full(len(x), np.nan)
    return MeanCurve(label, x, y, nothing, nothing, len(traces))
