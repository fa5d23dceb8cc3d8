"""The smaller experiments: options beyond the paper, the other optimiser, a trained head, the trade-off over V."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from raysoft.comparison.statistics import mean_std
from raysoft.report import row_figures, study_figures
from raysoft.report.row_figures import DifferenceRow
from raysoft.rundir.reading import Run
from studies.loading import Metric, Results, by_seed, metrics_of
from studies.measures import Row, arm_rows, cost_row, spread_row
from studies.product import Product, brief, needs_reference, one_look, sentences
from studies.sheets import Sheet, cost_columns, metric_columns, numeric, plus_minus, text


def read_options(results: Results) -> Product:
    """Each option against plain SOFT at about the same bits, best first, with pooled intervals; a figure a metric."""
    return _against_reference(results, pooled=True)


def read_arms(results: Results) -> Product:
    """A few arms against their reference."""
    return _against_reference(results, pooled=False)


def _against_reference(results: Results, pooled: bool) -> Product:
    name, reference = results.experiment.name, results.experiment.reference
    metrics = metrics_of(results.experiment.task)
    rows = arm_rows(results, metrics)
    first = metrics[-1] if pooled else None
    if first is not None:
        rows.sort(
            key=lambda row: (row[first.name] is None, (1 if first.lower_is_better else -1) * (row[first.name] or 0))
        )
    ends = ("pooled_low", "pooled_high") if pooled else ("low", "high")
    columns = [text("Arm", "arm"), numeric("Seeds", "seeds", digits=0)]
    columns += [column for metric in metrics for column in metric_columns(metric, reference, ends)]
    columns += cost_columns("share_dense32", "kept_fraction", "uplink_mb", "mean_latency_s", "latency_over_budget")
    columns += cost_columns("energy_j", "worst10_client_accuracy")
    figures = {}
    for metric in metrics:
        others = [row for row in rows if row["arm"] != reference and row[f"{metric.name}_difference"] is not None]
        if pooled and others:
            figures[f"{name}-{metric.name}"] = partial(draw_differences, others, metric, reference)
    freedom = rows[0][f"{metrics[0].name}_pooled_freedom"] if rows else 0
    how = "t intervals with the variance of the paired differences pooled over the arms"
    note = sentences(
        "Mean ± standard deviation over seeds; differences are paired by seed,",
        f"95 % {how} ({freedom} degrees of freedom)." if pooled else "with 95 % t intervals.",
        needs_reference(by_seed(results.reference, metrics[0]), reference),
    )
    return Product(name, {name: Sheet(tuple(columns), tuple(rows), note)}, figures, {}, results.remark())


def draw_differences(rows: Sequence[Row], metric: Metric, reference: str) -> Any:
    """Paired differences to the reference with pooled intervals; filled where the interval does not hold 0."""
    items = []
    for row in rows:
        mean, low, high = (row[f"{metric.name}_{key}"] for key in ("difference", "pooled_low", "pooled_high"))
        sure = None if low is None or high is None else not low <= 0.0 <= high
        low, high = (None if end is None else metric.factor * end for end in (low, high))
        items.append(DifferenceRow(brief(row["arm"]), metric.factor * mean, low, high, sure))
    unit = "points" if metric.unit == "%" else metric.label.lower()
    return row_figures.forest(items, f"Difference ({unit})", None, reference, metric.lower_is_better, one_look(items))


def read_tradeoff(results: Results) -> Product:
    """Penalty, queue and latency over V, in the second half of the rounds."""
    name, metrics = results.experiment.name, metrics_of(results.experiment.task)
    rows: list[Row] = []
    for one in results.settings:
        runs = results.runs[one.label]
        row: Row = {"arm": one.label, "v": one.point, "seeds": len(runs)}
        for metric in metrics:
            row |= spread_row(metric.name, list(by_seed(runs, metric).values()))
        for key in ("penalty", "queue_s", "kept"):
            values = [value for run in runs.values() if (value := _late(run, key)) is not None]
            mean, std = mean_std(values)
            row |= {key: mean, f"{key}_std": std}
        rows.append(row | cost_row(runs))
    columns = [numeric("V", "v", digits=1), numeric("Seeds", "seeds", digits=0)]
    columns += [plus_minus(f"{m.label} {m.unit}".strip(), m.name, m.factor, m.digits) for m in metrics]
    columns += [plus_minus("Penalty", "penalty", digits=4), plus_minus("Queue s", "queue_s", digits=3)]
    columns += [numeric("Kept in that half %", "kept", 100.0, 1)]
    columns += cost_columns("mean_latency_s", "latency_over_budget", "share_dense32", "energy_j")
    note = (
        "Penalty (Σ p ψ, the weighted relative error that TSFA pays) and queue: means over the second half of the "
        "rounds, ± standard deviation over seeds. Latency: mean over all rounds."
    )
    known = [row for row in rows if row["penalty"] is not None and row["queue_s"] is not None]
    figures = {name: partial(draw_tradeoff, known)} if len(known) > 1 else {}
    return Product(name, {name: Sheet(tuple(columns), tuple(rows), note)}, figures, {}, results.remark())


_RECORD = {"penalty": "metrics.penalty", "queue_s": "queue_s", "kept": "kept_fraction_mean"}


def _late(run: Run, key: str) -> float | None:
    """Mean over the second half of the rounds; None where nothing is recorded."""
    values = run.column(_RECORD[key])[run.column("round") >= 1]
    values = values[len(values) // 2 :]
    values = values[np.isfinite(values)]
    return float(values.mean()) if len(values) else None


def draw_tradeoff(rows: Sequence[Row]) -> Any:
    """Penalty above, queue below, over V."""

    def column(key: str) -> Any:
        return np.array([row[key] for row in rows], dtype=np.float64)

    several = all(row["penalty_std"] is not None for row in rows)
    return study_figures.tradeoff(
        column("v"),
        column("penalty"),
        column("queue_s"),
        penalty_std_V=column("penalty_std") if several else None,
        queue_std_V=column("queue_s_std") if several else None,
    )
