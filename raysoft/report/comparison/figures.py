"""Figures of a comparison, each a function of plain data: one panel, 3.5 inches wide, readable in a 7 cm column.

Every arm keeps its look (colour, dash, marker) through all figures: pass the same `looks`. Names stand beside lines and
points; where that is impossible, a legend stands outside the panel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from raysoft.report import style
from raysoft.report.comparison.data import MeanCurve, cdf, pareto_front
from raysoft.report.labels import Segment, looks_of, margin_labels, point_labels, short
from raysoft.report.row_figures import Looks, Sample
from raysoft.report.style import COLUMN_IN, marks_every, new_figure

BANDS = 6  # more curves than this have their spread drawn at the end only


@dataclass(frozen=True)
class Point:
    """An arm as cost and value, each with its standard deviation over seeds (None: one seed)."""

    label: str
    x: float
    y: float
    x_std: float | None = None
    y_std: float | None = None


def curves(
    lines: Sequence[MeanCurve],
    x_label: str,
    y_label: str,
    looks: Looks = None,
    log_x: bool = False,
    integer_x: bool = False,
) -> Figure | None:
    """Mean over seeds against a cost with a band of one standard deviation, names at the right end."""
    if not lines:
        return None
    look = looks_of([line.label for line in lines], looks)
    figure, (ax,) = new_figure(max(2.5, 0.65 + 0.155 * len(lines)), width_in=COLUMN_IN)
    for number, line in enumerate(lines):
        one = look[line.label]
        shown = len(line.x_P) <= 25  # few points are marked all
        ax.plot(
            line.x_P,
            line.mean_P,
            color=one.colour,
            linestyle=one.line,
            marker=one.marker,
            markersize=3.0,
            markevery=1 if shown else marks_every(len(line.x_P), number),
            zorder=3,
        )
        if not np.isfinite(line.low_P).any():
            continue
        if len(lines) <= BANDS:
            ax.fill_between(line.x_P, line.low_P, line.high_P, color=one.colour, alpha=0.16, linewidth=0)
        else:
            half = (line.high_P[-1] - line.low_P[-1]) / 2
            ax.errorbar(line.x_P[-1], line.mean_P[-1], half, color=one.colour, linewidth=0.8, zorder=4)
    ax.set(xlabel=x_label, ylabel=y_label)
    ax.margins(x=0.02, y=0.05)
    if log_x:
        ax.set_xscale("log")
        style.plain_log_ticks(ax.xaxis)
    else:
        ax.xaxis.set_major_locator(MaxNLocator(5, integer=integer_x))
    if len(lines) > 1:
        margin_labels(ax, [(line.label, line.x_P[-1], line.mean_P[-1], look[line.label]) for line in lines])
    return figure


def scatter(
    points: Sequence[Point],
    x_label: str,
    y_label: str,
    front: bool = True,
    lower_is_better: bool = False,
    looks: Looks = None,
) -> Figure | None:
    """Value against cost (logarithmic where the costs are far apart), the Pareto front as a step line."""
    if not points:
        return None
    look = looks_of([point.label for point in points], looks)
    figure, (ax,) = new_figure(2.6 if len(points) <= 8 else 3.1, width_in=COLUMN_IN)
    x = np.array([point.x for point in points])
    log_x = x.min() > 0 and x.max() >= 4 * x.min()
    lines: list[Segment] = []  # what names must not cover
    ax.set(xlabel=x_label, ylabel=y_label)
    ax.margins(x=0.12, y=0.14)
    if log_x:
        ax.set_xscale("log")
    for point in points:
        one = look[point.label]
        x_low, x_high = point.x - (point.x_std or 0.0), point.x + (point.x_std or 0.0)
        x_low = max(x_low, 0.05 * point.x) if log_x else x_low  # a logarithmic axis has no place left of zero
        y_low, y_high = point.y - (point.y_std or 0.0), point.y + (point.y_std or 0.0)
        bars = [((x_low, point.y), (x_high, point.y)), ((point.x, y_low), (point.x, y_high))]
        for (x0, y0), (x1, y1) in bars:
            ax.plot([x0, x1], [y0, y1], color=one.colour, linewidth=0.9, linestyle="-")
        ax.plot(point.x, point.y, color=one.colour, marker=one.marker, markersize=5, linestyle="none", zorder=3)
        lines += bars
    if front and len(points) > 1:
        chosen = pareto_front(x.tolist(), [point.y for point in points], lower_is_better)
        steps = [(points[i].x, points[i].y) for i in chosen]
        ax.plot(*zip(*steps, strict=True), color=style.GREY, linewidth=0.9, drawstyle="steps-post", zorder=1)
        for (x0, y0), (x1, y1) in pairwise(steps):
            lines += [((x0, y0), (x1, y0)), ((x1, y0), (x1, y1))]
    if log_x:
        style.plain_log_ticks(ax.xaxis)
    else:
        ax.xaxis.set_major_locator(MaxNLocator(5))
    point_labels(ax, [(point.label, point.x, point.y, look[point.label]) for point in points], lines)
    return figure


def distribution(
    samples: Sequence[Sample], x_label: str, budgets: Sequence[float], looks: Looks = None
) -> Figure | None:
    """Cumulative distribution of each arm's values, the budgets as dashed lines; names by rising median."""
    filled = [item for item in samples if len(item.values)]
    if not filled:
        return None
    look = looks_of([item.label for item in samples], looks)
    figure, (ax,) = new_figure(max(2.5, 0.9 + 0.16 * len(filled)), width_in=COLUMN_IN)
    for budget in budgets[:4]:
        ax.axvline(budget, color=style.BLACK, linestyle=(0, (4, 2)), linewidth=1.0, zorder=1)
    handles = []
    for item in sorted(filled, key=lambda item: float(np.median(item.values))):
        x, y = cdf(np.asarray(item.values, dtype=np.float64))
        one = look[item.label]
        handles += ax.plot(
            x, 100 * y, drawstyle="steps-post", color=one.colour, linestyle=one.line, label=short(item.label)
        )
    if budgets:
        handles += ax.plot([], [], color=style.BLACK, linestyle=(0, (4, 2)), linewidth=1.0, label="latency budget")
    everything = np.concatenate([np.asarray(item.values, dtype=np.float64) for item in filled])
    ax.set(xlabel=x_label, ylabel="Rounds at most this long (%)", ylim=(0, 102))
    if everything.min() > 0 and everything.max() >= 4 * everything.min():
        ax.set_xscale("log")
        style.plain_log_ticks(ax.xaxis)
    else:
        ax.xaxis.set_major_locator(MaxNLocator(3, steps=[1, 2, 5, 10]))
    if len(handles) > 1:
        figure.legend(handles=handles, loc="outside right upper", handlelength=2.0, borderaxespad=0.2)
    return figure
