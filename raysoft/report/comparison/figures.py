"""Figures of a comparison, each a function of plain data.

Up to six arms keep their look (colour, dash, marker) through all figures, with the names in a legend or beside the
points. More than six have no colours of their own: they are small panels, named points or named rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from raysoft.report import style
from raysoft.report.chart import Chart, line, note
from raysoft.report.comparison.data import MeanCurve, cdf, pareto_front
from raysoft.report.labels import Segment, looks_of, point_labels
from raysoft.report.multiples import Series, small_multiples
from raysoft.report.row_figures import Looks, Sample, named_rows
from raysoft.report.style import new_figure, plain
from raysoft.types import Array

MANY = len(style.COLOURS)  # more arms than this are not told apart by colour
Range = tuple[float, float]  # of what a quantity can be
TREND = 4  # clients of a group from which the means of groups are joined
CROWD = 300  # more clients than this are small and pale
ANY: Range = (-np.inf, np.inf)


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
    y_range: Range = ANY,
) -> Chart | None:
    """Mean over seeds against a cost with a band of one standard deviation; more than MANY lines: a panel each.

    A mark with a bar beyond a line is the mean of the ends of its seeds. Bands and bars are drawn within `y_range`.
    """
    if not lines:
        return None
    if len(lines) > MANY:
        series = [Series(one.label, one.x_P, one.mean_P, one.low_P, one.high_P, one.steps, one.end) for one in lines]
        figure = small_multiples(series, x_label, y_label, log_x=log_x, integer_x=integer_x, y_range=y_range)
        for ax, one in zip(figure.axes, lines, strict=False):
            _note_seeds(ax, one, x_label, y_label)
        return figure
    look = looks_of([one.label for one in lines], looks)
    figure, (ax,) = new_figure(2.3 + style.legend_height([one.label for one in lines]))
    for one in lines:
        mine = look[one.label]
        mean_only = one.steps and one.seeds > 1  # at the cost of one seed: no mark, none is measured there by all
        styled = mine.line_style(style.FEW + 1 if mean_only else len(one.x_P))
        drawn = "steps-post" if one.steps else "default"
        ax.plot(one.x_P, one.mean_P, label=plain(one.label), zorder=3, drawstyle=drawn, **styled)
        note(ax, one.label, one.x_P, one.mean_P, y_low=one.low_P, y_high=one.high_P)
        _note_seeds(ax, one)
        if np.isfinite(one.low_P).any():
            band = np.clip(one.low_P, *y_range), np.clip(one.high_P, *y_range)
            step: Literal["post"] | None = "post" if one.steps else None
            ax.fill_between(one.x_P, *band, step=step, color=mine.colour, alpha=0.14, linewidth=0)
        if (end := one.end) is not None:
            low, high = np.clip([end.y - end.std, end.y + end.std], *y_range)
            ax.plot([end.x, end.x], [low, high], color=mine.colour, linewidth=0.9, zorder=3)
            ax.plot(end.x, end.y, color=mine.colour, marker=mine.marker, markersize=5, linestyle="none", zorder=4)
    ax.set(xlabel=x_label, ylabel=y_label)
    ax.margins(x=0.02, y=0.05)
    if log_x:
        style.log_x(ax)
        style.plain_log_ticks(ax.xaxis)
    else:
        ax.xaxis.set_major_locator(MaxNLocator(5, integer=integer_x))
    if len(lines) > 1:
        style.legend_above(figure, ax)
    return figure


def _note_seeds(ax: Axes, one: MeanCurve, x_name: str | None = None, y_name: str | None = None) -> None:
    """Where a line is the mean of several seeds: where the arm ends, and what was measured of each."""
    keep = partial(note, ax, x_name=x_name, y_name=y_name)
    if (end := one.end) is not None:
        low, high = end.y - end.std, end.y + end.std
        keep(f"{one.label}, mean of the ends", [end.x], [end.y], y_low=[low], y_high=[high])
    for seed in one.measured if one.seeds > 1 else ():
        count = len(seed.x_E)
        arm, number = [one.label] * count, [seed.seed] * count
        name = f"{one.label}, seed {seed.seed}"
        keep(name, seed.x_E, seed.y_E, arm=arm, seed=number, round=seed.round_E.astype(int))


def clouds(
    lines: Sequence[MeanCurve],
    clients: Mapping[str, tuple[Array, Array]],
    x_label: str,
    y_label: str,
    looks: Looks = None,
) -> Chart | None:
    """A dot a client (x and y by label), and the means of their groups as a line where the groups are large.

    Clients have no order in which a line between two of them would say something. More than MANY arms: a panel each.
    """
    if not lines:
        return None
    trend = {one.label: len(clients[one.label][0]) >= TREND * len(one.x_P) for one in lines}
    if len(lines) > MANY:
        series = [
            Series(one.label, one.x_P, one.mean_P, one.low_P, one.high_P, joined=trend[one.label]) for one in lines
        ]
        return small_multiples(series, x_label, y_label)
    labels = [one.label for one in lines]
    look = looks_of(labels, looks)
    figure, (ax,) = new_figure(2.3 + style.legend_height(labels, alone=True))
    for one in lines:
        mine, (x, y) = look[one.label], clients[one.label]
        crowded = len(x) > CROWD
        size, alpha = (1.8, 0.35) if crowded or trend[one.label] else (3.2, 1.0)  # behind the means
        name = plain(one.label)
        ax.plot(
            x,
            y,
            linestyle="none",
            marker=mine.marker,
            markersize=size,
            markeredgewidth=0,
            color=mine.colour,
            alpha=alpha,
            rasterized=crowded,
            label=None if trend[one.label] else name,
        )
        note(ax, f"{one.label}, clients", x, y)
        if trend[one.label]:
            note(ax, one.label, one.x_P, one.mean_P)
            ax.plot(one.x_P, one.mean_P, label=name, zorder=3, **mine.line_style(len(one.x_P)))
    ax.set(xlabel=x_label, ylabel=y_label)
    ax.margins(x=0.03, y=0.06)
    ax.xaxis.set_major_locator(MaxNLocator(5))
    style.legend_above(figure, ax)
    return figure


def scatter(
    points: Sequence[Point],
    x_label: str,
    y_label: str,
    front: bool = True,
    lower_is_better: bool = False,
    looks: Looks = None,
    x_range: Range = ANY,
    y_range: Range = ANY,
) -> Chart | None:
    """Value against cost (logarithmic where the costs are far apart), the Pareto front as a step line.

    Of more than MANY points only the front is dark. Bars are drawn within the ranges.
    """
    if not points:
        return None
    look = looks_of([point.label for point in points], looks)
    figure, (ax,) = new_figure(2.6 + 0.09 * max(len(points) - 6, 0))
    x = np.array([point.x for point in points])
    log_x = x.min() > 0 and x.max() >= 4 * x.min()
    chosen = pareto_front(x.tolist(), [point.y for point in points], lower_is_better) if front else []
    if len(points) > MANY:
        on_front = {points[i].label for i in chosen}
        plain_look, front_look = style.Look(style.GREY, "-", "o"), style.Look(style.BLUE, "-", "D")
        look = {point.label: front_look if point.label in on_front else plain_look for point in points}
    lines: list[Segment] = []  # what names must not cover
    ax.set(xlabel=x_label, ylabel=y_label)
    ax.margins(x=0.12, y=0.14)
    if log_x:
        style.log_x(ax)
    for point in points:
        one = look[point.label]
        x_low, x_high = point.x - (point.x_std or 0.0), point.x + (point.x_std or 0.0)
        y_low, y_high = point.y - (point.y_std or 0.0), point.y + (point.y_std or 0.0)
        left, right = np.clip([x_low, x_high], *x_range).tolist()
        left = max(left, 0.05 * point.x) if log_x else left  # a logarithmic axis has no place left of zero
        down, up = np.clip([y_low, y_high], *y_range).tolist()
        bars = [((left, point.y), (right, point.y)), ((point.x, down), (point.x, up))]
        for (x0, y0), (x1, y1) in bars:
            ax.plot([x0, x1], [y0, y1], color=one.colour, linewidth=0.9, linestyle="-")
        ax.plot(point.x, point.y, color=one.colour, marker=one.marker, markersize=5, linestyle="none", zorder=3)
        note(ax, point.label, [point.x], [point.y], x_low=[x_low], x_high=[x_high], y_low=[y_low], y_high=[y_high])
        lines += bars
    if front and len(points) > 1:
        steps = [(points[i].x, points[i].y) for i in chosen]
        note(ax, "Pareto front", *zip(*steps, strict=True))
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
) -> Chart | None:
    """Cumulative distribution of each arm's values, the budgets as dashed lines; many arms: a named row each."""
    filled = sorted((item for item in samples if len(item.values)), key=lambda item: float(np.median(item.values)))
    if not filled:
        return None
    everything = np.concatenate([np.asarray(item.values, dtype=np.float64) for item in filled])
    log_x = everything.min() > 0 and everything.max() >= 4 * everything.min()
    if len(filled) > MANY:
        return _ranges(filled, x_label, budgets, log_x)
    look = looks_of([item.label for item in samples], looks)
    filled = [item for item in samples if len(item.values)]  # in the order of every other legend
    names = [item.label for item in filled] + (["latency budget"] if budgets else [])
    figure, (ax,) = new_figure(2.3 + style.legend_height(names))
    ax.set(xlabel=x_label, ylabel="Rounds at most this long (%)", ylim=(0, 102))
    for item in filled:
        x, y = cdf(np.asarray(item.values, dtype=np.float64))
        one = look[item.label]
        drawn = {"drawstyle": "steps-post", "color": one.colour, "linestyle": one.line, "label": plain(item.label)}
        line(ax, item.label, x, 100 * y, **drawn)
    _budgets(ax, budgets)
    if log_x:
        style.log_x(ax)
        style.plain_log_ticks(ax.xaxis)
    else:
        ax.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    if len(names) > 1:
        style.legend_above(figure, ax)
    return figure


