"""Figures of a comparison, each a function of plain data: one panel, 3.5 inches wide, readable in a 7 cm column.

Every arm keeps its look (colour, dash, marker) through all figures: pass the same `looks`. Names stand beside lines and
points; where that is impossible, a legend stands outside the panel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from raysoft.report import style
from raysoft.report.comparison_data import Curve, cdf, pareto_front
from raysoft.report.labels import looks_of, margin_labels, point_labels, short
from raysoft.report.style import COLUMN_IN, Look, marks_every, new_figure
from raysoft.types import Array

BANDS = 6  # more curves than this have their spread drawn at the end only
TARGET_LOOKS = (("o", style.SKY), ("s", style.BLUE), ("D", style.VERMILLION), ("^", style.GREEN), ("v", style.PURPLE))
Looks = Mapping[str, Look] | None


@dataclass(frozen=True)
class Difference:
    """A paired difference to the reference and its interval; `good`: non-inferior, None where not tested."""

    label: str
    value: float
    low: float | None = None
    high: float | None = None
    good: bool | None = None


@dataclass(frozen=True)
class Point:
    """An arm as cost and value, each with its standard deviation over seeds (None: one seed)."""

    label: str
    x: float
    y: float
    x_std: float | None = None
    y_std: float | None = None


@dataclass(frozen=True)
class Sample:
    """The values of an arm, one a seed (or one a round, for a distribution)."""

    label: str
    values: Sequence[float] | Array


@dataclass(frozen=True)
class Reach:
    """What an arm needed to reach each target, by the target's name; None where it never did."""

    label: str
    needed: Mapping[str, float | None] = field(default_factory=dict)


def curves(
    lines: Sequence[Curve],
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
            line.x_P, line.mean_P, color=one.colour, linestyle=one.line, marker=one.marker, markersize=3.0,
            markevery=1 if shown else marks_every(len(line.x_P), number), zorder=3,
        )  # fmt: skip
        if not np.isfinite(line.low_P).any():
            continue
        if len(lines) <= BANDS:
            ax.fill_between(line.x_P, line.low_P, line.high_P, color=one.colour, alpha=0.16, linewidth=0)
        else:
            half = (line.high_P[-1] - line.low_P[-1]) / 2
            ax.errorbar(line.x_P[-1], line.mean_P[-1], half, color=one.colour, capsize=2, linewidth=1, zorder=4)
    ax.set(xlabel=x_label, ylabel=y_label)
    ax.margins(x=0.02, y=0.05)
    if log_x:
        ax.set_xscale("log")
        style.plain_log_ticks(ax.xaxis)
    else:
        ax.xaxis.set_major_locator(MaxNLocator(5, integer=integer_x))
    if len(lines) > 1:
        ax.get_ylim()  # settles the limits before places are measured
        margin_labels(ax, [(line.label, line.x_P[-1], line.mean_P[-1], look[line.label]) for line in lines])
    return figure


def forest(
    differences: Sequence[Difference], x_label: str, margin: float | None, reference: str,
    lower_is_better: bool = False, looks: Looks = None,
) -> Figure | None:  # fmt: skip
    """Paired differences to the reference with their intervals, best first, the margin of non-inferiority drawn."""
    if not differences:
        return None
    look = looks_of([item.label for item in differences], looks)
    best_last = sorted(differences, key=lambda item: -item.value if lower_is_better else item.value)
    figure, ax = _rows([item.label for item in best_last], x_label, extra_in=0.22)
    for place, item in enumerate(best_last):
        one = look[item.label]
        if item.low is not None and item.high is not None:
            ax.plot([item.low, item.high], [place, place], color=one.colour, linewidth=1.6, solid_capstyle="butt")
        ax.plot(
            item.value, place, marker="o", markersize=5, color=one.colour,
            markerfacecolor=one.colour if item.good else "white",
        )  # fmt: skip
    lines = [ax.axvline(0.0, color=style.GREY, linewidth=1.0, zorder=1, label=f"= {short(reference)}")]
    if margin:
        at = margin if lower_is_better else -margin
        lines.append(ax.axvline(at, color=style.BLACK, linestyle=(0, (4, 2)), linewidth=1.0, zorder=1, label="margin"))
    ax.margins(x=0.08)
    ax.xaxis.set_major_locator(MaxNLocator(5))
    figure.legend(handles=lines, loc="outside upper center", ncols=2, handlelength=2.4)
    return figure


