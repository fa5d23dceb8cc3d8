"""Figures of a sweep, each a function of plain data: Pareto front, effect of each axis, map of two axes, parallel axes.

Points of the space carry their numbers, by which the tables name them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.ticker import MaxNLocator

from raysoft.report import style
from raysoft.report.chart import Chart, note
from raysoft.report.labels import point_labels
from raysoft.report.style import BLACK, BLUE, COLOUR_MAP, COLUMN_IN, GREY, VERMILLION, Look, new_figure, panels, plain
from raysoft.types import Array

CATEGORIES = 10  # more different values than this are drawn on a scale


@dataclass(frozen=True)
class Measured:
    """A point of the space as value and two costs."""

    number: int
    value: float
    latency_s: float
    mb: float


def front_of(points: Sequence[Measured], lower_is_better: bool = False) -> list[int]:
    """Places of the points that no other beats in value, latency and bits together.

    >>> front_of([Measured(0, 0.9, 1.0, 1.0), Measured(1, 0.8, 2.0, 1.0), Measured(2, 0.7, 2.0, 0.5)])
    [0, 2]
    """
    sign = 1.0 if lower_is_better else -1.0
    cost_N3 = np.array([[sign * one.value, one.latency_s, one.mb] for one in points], dtype=np.float64).reshape(-1, 3)
    out = []
    for place, mine in enumerate(cost_N3):
        beats = np.all(cost_N3 <= mine, axis=1) & np.any(cost_N3 < mine, axis=1)
        if not beats.any():
            out.append(place)
    return out


def pareto(points: Sequence[Measured], y_label: str, lower_is_better: bool = False) -> Chart | None:
    """Value against latency and against bits, each coloured by the other cost; diamonds are the front of all three."""
    if not points:
        return None
    front = set(front_of(points, lower_is_better))
    figure, axes = panels(2, 2.7, 2, extra_in=0.3, sharey=True)
    seconds, mb = np.array([one.latency_s for one in points]), np.array([one.mb for one in points])
    value = np.array([one.value for one in points])
    names = ("Mean round latency (s)", "Uplink (MB)")
    for ax, x, colour, x_label, c_label in ((axes[0], seconds, mb, *names), (axes[1], mb, seconds, *names[::-1])):
        names_N = [f"point {one.number}" for one in points]
        note(ax, names_N, x, value, value_name=c_label, value=colour)
        scale = Normalize(float(colour.min()), float(colour.max()) or 1.0)
        kinds = ((False, "o", 26, "none"), (True, "D", 34, BLACK))
        for wanted, marker, size, edge in kinds:
            mine = np.array([place for place in range(len(points)) if (place in front) == wanted], dtype=int)
            drawn = ax.scatter(
                x[mine],
                value[mine],
                s=size,
                c=colour[mine],
                cmap=COLOUR_MAP,
                norm=scale,
                marker=marker,
                edgecolors=edge,
                linewidths=0.9,
                zorder=3 if wanted else 2,
            )
        ax.set_xlabel(x_label)
        ax.margins(x=0.1, y=0.12)
        if x.min() > 0 and x.max() >= 4 * x.min():
            style.log_x(ax)
            ax.autoscale_view()
            style.plain_log_ticks(ax.xaxis)
        else:
            ax.xaxis.set_major_locator(MaxNLocator(5))
        bar = figure.colorbar(drawn, ax=ax, pad=0.02)
        bar.set_label(c_label)
        bar.outline.set_visible(False)
        bar.ax.yaxis.set_major_locator(MaxNLocator(5))
    for ax in axes if style.is_column() else axes[:1]:
        ax.set_ylabel(y_label)
    marks = [
        axes[0].plot(
            [], [], linestyle="none", marker=marker, color=GREY, markeredgecolor=edge, markersize=5, label=label
        )[0]
        for marker, edge, label in (("D", BLACK, "Pareto front of all three"), ("o", GREY, "other points"))
    ]
    figure.legend(handles=marks, loc="outside upper center", ncols=2, handlelength=1.0)
    look = Look(BLACK, "-", "D")
    for ax, x in ((axes[0], seconds), (axes[1], mb)):
        others = [((float(a), float(b)), (float(a), float(b))) for a, b in zip(x, value, strict=True)]
        point_labels(ax, [(str(points[i].number), float(x[i]), float(value[i]), look) for i in sorted(front)], others)
    return figure


@dataclass(frozen=True)
class Column:
    """One axis of the space, or one figure of the points: a name, and a value a point (number, text, None)."""

    name: str
    values: Sequence[Any]
    higher_is_better: bool | None = None
    possible: tuple[float, float] = (-np.inf, np.inf)  # spreads are drawn no further


@dataclass(frozen=True)
class Scale:
    """Where values lie on an axis, and its ticks; few different values are equally far apart, in their order."""

    place_N: Array
    ticks: Array
    names: tuple[str, ...]
    categories: bool


def scale_of(values: Sequence[Any]) -> Scale:
    """Places of any values; NaN for None."""
    known = [value for value in values if value is not None]
    numbers = all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in known)
    distinct = sorted(set(known)) if numbers else sorted({str(value) for value in known})
    if not numbers or len(distinct) <= CATEGORIES:
        where = {value: place for place, value in enumerate(distinct)}
        place = [np.nan if value is None else where[value if numbers else str(value)] for value in values]
        return Scale(
            np.array(place, dtype=np.float64),
            np.arange(len(distinct), dtype=np.float64),
            tuple(shown(value) for value in distinct),
            True,
        )
    x = np.array([np.nan if value is None else float(value) for value in values])
    low, high = float(np.nanmin(x)), float(np.nanmax(x))
    if low > 0 and high >= 20 * low:
        decades = 10.0 ** np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
        few = high < 100 * low
        ticks = np.sort(np.concatenate([decades * factor for factor in ((1.0, 3.0) if few else (1.0,))]))
        ticks = ticks[(ticks >= low * (1 - 1e-9)) & (ticks <= high * (1 + 1e-9))]
        return Scale(np.log10(x), np.log10(ticks), tuple(shown(float(f"{tick:.3g}")) for tick in ticks), False)
    inner = [tick for tick in MaxNLocator(4).tick_values(low, high) if low <= tick <= high]
    return Scale(x, np.array(inner), tuple(shown(float(f"{tick:.6g}")) for tick in inner), False)


def shown(value: Any) -> str:
    """A value as a tick."""
    return f"{value:.4g}" if isinstance(value, float) else plain(str(value), 16)


def effects(columns: Sequence[Column], rows: Sequence[Column], stds: Sequence[Sequence[float | None]]) -> Chart | None:
    """Each figure of `rows` against each axis: a dot a point (bar: spread over seeds), a line through the means."""
    columns = [column for column in columns if len({str(value) for value in column.values}) > 1][:4]
    kept = [(row, std) for row, std in zip(rows, stds, strict=True) if any(value is not None for value in row.values)]
    if not columns or not kept:
        return None
    if len(columns) == 1:
        figure, axes = new_figure(0.5 + 1.75 * len(kept), len(kept), 1, width=COLUMN_IN, sharex=True)
    else:
        share = {} if style.is_column() else {"sharex": "col", "sharey": "row"}
        figure, axes = panels(
            len(kept) * len(columns), 1.75, len(columns), extra_in=0.5, most_in_column=min(2, len(columns)), **share
        )
    for number, ax in enumerate(axes):
        (row, std), column = kept[number // len(columns)], columns[number % len(columns)]
        _effect(ax, column, row, std)
        if number % len(columns) == 0 or style.is_column():
            ax.set_ylabel(row.name)
        if number // len(columns) == len(kept) - 1 or style.is_column():
            ax.set_xlabel(column.name)
    return figure


def _effect(ax: Axes, column: Column, row: Column, std: Sequence[float | None]) -> None:
    scale = scale_of(column.values)
    y = np.array([np.nan if value is None else value for value in row.values], dtype=np.float64)
    error = np.array([0.0 if value is None else value for value in std], dtype=np.float64)
    # Points of one value stand beside each other.
    shift = np.zeros(len(y))
    if scale.categories:
        for tick in scale.ticks:
            mine = np.flatnonzero(scale.place_N == tick)
            shift[mine] = np.linspace(-0.18, 0.18, len(mine)) if len(mine) > 1 else 0.0
    bars = np.where(error > 0, error, 0.0)
    note(ax, "point", column.values, y, x_name=column.name, y_name=row.name, y_low=y - bars, y_high=y + bars)
    ax.errorbar(
        scale.place_N + shift,
        y,
        np.where(error > 0, np.abs(np.clip([y - error, y + error], *row.possible) - y), np.nan),
        linestyle="none",
        marker="o",
        markersize=3.2,
        color=BLUE,
        elinewidth=0.8,
        alpha=0.75,
    )
    if scale.categories:
        means = [
            float(np.nanmean(y[scale.place_N == tick])) if np.isfinite(y[scale.place_N == tick]).any() else np.nan
            for tick in scale.ticks
        ]
        note(ax, "mean", scale.names, means, x_name=column.name, y_name=row.name)
        ax.plot(scale.ticks, means, color=VERMILLION, linewidth=1.4, marker="_", markersize=9, zorder=4)
        ax.set_xlim(-0.5, len(scale.ticks) - 0.5)
    words = any(isinstance(value, str) for value in column.values)
    ax.set_xticks(scale.ticks, [_wrapped(name, 8) for name in scale.names] if words else scale.names)
    if not words and sum(len(name) + 1 for name in scale.names) > 24:
        ax.tick_params(axis="x", rotation=45)
    ax.margins(y=0.1)
    ax.grid(visible=False, axis="x")


def parallel(columns: Sequence[Column], colour: Column, best: int | None = None) -> Chart | None:
    """Every point as a line over all axes and figures, coloured by one of them; the best one thick and on top."""
    if len(columns) < 2 or not columns[0].values:
        return None
    value_N = np.array([np.nan if value is None else value for value in colour.values], dtype=np.float64)
    known = value_N[np.isfinite(value_N)]
    if not len(known):
        return None
    figure, (ax,) = new_figure(3.4, width=style.PAGE_IN)  # a column has no room for the axes
    norm = Normalize(float(known.min()), float(known.max()))
    scales = [scale_of(column.values) for column in columns]
    height_NC = np.stack([_unit(scale, column) for scale, column in zip(scales, columns, strict=True)], axis=1)
    from matplotlib import colormaps

    colours = colormaps[COLOUR_MAP]
    for column in columns:
        points = [f"point {place}" for place in range(len(column.values))]
        note(ax, points, [column.name] * len(points), column.values, x_name="axis", y_name="value")
    for place in np.argsort(np.where(np.isfinite(value_N), value_N, -np.inf)):
        if np.isfinite(height_NC[place]).sum() < 2:
            continue
        fine = np.isfinite(value_N[place])
        ax.plot(height_NC[place], color=colours(norm(value_N[place])) if fine else GREY, linewidth=1.1, alpha=0.85)
    if best is not None:
        ax.plot(
            height_NC[best], color=VERMILLION, linewidth=2.6, marker="o", markersize=4.5, zorder=5, label="best point"
        )
        figure.legend(loc="outside upper right", handlelength=2.4)
    for number, (column, scale) in enumerate(zip(columns, scales, strict=True)):
        ax.axvline(number, color=BLACK, linewidth=0.8, zorder=3)
        for tick, name in zip(_unit(scale, column, scale.ticks), scale.names, strict=True):
            ax.annotate(
                name,
                (number, tick),
                xytext=(4, 0),
                textcoords="offset points",
                fontsize=8,
                va="center",
                zorder=6,
                bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.6},
            )
    ax.set_xticks(range(len(columns)), [_wrapped(column.name) for column in columns])
    ax.set_yticks([])
    ax.set_xlim(-0.1, len(columns) - 1 + 0.42)
    ax.set_ylim(-0.06, 1.06)
    ax.grid(visible=False)
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0, pad=6)
    bar = figure.colorbar(_mappable(norm), ax=ax, pad=0.01, aspect=30)
    bar.set_label(colour.name)
    bar.outline.set_visible(False)
    return figure


def _mappable(norm: Normalize) -> Any:
    from matplotlib.cm import ScalarMappable

    return ScalarMappable(norm=norm, cmap=COLOUR_MAP)


def _unit(scale: Scale, column: Column, place: Array | None = None) -> Array:
    """Places as heights between 0 and 1."""
    known = np.concatenate([scale.place_N[np.isfinite(scale.place_N)], scale.ticks if scale.categories else []])
    low, high = float(known.min()), float(known.max())
    at = scale.place_N if place is None else place
    return (at - low) / (high - low) if high > low else np.where(np.isfinite(at), 0.5, np.nan)


def _wrapped(name: str, width: int = 12) -> str:
    """A name on several short lines."""
    words = plain(name, 40).replace("_", " ").split(" ")
    lines: list[str] = []
    for word in words:
        if lines and len(lines[-1]) + 1 + len(word) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return "\n".join(lines)


def scattered(x: Column, y: Column, colour: Column) -> Chart | None:
    """Two axes with more values than a table can have; colour: the metric."""
    value = np.array([np.nan if one is None else one for one in colour.values], dtype=np.float64)
    fine = np.isfinite(value)
    if not fine.any():
        return None
    across, up = scale_of(x.values), scale_of(y.values)
    figure, (ax,) = new_figure(2.7, width=COLUMN_IN)
    note(ax, "points", x.values, y.values, x_name=x.name, y_name=y.name, value_name=colour.name, value=colour.values)
    drawn = ax.scatter(
        across.place_N[fine], up.place_N[fine], c=value[fine], cmap=COLOUR_MAP, s=34, edgecolors=BLACK, linewidths=0.5
    )
    ax.set_xticks(across.ticks, across.names)
    ax.set_yticks(up.ticks, up.names)
    ax.set(xlabel=x.name, ylabel=y.name)
    ax.margins(0.08)
    bar = figure.colorbar(drawn, ax=ax, pad=0.02)
    bar.set_label(colour.name)
    bar.outline.set_visible(False)
    return figure
