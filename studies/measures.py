"""Numbers of an arm over its seeds: spread, paired differences with intervals, closing figures.

Few seeds make wide t intervals (two seeds: 12.7 standard errors). Where an experiment has many arms with few seeds, the
variance of the paired differences is pooled over the arms: all are taken to vary alike from seed to seed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from raysoft.comparison.readings import closing_values
from raysoft.comparison.statistics import mean_std, paired_difference
from raysoft.rundir.reading import Run
from studies.loading import Metric, Results, by_seed

Row = dict[str, Any]  # one line of a table: text and unrounded numbers by key
COSTS = (
    "uplink_mb",
    "share_dense32",
    "share_dense_same_bits",
    "kept_fraction",
    "mean_latency_s",
    "latency_over_budget",
    "simulated_s",
    "energy_j",
)


def spread_row(name: str, values: Sequence[float]) -> Row:
    """Mean, standard deviation and range under `name`, `name_std`, `name_min`, `name_max`."""
    mean, std = mean_std(values)
    low, high = (min(values), max(values)) if len(values) else (None, None)
    return {name: mean, f"{name}_std": std, f"{name}_min": low, f"{name}_max": high}


def difference_row(name: str, a: Mapping[int, float], b: Mapping[int, float]) -> Row:
    """a - b over common seeds: mean, 95 % t interval, range, number of seeds, under `name_difference...`."""
    seeds = sorted(set(a) & set(b))
    keys = ("difference", "low", "high", "smallest", "largest", "pairs")
    if not seeds:
        return {f"{name}_{key}": 0 if key == "pairs" else None for key in keys}
    apart = [a[seed] - b[seed] for seed in seeds]
    found = paired_difference([a[seed] for seed in seeds], [b[seed] for seed in seeds])
    values = (found.difference, found.low, found.high, min(apart), max(apart), found.seeds)
    return {f"{name}_{key}": value for key, value in zip(keys, values, strict=True)}


def pooled_half_widths(
    differences: Sequence[Sequence[float]], confidence: float = 0.95
) -> tuple[list[float | None], int]:
    """Half widths of t intervals of each mean, the variance pooled over all lists; and its degrees of freedom.

    >>> pooled_half_widths([[1.0], [2.0]])  # single values tell no variance
    ([None, None], 0)
    """
    from scipy.stats import t

    freedom = sum(len(one) - 1 for one in differences if len(one) > 1)
    if not freedom:
        return [None] * len(differences), 0
    squares = sum(float(np.sum((np.asarray(one) - np.mean(one)) ** 2)) for one in differences if len(one) > 1)
    factor = float(t.ppf(0.5 + confidence / 2, freedom)) * math.sqrt(squares / freedom)
    return [factor / math.sqrt(len(one)) if len(one) else None for one in differences], freedom


def add_pooled(rows: Sequence[Row], name: str, differences: Sequence[Mapping[int, float]]) -> int:
    """Put `name_pooled_low` and `_high` into rows that have `name_difference`; the degrees of freedom."""
    halves, freedom = pooled_half_widths([list(one.values()) for one in differences])
    for row, half in zip(rows, halves, strict=True):
        mean = row.get(f"{name}_difference")
        known = mean is not None and half is not None
        row[f"{name}_pooled_low"] = mean - half if known else None
        row[f"{name}_pooled_high"] = mean + half if known else None
    return freedom


def apart(a: Mapping[int, float], b: Mapping[int, float]) -> dict[int, float]:
    """a - b by common seed."""
    return {seed: a[seed] - b[seed] for seed in sorted(set(a) & set(b))}


def cost_row(runs: Mapping[int, Run]) -> Row:
    """Means over seeds of what the runs cost, and the worst tenth of the clients."""
    values = [closing_values(run) for run in runs.values()]
    keys = (*COSTS, "worst10_client_accuracy")
    return {key: mean_std([one[key] for one in values if one[key] is not None])[0] for key in keys}


def arm_rows(results: Results, metrics: Sequence[Metric]) -> list[Row]:
    """One row an arm that has runs: metrics, paired differences to the reference (own and pooled intervals), costs."""
    settings = results.settings
    rows: list[Row] = [
        {"arm": one.label, "family": one.family, "point": one.point, "seeds": len(results.runs[one.label])}
        for one in settings
    ]
    for metric in metrics:
        base = by_seed(results.reference, metric)
        mine = [by_seed(results.runs[one.label], metric) for one in settings]
        for row, values in zip(rows, mine, strict=True):
            row.update(spread_row(metric.name, list(values.values())), **difference_row(metric.name, values, base))
        others = [i for i, one in enumerate(settings) if one.label != results.experiment.reference]
        freedom = add_pooled([rows[i] for i in others], metric.name, [apart(mine[i], base) for i in others])
        for row in rows:
            row[f"{metric.name}_pooled_freedom"] = freedom
    for row, one in zip(rows, settings, strict=True):
        row.update(cost_row(results.runs[one.label]))
    return rows