def scatter(
    points: Sequence[Point], x_label: str, y_label: str, front: bool = True, lower_is_better: bool = False,
    looks: Looks = None, diagonal: bool = False,
) -> Figure | None:  # fmt: skip
    """Value against cost (logarithmic where the costs are far apart), the Pareto front as a step line."""
    if not points:
        return None
    look = looks_of([point.label for point in points], looks)
    figure, (ax,) = new_figure(2.6 if len(points) <= 8 else 3.1, width_in=COLUMN_IN)
    x = np.array([point.x for point in points])
    log_x = not diagonal and x.min() > 0 and x.max() >= 4 * x.min()
    steps: list[tuple[float, float]] = []
    ax.set(xlabel=x_label, ylabel=y_label)
    ax.margins(x=0.12, y=0.14)
    if log_x:
        ax.set_xscale("log")
    for point in points:
        one = look[point.label]
        spare = (  # a logarithmic axis has no place left of zero
            None
            if point.x_std is None
            else [[min(point.x_std, 0.999 * point.x) if log_x else point.x_std], [point.x_std]]
        )
        ax.errorbar(
            point.x, point.y, yerr=point.y_std, xerr=spare, color=one.colour, marker=one.marker, markersize=5,
            linewidth=0.9, linestyle="none",
        )  # fmt: skip
    if front and len(points) > 1:
        chosen = pareto_front(x.tolist(), [point.y for point in points], lower_is_better)
        steps = [(points[i].x, points[i].y) for i in chosen]
        ax.plot(*zip(*steps, strict=True), color=style.GREY, linewidth=0.9, drawstyle="steps-post", zorder=1)
    if diagonal:
        low, high = (f(f(ax.get_xlim()), f(ax.get_ylim())) for f in (min, max))
        ax.plot([low, high], [low, high], color=style.GREY, linewidth=0.8, linestyle=(0, (1, 2)), scalex=False,
                scaley=False)  # fmt: skip
    if log_x:
        style.plain_log_ticks(ax.xaxis)
    else:
        ax.xaxis.set_major_locator(MaxNLocator(5))
    point_labels(ax, [(point.label, point.x, point.y, look[point.label]) for point in points], _along(ax, steps))
    return figure


