"""Figures of a study, each a function of plain data: frontier, trade-off, budget sweep, ranking, heat table.

One panel (or two that share an axis), as in a comparison; of many lines a small panel each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from raysoft.report import style
from raysoft.report.chart import Chart, note
from raysoft.report.labels import looks_of, point_labels
from raysoft.report.multiples import Series, small_multiples
from raysoft.report.row_figures import Looks
from raysoft.report.style import COLOURS, Look, new_figure, plain, wrapped
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
) -> Chart:
    """Metric against the share of the dense bits, falling to the right; the reference and `band` below it (in y units).

    `lower_is_better`: the band lies above the reference.
    """
    edge = reference_level + (band if lower_is_better else -band)

    def backdrop(ax: Axes) -> None:
        low, high = sorted((edge, reference_level))
        ax.axhspan(low, high, color=style.SKY, alpha=0.4, linewidth=0, zorder=0, label=f"within {band:g}")
        dashes: dict[str, Any] = {"color": style.BLACK, "linestyle": (0, (4, 2)), "linewidth": 1.0, "zorder": 1}
        ax.axhline(reference_level, label=plain(reference), **dashes)

    series = _series([(point.family, point.share_percent, point.mean, point.low, point.high) for point in points])
    return _lines(series, x_label, y_label, looks, falling=True, backdrop=backdrop)


def budget_sweep(
    points: Sequence[BudgetPoint], y_label: str, *, x_label: str = "Latency budget (s)", looks: Looks = None
) -> Chart:
    """Metric at a fixed simulated time against the latency budget, one line an allocator, with intervals."""
    series = _series([(point.allocator, point.budget_s, point.mean, point.low, point.high) for point in points])
    return _lines(series, x_label, y_label, looks)


def _series(rows: Sequence[tuple[str, float, float, float | None, float | None]]) -> list[Series]:
    """One line a name, each by rising x; NaN where an interval is unknown."""
    if not rows:
        raise ValueError("a figure needs at least one point")
    out = []
    for name in dict.fromkeys(row[0] for row in rows):
        mine = sorted((row for row in rows if row[0] == name), key=lambda row: row[1])
        x, y, low, high = (
            np.array([np.nan if row[at] is None else row[at] for row in mine], dtype=np.float64) for at in range(1, 5)
        )
        out.append(Series(name, x, y, low, high))
    return out


def _lines(
    lines: Sequence[Series],
    x_label: str,
    y_label: str,
    looks: Looks,
    falling: bool = False,
    backdrop: Callable[[Axes], None] | None = None,
) -> Chart:
    """Lines over a logarithmic x in one panel, intervals slightly apart; more than there are colours: a panel each."""
    if len(lines) > len(COLOURS):
        figure = small_multiples(lines, x_label, y_label, log_x=True, falling=falling, backdrop=backdrop)
        if backdrop is not None:
            handles, names = figure.axes[0].get_legend_handles_labels()
            figure.legend(handles[::-1], names[::-1], loc="outside upper center", ncols=2, handlelength=2.4)
        return figure
    look = looks_of([one.label for one in lines], looks)
    names = [one.label for one in lines] + (["reference", "band"] if backdrop is not None else [])
    figure, (ax,) = new_figure(2.4 + style.legend_height(names))
    ax.set(xlabel=x_label, ylabel=y_label, xscale="log")
    for number, one in enumerate(lines):
        # Points of different lines at the same x: one per cent apart, so that no interval hides another.
        x_P = one.x_P * 1.012 ** (number - (len(lines) - 1) / 2)
        mine = look[one.label]
        ax.plot(x_P, one.y_P, label=plain(one.label), zorder=3, **mine.line_style(len(x_P)))
        ax.vlines(x_P, one.low_P, one.high_P, color=mine.colour, linewidth=0.9, zorder=2)
        note(ax, one.label, one.x_P, one.y_P, y_low=one.low_P, y_high=one.high_P)
    if backdrop is not None:
        backdrop(ax)
    ax.margins(x=0.04, y=0.06)
    places = np.unique(np.concatenate([one.x_P for one in lines]))
    if len(places) == 1:  # a logarithmic axis of one place has no width
        ax.set_xlim(places[0] / 2, 2 * places[0])
    style.plain_log_ticks(ax.xaxis)
    if falling:
        ax.invert_xaxis()
    if len(names) > 1:
        style.legend_above(figure, ax)
    return figure


def tradeoff(
    v_V: Array,
    penalty_V: Array,
    queue_V: Array,
    *,
    penalty_label: str = "Mean penalty",
    queue_label: str = "Mean queue (s)",
    penalty_std_V: Array | None = None,
    queue_std_V: Array | None = None,
) -> Chart:
    """The [O(1/V), O(V)] trade-off: penalty above, queue below, over V; dotted: least squares of a + b/V, a + bV."""
    order = np.argsort(v_V)
    v = np.asarray(v_V, dtype=np.float64)[order]
    figure, axes = new_figure(3.4, 2, 1, sharex=True)
    fine = np.geomspace(v[0], v[-1], 100)
    for ax, values, spread, label, law, colour, text in (
        (axes[0], penalty_V, penalty_std_V, penalty_label, lambda x: 1 / x, style.BLUE, "a + b/V"),
        (axes[1], queue_V, queue_std_V, queue_label, lambda x: x, style.VERMILLION, "a + bV"),
    ):
        y = np.asarray(values, dtype=np.float64)[order]
        std = None if spread is None else np.asarray(spread, dtype=np.float64)[order]
        fitted = len(v) > 2
        low, high = (y, y) if std is None else (y - std, y + std)
        note(ax, "measured", v, y, y_low=low, y_high=high)
        ax.errorbar(v, y, std, color=colour, marker="o", linestyle="none" if fitted else "-", elinewidth=1.2)
        if fitted:
            a, b = np.linalg.lstsq(np.stack([np.ones_like(v), law(v)], axis=1), y, rcond=None)[0]
            note(ax, f"fitted {text}", fine, a + b * law(fine))
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
) -> Chart:
    """How well a score ranks settings: score against what came out, each point named, Kendall's tau above."""
    if not len(score) == len(accuracy) == len(labels) > 0:
        raise ValueError(
            f"score, accuracy and labels must be equally long: {len(score)}, {len(accuracy)}, {len(labels)}"
        )
    figure, (ax,) = new_figure(2.7)
    ax.set(xlabel=x_label, ylabel=y_label)
    ax.margins(x=0.12, y=0.14)
    text = "Kendall τ not defined" if tau is None or not np.isfinite(tau) else f"Kendall τ = {tau:.2f}"
    text += f" [{interval[0]:.2f}, {interval[1]:.2f}]" if interval else ""
    ax.set_title(text.replace("-", "\N{MINUS SIGN}"), loc="left")
    for x, y, label in zip(score, accuracy, labels, strict=True):
        special = label == chosen
        note(ax, label, [x], [y])
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
) -> Chart:
    """A table as colours with its numbers written in; NaN stays white with a dash."""
    values = np.asarray(table_RC, dtype=np.float64)
    if values.shape != (len(rows), len(columns)):
        raise ValueError(f"the table is {values.shape}, but there are {len(rows)} rows and {len(columns)} columns")
    figure, (ax,) = new_figure(1.0 + 0.3 * len(rows), width=style.COLUMN_IN)
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
    for name, row in zip(rows, values, strict=True):
        note(ax, name, columns, [name] * len(columns), value_name=value_label, value=row)
    ax.set_xticks(range(len(columns)), [wrapped(name, 9) for name in columns])
    ax.set_yticks(range(len(rows)), [wrapped(name, 16) for name in rows])
    ax.tick_params(length=0)
    ax.grid(visible=False)
    ax.spines[:].set_visible(False)
    ax.set(xlabel=column_label, ylabel=row_label)
    bar = figure.colorbar(image, ax=ax, pad=0.02)
    bar.set_label(value_label)
    bar.outline.set_visible(False)
    return figure
