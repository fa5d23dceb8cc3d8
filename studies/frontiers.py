"""The frontier: what is left of the metric when less and less of the dense 32-bit uplink is sent."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from raysoft.comparison.statistics import mean_std
from raysoft.quantities import number
from raysoft.report import study_figures
from raysoft.report.study_figures import FrontierPoint
from studies.loading import Metric, Results, by_seed, metrics_of
from studies.measures import Row, arm_rows
from studies.product import Product, brief, needs_reference, sentences
from studies.sheets import Column, Sheet, cost_columns, metric_columns, numeric, text


def read(results: Results) -> Product:
    """A row a point, the smallest share of each family within the band, and one figure a metric."""
    metrics = metrics_of(results.experiment.task)
    name, reference = results.experiment.name, results.experiment.reference
    rows = arm_rows(results, metrics)
    points = [row for row in rows if row["arm"] != reference]
    for row in points:
        for metric in metrics:
            row[f"{metric.name}_within"] = _within(results, row["arm"], metric)
    columns = [text("Setting", "arm"), numeric("Seeds", "seeds", digits=0)]
    columns += [column for metric in metrics for column in metric_columns(metric, reference, ("smallest", "largest"))]
    columns += cost_columns("share_dense32", "share_dense_same_bits", "kept_fraction", "mean_latency_s", "energy_j")
    columns = [_ranged(column) for column in columns]
    smallest = smallest_shares(points, metrics)
    figures = {}
    for metric in metrics:
        levels = list(by_seed(results.reference, metric).values())
        if levels and points:
            figures[f"{name}-{metric.name}"] = partial(draw, points, mean_std(levels)[0], metric, reference)
    note = sentences(
        "Mean ± standard deviation over seeds; in brackets the range of the paired differences over seeds.",
        needs_reference(by_seed(results.reference, metrics[0]), reference),
    )
    sheets = {name: Sheet(tuple(columns), tuple(rows), note), f"{name}-smallest": smallest_sheet(smallest, metrics)}
    return Product(name, sheets, figures, {"smallest_share_within_band": smallest}, results.remark())


def _ranged(column: Column) -> Column:
    return Column(column.heading.replace("[95 %]", "[range]"), column.show, column.left)


def _within(results: Results, label: str, metric: Metric) -> bool | None:
    """Whether the mean over common seeds is within the band of the reference's mean over the same seeds."""
    mine, base = by_seed(results.runs[label], metric), by_seed(results.reference, metric)
    seeds = sorted(set(mine) & set(base))
    if not seeds:
        return None
    a, b = (sum(one[seed] for seed in seeds) / len(seeds) for one in (mine, base))
    return metric.within(a, b)


def smallest_shares(points: Sequence[Row], metrics: Sequence[Metric]) -> list[Row]:
    """By family: the smallest share of the dense 32-bit uplink that stays within each metric's band, None for none."""
    out: list[Row] = []
    for family in dict.fromkeys(row["family"] for row in points):
        row: Row = {"family": family, "points": sum(one["family"] == family for one in points)}
        for metric in metrics:
            good = [
                one
                for one in points
                if one["family"] == family and one[f"{metric.name}_within"] and one["share_dense32"] is not None
            ]
            best = min(good, key=lambda one: one["share_dense32"], default=None)
            row[f"{metric.name}_share"] = None if best is None else best["share_dense32"]
            row[f"{metric.name}_arm"] = None if best is None else best["arm"]
            row[f"{metric.name}_difference"] = None if best is None else best[f"{metric.name}_difference"]
        out.append(row)
    return out


def smallest_sheet(rows: Sequence[Row], metrics: Sequence[Metric]) -> Sheet:
    """The smallest shares as a table."""
    columns = [text("Family", "family")]
    for metric in metrics:
        band = f"{100 * metric.band:g} %" if metric.relative else f"{metric.band:g} point"
        columns.append(_or_none(f"{metric.label}: smallest share within {band}, %", metric))
    return Sheet(tuple(columns), tuple(rows), "Share of the dense 32-bit uplink, of the points that were run.")


def _or_none(heading: str, metric: Metric) -> Column:
    def show(row: Row) -> str:
        share, apart = row[f"{metric.name}_share"], row[f"{metric.name}_difference"]
        if share is None:
            return "none"
        return f"{number(share, 100.0, 1)} ({number(apart, metric.factor, metric.digits, signed=True)})"

    return Column(heading, show)


def draw(points: Sequence[Row], level: float, metric: Metric, reference: str) -> Any:
    """The figure of one metric: mean and range over seeds against the share."""
    shown = [
        FrontierPoint(
            brief(row["family"]),
            100 * row["share_dense32"],
            *(metric.factor * row[f"{metric.name}{end}"] for end in ("", "_min", "_max")),
        )
        for row in points
        if row["share_dense32"] and row[metric.name] is not None
    ]
    band = round(abs(metric.edge(level) - level) * metric.factor, 3)
    label = f"{metric.label} ({metric.unit})" if metric.unit else metric.label
    return study_figures.frontier(
        shown, metric.factor * level, label, band=band, reference=reference, lower_is_better=metric.lower_is_better
    )