def _ranges(filled: Sequence[Sample], x_label: str, budgets: Sequence[float], log_x: bool) -> Chart:
    """A row an arm, shortest median on top: 5 to 95 % of the rounds thin, the middle half thick, the median a mark."""
    order = list(filled)[::-1]
    figure, ax = named_rows([item.label for item in order], x_label, extra_in=0.22)
    for place, item in enumerate(order):
        low, first, middle, third, high = np.quantile(item.values, (0.05, 0.25, 0.5, 0.75, 0.95))
        ax.plot([low, high], [place, place], color=style.BLUE, linewidth=0.9)
        ax.plot([first, third], [place, place], color=style.BLUE, linewidth=4.0, solid_capstyle="butt")
        ax.plot(middle, place, marker="|", color=style.ORANGE, markersize=7, markeredgewidth=2.0)
        note(
            ax,
            ["5 % to 95 %", "25 % to 75 %"],
            [middle] * 2,
            [item.label] * 2,
            y_name="arm",
            x_low=[low, first],
            x_high=[high, third],
        )
    _budgets(ax, budgets)
    if log_x:
        style.log_x(ax)
        style.plain_log_ticks(ax.xaxis)
    else:
        ax.xaxis.set_major_locator(MaxNLocator(5))
    if budgets:
        figure.legend(loc="outside upper center", handlelength=2.4)
    return figure


def _budgets(ax: Axes, budgets: Sequence[float]) -> None:
    for number, budget in enumerate(budgets[:4]):
        label = "latency budget" if number == 0 else None
        ax.axvline(budget, color=style.BLACK, linestyle=(0, (4, 2)), linewidth=1.0, zorder=1, label=label)
        note(ax, "latency budget", [budget], [0], y_name="")
