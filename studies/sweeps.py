"""The latency-budget sweep: allocators under the same budgets, read at the same simulated time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from raysoft.comparison.statistics import mean_std
from raysoft.report import row_figures, study_figures
from raysoft.report.row_figures import DifferenceRow
from raysoft.report.study_figures import BudgetPoint
from studies.loading import Metric, Results, by_seed, clock, metrics_of
from studies.measures import Row, add_pooled, apart, cost_row, difference_row, spread_row
from studies.product import Product, one_look, sentences
from studies.sheets import Sheet, cost_columns, interval, numeric, plus_minus, text

OWN, ALL = "tsfa", "all (mean)"
Learned = Mapping[str, Mapping[int, float]]  # by label and seed


def read(results: Results) -> Product:
    """A row an allocator and budget, TSFA against the best of the others at each budget, figures."""
    experiment = results.experiment
    name, task, metrics = experiment.name, experiment.task, metrics_of(experiment.task)
    rows: list[Row] = [_row(results, one.label, one.family, one.point) for one in results.settings]
    figures, gains = {}, {}
    for metric in metrics:
        values = {one.label: by_seed(results.runs[one.label], metric, task.time_s) for one in results.settings}
        for row in rows:
            row.update(spread_row(metric.name, list(values[row["arm"]].values())))
        mine = own_against_best(rows, values, metric)
        gains[f"{name}-gain-{metric.name}"] = gain_sheet(mine, metric)
        if any(row[metric.name] is not None for row in rows):
            figures[f"{name}-{metric.name}"] = partial(draw, rows, metric)
        if mine:
            figures[f"{name}-{metric.name}-gain"] = partial(draw_gain, mine, metric)
    columns = [text("Allocator", "family"), numeric("Budget s", "point", digits=1), numeric("Seeds", "seeds", digits=0)]
    columns += [
        plus_minus(
            f"{metric.label}{' ' + metric.unit if metric.unit else ''} at {task.time_s:g} s",
            metric.name,
            metric.factor,
            metric.digits,
        )
        for metric in metrics
    ]
    columns += [numeric("Rounds in that time", "rounds_in_time", digits=1), numeric("Silent %", "silent", 100.0, 1)]
    columns += cost_columns("kept_fraction", "latency_over_budget", "uplink_mb", "share_dense32", "energy_j")
    note = sentences(
        f"Read at {task.time_s:g} simulated seconds: the mean of the last five evaluations up to there.",
        "Silent: share of the participants that the outage rule kept from sending. Costs are those of the whole run.",
        _early(rows),
    )
    ordered = sorted(rows, key=lambda row: (row["point"], row["family"] != OWN, row["family"]))
    sheets = {name: Sheet(tuple(columns), tuple(ordered), note), **gains}
    return Product(name, sheets, figures, {"time_s": task.time_s}, results.remark())


def _row(results: Results, label: str, family: str, budget_s: float) -> Row:
    runs = list(results.runs[label].values())
    inside = [int((clock(run) <= results.experiment.task.time_s * (1 + 1e-9)).sum()) - 1 for run in runs]
    silent, asked = (sum(float(np.nansum(f(run))) for run in runs) for f in (_dropped, _asked))
    return {
        "arm": label,
        "family": family,
        "point": budget_s,
        "seeds": len(runs),
        **cost_row(results.runs[label]),
        # The budget stands in the arm, also where the allocator (minmax, equal) knows none.
        "latency_over_budget": _over(cost_row(results.runs[label])["mean_latency_s"], budget_s),
        "rounds_in_time": mean_std(inside)[0],
        "silent": silent / asked if asked else None,
        "ends_s": mean_std([float(clock(run)[-1]) for run in runs])[0],
        "reaches_time": all(float(clock(run)[-1]) >= results.experiment.task.time_s * (1 - 1e-9) for run in runs),
    }


def _early(rows: Sequence[Row]) -> str:
    """Names the arms whose rounds ended before the time of reading."""
    early = [f"{row['arm']} ({row['ends_s']:.1f} s)" for row in rows if not row["reaches_time"]]
    return f"Read at their end, because some seed ended earlier (mean end): {', '.join(early)}." if early else ""


def _over(latency_s: float | None, budget_s: float) -> float | None:
    return None if latency_s is None else latency_s / budget_s


def _dropped(run: Any) -> Any:
    return run.column("dropped")[run.column("round") >= 1]


def _asked(run: Any) -> Any:
    return _dropped(run) + run.column("participants")[run.column("round") >= 1]


def own_against_best(rows: Sequence[Row], values: Learned, metric: Metric) -> list[Row]:
    """TSFA minus the best other allocator (by mean) at each budget, and the mean over the budgets, paired by seed.

    The best other is picked on the same runs, which favours it.
    """
    out: list[Row] = []
    apart_by_budget = []
    for budget_s in sorted({row["point"] for row in rows}):
        here = {row["family"]: row for row in rows if row["point"] == budget_s and row[metric.name] is not None}
        others = [row for family, row in here.items() if family != OWN]
        if OWN not in here or not others:
            continue
        best = (min if metric.lower_is_better else max)(others, key=lambda row: row[metric.name])
        a, b = values[here[OWN]["arm"]], values[best["arm"]]
        out.append(
            {"metric": metric.name, "budget": f"{budget_s:g} s", "best_other": best["family"]}
            | difference_row(metric.name, a, b)
        )
        apart_by_budget.append(apart(a, b))
    add_pooled(out, metric.name, apart_by_budget)
    common = set.intersection(*(set(one) for one in apart_by_budget)) if len(apart_by_budget) > 1 else set()
    if common:
        means = {seed: float(np.mean([one[seed] for one in apart_by_budget])) for seed in common}
        row: Row = {"metric": metric.name, "budget": ALL, "best_other": "the best at each"}
        out.append(row | difference_row(metric.name, means, dict.fromkeys(means, 0.0)))
    return out


def gain_sheet(rows: Sequence[Row], metric: Metric) -> Sheet:
    """TSFA against the best other allocator in one metric."""
    key = metric.name
    heading = f"{metric.label}, points" if metric.unit == "%" else metric.label
    ends = (f"{key}_low", f"{key}_high"), (f"{key}_pooled_low", f"{key}_pooled_high")
    columns = (
        text("Budget", "budget"),
        text("Best other", "best_other"),
        interval(f"{heading} [95 %]", f"{key}_difference", *ends[0], metric.factor, metric.digits),
        interval(f"{heading} [pooled 95 %]", f"{key}_difference", *ends[1], metric.factor, metric.digits),
        numeric("Pairs", f"{key}_pairs", digits=0),
    )
    note = (
        "TSFA minus the best other allocator of each budget (by its mean on the same runs), paired by seed. "
        "Pooled: the variance of the paired differences is taken to be the same at every budget."
    )
    return Sheet(columns, tuple(rows), note)


def draw(rows: Sequence[Row], metric: Metric) -> Any:
    """Mean and range over seeds against the budget, one line an allocator."""
    points = [
        BudgetPoint(
            row["family"], row["point"], *(metric.factor * row[f"{metric.name}{end}"] for end in ("", "_min", "_max"))
        )
        for row in rows
        if row[metric.name] is not None
    ]
    return study_figures.budget_sweep(points, f"{metric.label} ({metric.unit})" if metric.unit else metric.label)


def draw_gain(rows: Sequence[Row], metric: Metric) -> Any:
    """TSFA minus the best other at each budget with pooled (or own) intervals."""
    key, factor = metric.name, metric.factor
    items = []
    for row in (row for row in rows if row["budget"] != ALL):  # its interval would be the widest by far
        ends = [row.get(f"{key}_pooled_{end}", row[f"{key}_{end}"]) for end in ("low", "high")]
        low, high = (None if end is None else factor * end for end in ends)
        sure = None if low is None or high is None else not low <= 0.0 <= high
        items.append(DifferenceRow(row["budget"], factor * row[f"{key}_difference"], low, high, sure))
    unit = "points" if metric.unit == "%" else metric.label.lower()
    return row_figures.forest(
        items, f"TSFA − best other allocator ({unit})", None, "best other", metric.lower_is_better, one_look(items)
    )
