"""The figures that look at single clients: what each may send, how bandwidth is shared, and who is served at all."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from raysoft.report import style
from raysoft.report.chart import Chart, line, note
from raysoft.report.run.data import ClientRounds, ClientTable, binned, client_rounds, client_table
from raysoft.report.style import Look, new_figure, panels, plain
from raysoft.rundir.reading import Run
from raysoft.types import Array

MAX_MARKS = 100  # more clients than this are drawn as groups of neighbours
LINE_BINS = 20  # groups per line where several runs are compared
_ORDER = "Clients, weakest to strongest mean gain"


def tables(runs: Sequence[Run]) -> list[tuple[int, Run, ClientRounds, ClientTable]]:
    """The runs that recorded their clients, each with its number among all runs."""
    out = []
    for number, run in enumerate(runs):
        rounds = client_rounds(run)
        if rounds is not None:
            out.append((number, run, rounds, client_table(rounds)))
    return out


def by_client(runs: Sequence[Run]) -> Chart | None:
    """Kept fraction and bandwidth of each client, ordered by mean gain; one line a run where several are compared."""
    found = tables(runs)
    shown = [
        (label, names)
        for label, names in (
            ("Kept fraction", ("kept_mean_C", "kept_low_C", "kept_high_C")),
            ("Bandwidth (kHz)", ("bandwidth_mean_hz_C", "bandwidth_low_hz_C", "bandwidth_high_hz_C")),
        )
        if any(np.isfinite(getattr(table, names[0])).any() for _, _, _, table in found)
    ]
    if not shown:
        return None
    several = len(runs) > 1
    figure, axes = new_figure(
        1.7 * len(shown) + 0.3 + style.legend_height([run.name for run in runs]), len(shown), 1, sharex=True
    )
    for ax, (label, names) in zip(axes, shown, strict=True):
        factor = 1e-3 if "kHz" in label else 1.0
        seen = []
        for number, run, _, table in found:
            mean, low, high = (factor * getattr(table, name) for name in names)
            seen += [mean] if several else [low, high]
            if several:
                _ranked_line(ax, mean, number, len(runs), run.name)
            else:
                _ranges(ax, mean, low, high)
        ax.set_ylabel(label)
        if not (factor < 1 and style.log_if_spread(ax, np.concatenate(seen))):  # a fraction stays linear
            ax.set_ylim(bottom=0)
    axes[-1].set_xlabel(f"{_ORDER} (%)" if several else _ORDER)
    if several:
        style.legend_above(figure, axes[0])
    else:
        axes[-1].xaxis.set_major_locator(MaxNLocator(8, integer=True))
    return figure


def _ranges(ax: Axes, mean: Array, low: Array, high: Array) -> None:
    """Means as dots with a line from the smallest to the largest value, over the place of the client (1 = weakest)."""
    centre = binned(np.arange(1.0, len(mean) + 1), MAX_MARKS)
    mean, low, high = (binned(values, MAX_MARKS) for values in (mean, low, high))
    ax.vlines(centre, low, high, color=style.SKY, linewidth=1.6)
    note(ax, "mean, smallest, largest", centre, mean, y_low=low, y_high=high)
    ax.plot(centre, mean, linestyle="none", marker="o", color=style.BLUE, markersize=2.2 if style.is_column() else 3.2)


def _ranked_line(ax: Axes, value: Array, number: int, count: int, label: str) -> None:
    y = binned(value, LINE_BINS)
    x = (np.arange(len(y)) + 0.5) / len(y) * 100
    ok = np.isfinite(y)
    line(ax, label, x[ok], y[ok], label=plain(label), **Look.of(number, count).line_style(int(ok.sum())))


def served(runs: Sequence[Run]) -> Chart | None:
    """Left: how often updates arrive; right: kept fraction against mean gain."""
    found = tables(runs)
    if not found:
        return None
    several = len(runs) > 1
    figure, axes = panels(2, 2.5, 2, extra_in=style.legend_height([run.name for run in runs]))
    if several:
        for number, run, _, table in found:
            share = 100 * table.delivered_C / np.maximum(table.invited_C, 1)
            _ranked_line(axes[0], share, number, len(runs), run.name)
            _gain_line(axes[1], table, number, len(runs), run.name)
        axes[0].set(xlabel=f"{_ORDER} (%)", ylabel="Updates that arrived (%)")
        axes[0].set_ylim(0, 104)
        style.legend_above(figure, axes[0])
    else:
        _counts(axes[0], found[0][3])
        _gain_dots(axes[1], found[0][3])
    axes[1].set(xlabel="Mean channel gain (dB)", ylabel="Mean kept fraction")
    axes[1].set_ylim(bottom=0)
    if not axes[1].has_data():
        axes[1].text(0.5, 0.5, "not measured", transform=axes[1].transAxes, ha="center", va="center")
    return figure


def _counts(ax: Axes, table: ClientTable) -> None:
    """Stacked bars per client (or mean of a group): arrived, held back, lost. Told apart by lightness and hatching."""
    groups = min(len(table.id_C), MAX_MARKS)
    centre = binned(np.arange(1.0, len(table.id_C) + 1), groups)
    width = len(table.id_C) / groups
    bottom = np.zeros(groups)
    for label, counts, colour, hatch in (
        ("arrived", table.delivered_C, style.BLUE, ""),
        ("outage", table.outage_C, style.PALE, "////////"),
        ("lost", table.lost_C, style.VERMILLION, "xxxxxx"),
    ):
        height = binned(counts, groups)
        if not height.any():
            continue
        ax.bar(
            centre,
            height,
            width=width,
            bottom=bottom,
            color=colour,
            hatch=hatch,
            edgecolor="#333333" if hatch else "white",
            linewidth=0.3,
            label=label,
        )
        note(ax, label, centre, height, y_low=bottom, y_high=bottom + height)
        bottom = bottom + height
    ax.set(xlabel=_ORDER, ylabel="Rounds per client")
    ax.margins(x=0.01)
    ax.set_ylim(0, 1.22 * max(float(bottom.max()), 1.0))
    ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    ax.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    ax.legend(loc="upper center", ncols=3, handlelength=1.4, columnspacing=1.0)


def _gain_dots(ax: Axes, table: ClientTable) -> None:
    ok = np.isfinite(table.gain_db_C) & np.isfinite(table.kept_mean_C)
    crowded = ok.sum() > 300
    note(ax, [f"client {number}" for number in table.id_C[ok]], table.gain_db_C[ok], table.kept_mean_C[ok])
    ax.plot(
        table.gain_db_C[ok],
        table.kept_mean_C[ok],
        linestyle="none",
        marker="o",
        color=style.BLUE,
        markersize=1.5 if crowded else 3.2,
        alpha=0.35 if crowded else 1.0,
        rasterized=bool(crowded),
    )
    if crowded:  # the trend, which the cloud hides
        x, y = binned(table.gain_db_C[ok], LINE_BINS), binned(table.kept_mean_C[ok], LINE_BINS)
        line(ax, "mean of neighbours", x, y, color=style.BLACK)


def _gain_line(ax: Axes, table: ClientTable, number: int, count: int, label: str) -> None:
    ok = np.isfinite(table.gain_db_C) & np.isfinite(table.kept_mean_C)
    x, y = binned(table.gain_db_C[ok], LINE_BINS), binned(table.kept_mean_C[ok], LINE_BINS)
    line(ax, label, x, y, label=plain(label), **Look.of(number, count).line_style(len(x)))


def describe(run: Run) -> str:
    """Who was served, in one sentence of numbers."""
    rounds = client_rounds(run)
    if rounds is None:
        return "clients were not recorded."
    table = client_table(rounds)
    invited, arrived = table.invited_C.sum(), table.delivered_C.sum()
    text = (
        f"{len(table.id_C)} clients invited {invited:.0f} times; {100 * arrived / invited:.3g} % of the updates "
        f"arrived, {table.outage_C.sum():.0f} held back by the outage rule, {table.lost_C.sum():.0f} lost"
    )
    third = max(1, len(table.id_C) // 3)
    weak, strong = _mean(table.kept_mean_C[:third]), _mean(table.kept_mean_C[-third:])
    if np.isfinite(weak) and np.isfinite(strong):
        text += f"; mean kept fraction {weak:.3g} in the weakest third of the clients, {strong:.3g} in the strongest"
    return text + "."


def _mean(values: Array) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else float("nan")
