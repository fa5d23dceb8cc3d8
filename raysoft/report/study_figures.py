"""Figures of a study, each a function of plain data: frontier, trade-off, budget sweep, ranking, heat table.

One panel (or two that share an axis), 3.5 inches wide, as in `comparison_figures`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from raysoft.report import style
from raysoft.report.labels import looks_of, margin_labels, point_labels, short
from raysoft.report.row_figures import Looks
from raysoft.report.style import COLUMN_IN, Look, new_figure
from raysoft.types import Array


@dataclass(frozen=True)
class FrontierPoint:
    """A family of settings at one share of the dense bits: mean of the metric and its interval (None: unknown)."""

    family: str
    share_percent: float
    mean: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class BudgetPoint:
    """An allocator at one latency budget: mean of the metric and its interval (None: unknown)."""

    allocator: str
    budget_s: float
    mean: float
    low: float | None = None
    high: float | None = None


def frontier(
    points: Sequence[FrontierPoint],
    reference_level: float,
    y_label: str,
    *,
    band: float = 0.5,
    reference: str = "ideal",
    lower_is_better: bool = False,
    looks: Looks = None,
    x_label: str = "Share of the dense 32-bit uplink (%)",
) -> Figure:
    """Metric against the share of the dense bits, falling to the right; the reference and `band` below it (in y units).

    `lower_is_better`: the band lies above the reference.
    """
    figure, ax, ends = _lines(
        [(point.family, point.share_percent, point.mean, point.low, point.high) for point in points],
        x_label,
        y_label,
        looks,
        falling=True,
    )
    edge = reference_level + (band if lower_is_better else -band)
    ax.axhspan(
        min(edge, reference_level),
        max(edge, reference_level),
        color=style.SKY,
        alpha=0.35,
        linewidth=0,
        zorder=0,
        label=f"within {band:g}",
    )
    ax.axhline(
        reference_level, color=style.BLACK, linestyle=(0, (4, 2)), linewidth=1.0, zorder=1, label=short(reference)
    )
    handles, labels = ax.get_legend_handles_labels()
    figure.legend(handles[::-1], labels[::-1], loc="outside upper center", ncols=2, handlelength=2.4)
    margin_labels(ax, ends)
    return figure


def budget_sweep(
    points: Sequence[BudgetPoint], y_label: str, *, x_label: str = "Latency budget (s)", looks: Looks = None
) -> Figure:
    """Metric at a fixed simulated time against the latency budget, one line an allocator, with intervals."""
    figure, ax, ends = _lines(
        [(point.allocator, point.budget_s, point.mean, point.low, point.high) for point in points],
        x_label,
        y_label,
        looks,
    )
    margin_labels(ax, ends)
    return figure


def _lines(
    rows: Sequence[tuple[str, float, float, float | None, float | None]],
    x_label: str,
    y_label: str,
    looks: Looks,
    falling: bool = False,
) -> tuple[Figure, Axes, list[tuple[str, float, float, Look]]]:
    """One line a name over a logarithmic x, intervals slightly apart; also the lines' right ends, to be named."""
    if not rows:
        raise ValueError("a figure needs at least one point")
    names = list(dict.fromkeys(row[0] for row in rows))
    look = looks_of(names, looks)
    figure, (ax,) = new_figure(max(2.7, 0.9 + 0.155 * len(names)), width_in=COLUMN_IN)
    ends = []
    for number, name in enumerate(names):
        mine = sorted((row for row in rows if row[0] == name), key=lambda row: row[1])
        # Points of different lines at the same x: one per cent apart, so that no interval hides another.
        x = np.array([row[1] for row in mine]) * 1.012 ** (number - (len(names) - 1) / 2)
        one = look[name]
        y = np.array([row[2] for row in mine])
        ax.plot(x, y, color=one.colour, linestyle=one.line, marker=one.marker, markersize=4, zorder=3)
        for at, (*_, low, high) in zip(x, mine, strict=True):
            if low is not None and high is not None:
                ax.plot([at, at], [low, high], color=one.colour, linewidth=0.9, zorder=2)
        end = 0 if falling else -1
        ends.append((name, float(x[end]), float(y[end]), one))
    ax.set(xlabel=x_label, ylabel=y_label, xscale="log")
    ax.margins(x=0.04, y=0.06)
    style.plain_log_ticks(ax.xaxis)
    if falling:
        ax.invert_xaxis()
    return figure, ax, ends


