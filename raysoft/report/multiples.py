"""Many lines as many small panels: each shows one of them in front of all others, under its whole name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from raysoft.report import style
from raysoft.report.chart import LOG, Chart, note
from raysoft.report.style import BLUE, FAINT, SMALL_PT, wrapped
from raysoft.types import Array

ACROSS = {False: 4, True: 2}  # panels beside each other, by whether the figure is a column wide
LINE_IN = 0.14


@dataclass(frozen=True)
class End:
    """Where an arm ends: its seeds' last points in the mean, and the standard deviation of the metric (NaN: one)."""

    x: float
    y: float
    std: float


@dataclass(frozen=True)
class Series:
    """One line of P points, with the bounds of a band or of bars (NaN: none)."""

    label: str
    x_P: Array
    y_P: Array
    low_P: Array
    high_P: Array
    steps: bool = False  # each value holds until the next x
    end: End | None = None  # a mark beyond the line
    joined: bool = True  # False: points alone


def small_multiples(
    lines: Sequence[Series],
    x_label: str,
    y_label: str,
    *,
    log_x: bool = False,
    falling: bool = False,
    integer_x: bool = False,
    backdrop: Callable[[Axes], None] | None = None,
    y_range: tuple[float, float] = (-np.inf, np.inf),
) -> Chart:
    """A panel a line, all with the same axes; `falling`: x runs from large to small; `backdrop`: drawn into each.

    Bands and bars are drawn within `y_range`.
    """
    across = ACROSS[style.is_column()]
    titles = [wrapped(one.label, 23) for one in lines]
    rows = [titles[first : first + across] for first in range(0, len(titles), across)]
    heights = [0.72 + LINE_IN * max(title.count("\n") + 1 for title in row) for row in rows]
    figure, axes = style.new_figure(
        sum(heights) + 0.5, len(rows), across, sharex=True, sharey=True, height_ratios=heights
    )
    for ax in axes[len(lines) :]:
        ax.set_visible(False)
    for place, (ax, one, title) in enumerate(zip(axes, lines, titles, strict=False)):
        for other in lines:
            if other is not one:
                faint: dict[str, Any] = (
                    {"drawstyle": _drawn(other)} if other.joined else {"linestyle": "none", "marker": "."}
                )
                ax.plot(other.x_P, other.y_P, color=FAINT, linewidth=0.7, markersize=2, zorder=1, **faint)
        if backdrop is not None:
            backdrop(ax)
        _one(ax, one, y_range)
        note(ax, one.label, one.x_P, one.y_P, x_name=x_label, y_name=y_label, y_low=one.low_P, y_high=one.high_P)
        ax.set_title(title, loc="left", fontsize=SMALL_PT, pad=3)
        ax.tick_params(labelbottom=place + across >= len(lines), labelleft=place % across == 0)
    first = axes[0]
    first.margins(x=0.04, y=0.06)
    if log_x:
        first.set_xscale("log")
        first.autoscale_view()
        style.plain_log_ticks(first.xaxis, few=True)
    else:
        first.xaxis.set_major_locator(MaxNLocator(3, integer=integer_x))
    first.yaxis.set_major_locator(MaxNLocator(4))
    if falling:
        first.invert_xaxis()
    figure.supxlabel(x_label + LOG * log_x, fontsize=style.FONT_PT)
    figure.supylabel(y_label, fontsize=style.FONT_PT)
    return figure


def _drawn(one: Series) -> Literal["steps-post", "default"]:
    return "steps-post" if one.steps else "default"


def _one(ax: Axes, one: Series, y_range: tuple[float, float]) -> None:
    few = len(one.x_P) <= style.FEW and not one.steps
    marks: dict[str, Any] = {"marker": "o", "markersize": 3} if few else {}
    line = "-" if one.joined else "none"
    ax.plot(one.x_P, one.y_P, color=BLUE, linewidth=1.5, linestyle=line, zorder=3, drawstyle=_drawn(one), **marks)
    if one.end is not None:
        low, high = np.clip([one.end.y - one.end.std, one.end.y + one.end.std], *y_range)
        ax.vlines(one.end.x, low, high, color=BLUE, linewidth=0.9, zorder=3)
        ax.plot(one.end.x, one.end.y, color=BLUE, marker="o", markersize=4, linestyle="none", zorder=4)
    low_P, high_P = np.clip(one.low_P, *y_range), np.clip(one.high_P, *y_range)
    known = np.isfinite(one.low_P) & np.isfinite(one.high_P)
    if not known.any():
        return
    if few:
        ax.vlines(one.x_P[known], low_P[known], high_P[known], color=BLUE, linewidth=0.9, zorder=2)
    else:
        step: Literal["post"] | None = "post" if one.steps else None
        ax.fill_between(one.x_P, low_P, high_P, step=step, color=style.SKY, alpha=0.5, linewidth=0, zorder=2)