def _along(ax: Axes, steps: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Places on a step line that labels should leave free."""
    out: list[tuple[float, float]] = []
    log = ax.get_xscale() == "log"
    for (x0, y0), (x1, y1) in pairwise(steps):
        out += [(float(x), y0) for x in (np.geomspace(x0, x1, 12) if log else np.linspace(x0, x1, 12))]
        out += [(x1, float(y)) for y in np.linspace(y0, y1, 8)]
    return out


def time_to(rows: Sequence[Reach], x_label: str, looks: Looks = None) -> Figure | None:
    """What each arm needed to reach the targets; an arm that never reached one has no mark for it."""
    targets = list(dict.fromkeys(name for row in rows for name in row.needed))
    values = np.array([value for row in rows for value in row.needed.values() if value is not None])
    if not len(values):
        return None
    look = looks_of([row.label for row in rows], looks)
    last = targets[-1]
    order = sorted(rows, key=lambda row: _or_never(row, last, targets), reverse=True)
    figure, ax = _rows([row.label for row in order], x_label, extra_in=0.22)
    marks = {name: TARGET_LOOKS[number % len(TARGET_LOOKS)] for number, name in enumerate(targets)}
    for place, row in enumerate(order):
        reached = [value for value in row.needed.values() if value is not None]
        if reached:
            ax.plot([min(reached), max(reached)], [place, place], color=style.GREY, linewidth=0.8, zorder=1)
    for name, (marker, colour) in marks.items():
        seen = [(value, place) for place, row in enumerate(order) if (value := row.needed.get(name)) is not None]
        x, y = zip(*seen, strict=True) if seen else ((), ())
        ax.plot(x, y, linestyle="none", marker=marker, color=colour, markersize=5, label=name)
    for tick, row in zip(ax.get_yticklabels(), order, strict=True):
        tick.set_color(look[row.label].colour)
    if values.min() > 0 and values.max() >= 4 * values.min():
        ax.set_xscale("log")
        ax.margins(x=0.08)
        style.plain_log_ticks(ax.xaxis)
    else:
        ax.set_xlim(left=0)
    figure.legend(loc="outside upper center", ncols=len(targets), handlelength=1.0, columnspacing=1.2)
    return figure


def _or_never(row: Reach, last: str, targets: Sequence[str]) -> tuple[float, ...]:
    """Order of arms: by what the hardest target took, then by the easier ones; never comes last."""
    names = [last, *reversed(targets[:-1])]
    return tuple(np.inf if row.needed.get(name) is None else float(row.needed[name] or 0.0) for name in names)


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
        )  # fmt: skip
    if budgets:
        handles += ax.plot([], [], color=style.BLACK, linestyle=(0, (4, 2)), linewidth=1.0, label="latency budget")
    everything = np.concatenate([np.asarray(item.values, dtype=np.float64) for item in filled])
    ax.set(xlabel=x_label, ylabel="Rounds at most this long (%)", ylim=(0, 102))
    if everything.min() > 0 and everything.max() >= 4 * everything.min():
        ax.set_xscale("log")
        style.plain_log_ticks(ax.xaxis)
    else:
        ax.xaxis.set_major_locator(MaxNLocator(5))
    if len(handles) > 1:
        figure.legend(handles=handles, loc="outside right upper", handlelength=2.0, borderaxespad=0.2)
    return figure


def dots(samples: Sequence[Sample], x_label: str, level: float | None = None, looks: Looks = None) -> Figure | None:
    """Each seed of each arm as a dot, its mean as a bar, best mean on top; `level` is a line to compare with."""
    filled = [item for item in samples if len(item.values)]
    if not filled:
        return None
    look = looks_of([item.label for item in samples], looks)
    order = sorted(filled, key=lambda item: float(np.mean(item.values)))
    figure, ax = _rows([item.label for item in order], x_label)
    if level is not None:
        ax.axvline(level, color=style.GREY, linewidth=1.0, zorder=1)
    for place, item in enumerate(order):
        one = look[item.label]
        ax.plot(item.values, [place] * len(item.values), linestyle="none", marker="o", markersize=4,
                markerfacecolor="none", markeredgewidth=0.8, color=one.colour)  # fmt: skip
        mean = float(np.mean(item.values))
        ax.plot([mean, mean], [place - 0.32, place + 0.32], color=one.colour, linewidth=2.2)
    ax.margins(x=0.06)
    ax.xaxis.set_major_locator(MaxNLocator(5))
    return figure


def _rows(labels: Sequence[str], x_label: str, extra_in: float = 0.0) -> tuple[Figure, Axes]:
    """Axes with one named row an arm, first at the bottom."""
    figure, (ax,) = new_figure(0.75 + extra_in + 0.19 * max(len(labels), 3), width_in=COLUMN_IN)
    ax.set_yticks(range(len(labels)), [short(label) for label in labels])
    ax.set_ylim(-0.6, len(labels) - 0.4)
    ax.tick_params(axis="y", length=0)
    ax.grid(visible=False, axis="y")
    ax.set_xlabel(x_label)
    return figure, ax