def tradeoff(
    v_V: Array,
    penalty_V: Array,
    queue_V: Array,
    *,
    penalty_label: str = "Mean penalty",
    queue_label: str = "Mean queue (s)",
    penalty_std_V: Array | None = None,
    queue_std_V: Array | None = None,
) -> Figure:
    """The [O(1/V), O(V)] trade-off: penalty above, queue below, over V; dotted: least squares of a + b/V, a + bV."""
    order = np.argsort(v_V)
    v = np.asarray(v_V, dtype=np.float64)[order]
    figure, axes = new_figure(3.4, 2, 1, width_in=COLUMN_IN, sharex=True)
    fine = np.geomspace(v[0], v[-1], 100)
    for ax, values, spread, label, law, colour, text in (
        (axes[0], penalty_V, penalty_std_V, penalty_label, lambda x: 1 / x, style.BLUE, "a + b/V"),
        (axes[1], queue_V, queue_std_V, queue_label, lambda x: x, style.VERMILLION, "a + bV"),
    ):
        y = np.asarray(values, dtype=np.float64)[order]
        std = None if spread is None else np.asarray(spread, dtype=np.float64)[order]
        fitted = len(v) > 2
        ax.errorbar(v, y, std, color=colour, marker="o", linestyle="none" if fitted else "-", elinewidth=1.2)
        if fitted:
            a, b = np.linalg.lstsq(np.stack([np.ones_like(v), law(v)], axis=1), y, rcond=None)[0]
            ax.plot(fine, a + b * law(fine), color=style.GREY, linestyle=(0, (1, 1.5)), linewidth=1.1, zorder=1)
            ax.set_title(f"dotted: {text} fitted", loc="right", color=style.GREY, pad=3, fontsize=8)
        ax.set_ylabel(label)
        ax.margins(y=0.1)
    axes[1].set(xlabel="V", xscale="log")
    style.plain_log_ticks(axes[1].xaxis)
    return figure


def scatter_rank(
    score: Sequence[float],
    accuracy: Sequence[float],
    labels: Sequence[str],
    tau: float | None,
    *,
    x_label: str = "Score (lower is better)",
    y_label: str = "Final accuracy (%)",
    interval: tuple[float, float] | None = None,
    chosen: str | None = None,
) -> Figure:
    """How well a score ranks settings: score against what came out, each point named, Kendall's tau above."""
    if not len(score) == len(accuracy) == len(labels) > 0:
        raise ValueError(
            f"score, accuracy and labels must be equally long: {len(score)}, {len(accuracy)}, {len(labels)}"
        )
    figure, (ax,) = new_figure(2.7, width_in=COLUMN_IN)
    ax.set(xlabel=x_label, ylabel=y_label)
    ax.margins(x=0.12, y=0.14)
    text = "Kendall τ not defined" if tau is None or not np.isfinite(tau) else f"Kendall τ = {tau:.2f}"
    text += f" [{interval[0]:.2f}, {interval[1]:.2f}]" if interval else ""
    ax.set_title(text.replace("-", "\N{MINUS SIGN}"), loc="left")
    for x, y, label in zip(score, accuracy, labels, strict=True):
        special = label == chosen
        ax.plot(
            x,
            y,
            linestyle="none",
            marker="D" if special else "o",
            markersize=6 if special else 4.5,
            color=style.VERMILLION if special else style.BLUE,
        )
    ax.xaxis.set_major_locator(MaxNLocator(5))
    look = Look(style.BLACK, "-", "o")
    point_labels(ax, [(label, x, y, look) for x, y, label in zip(score, accuracy, labels, strict=True)])
    return figure


def heat(
    table_RC: Array,
    rows: Sequence[str],
    columns: Sequence[str],
    value_label: str,
    *,
    row_label: str = "",
    column_label: str = "",
    digits: int = 1,
) -> Figure:
    """A table as colours with its numbers written in; NaN stays white with a dash."""
    values = np.asarray(table_RC, dtype=np.float64)
    if values.shape != (len(rows), len(columns)):
        raise ValueError(f"the table is {values.shape}, but there are {len(rows)} rows and {len(columns)} columns")
    figure, (ax,) = new_figure(1.0 + 0.3 * len(rows), width_in=COLUMN_IN)
    image = ax.imshow(values, cmap=style.COLOUR_MAP, aspect="auto")
    low, high = (
        float(f(values[np.isfinite(values)], initial=0.0))
        if not np.isfinite(values).any()
        else float(f(values[np.isfinite(values)]))
        for f in (np.min, np.max)
    )
    for (r, c), value in np.ndenumerate(values):
        known = bool(np.isfinite(value))
        dark = known and (value - low) < 0.5 * (high - low)
        ax.text(
            c,
            r,
            f"{value:.{digits}f}" if known else "–",
            ha="center",
            va="center",
            fontsize=8,
            color="white" if dark else "black",
        )
    ax.set_xticks(range(len(columns)), [short(name) for name in columns])
    ax.set_yticks(range(len(rows)), [short(name) for name in rows])
    ax.tick_params(length=0)
    ax.grid(visible=False)
    ax.spines[:].set_visible(False)
    ax.set(xlabel=column_label, ylabel=row_label)
    bar = figure.colorbar(image, ax=ax, pad=0.02)
    bar.set_label(value_label)
    bar.outline.set_visible(False)
    return figure
