"""The figures that look at single clients: what each may send, how bandwidth is shared, and who is served at all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from raysoft.report import style
from raysoft.report.chart import Chart, line, note
from raysoft.report.run.data import Band, ClientRounds, ClientTable, binned, by_rank, client_rounds, client_table
from raysoft.report.style import Look, panels, plain
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
    """Kept fraction and bandwidth from the weakest client to the strongest: mean, and where most of the values lie."""
    found = tables(runs)
    panels_of = {"kept_fraction": ("Kept fraction", 1.0), "bandwidth_hz": ("Bandwidth (kHz)", 1e-3)}
    shown = [
        (label, name, factor)
        for name, (label, factor) in panels_of.items()
        if any(np.isfinite(getattr(rounds, f"{name}_N")[rounds.served_N]).any() for _, _, rounds, _ in found)
    ]
    if not shown:
        return None
    several = len(runs) > 1
    names = [run.name for run in runs]
    figure, axes = panels(len(shown), 2.1, 2, extra_in=style.legend_height(names), sharex=True)
    for ax, (label, name, factor) in zip(axes, shown, strict=True):
        ax.set(xlabel=f"{_ORDER} (%)", ylabel=label)
        seen = []
        for number, run, rounds, table in found:
            band = by_rank(rounds, table, getattr(rounds, f"{name}_N"), LINE_BINS).scaled(factor)
            seen += [band.mean_G] if several else [band.low_G, band.high_G]
            _band(ax, band, Look.of(number, len(runs)), run.name, several, len(table.id_C) > LINE_BINS)
        if not (factor < 1 and style.log_if_spread(ax, np.concatenate(seen))):  # a fraction stays linear
            _from_zero(ax)
    axes[0].set_xlim(0, 100)
    if several:
        style.legend_above(figure, axes[0])
    return figure


def _from_zero(ax: Axes) -> None:
    """A linear axis from zero, with room above for a whole mark."""
    ax.set_ylim(bottom=0)
    ax.set_ylim(top=1.04 * ax.get_ylim()[1])


def _band(ax: Axes, band: Band, look: Look, name: str, several: bool, joined: bool) -> None:
    """Groups of neighbours are `joined`; single clients are dots, for nothing lies between two of them."""
    ok = np.isfinite(band.mean_G)
    if not several and joined:
        ax.fill_between(band.place_G[ok], band.low_G[ok], band.high_G[ok], color=style.SKY, alpha=0.6, linewidth=0)
    elif not several:
        ax.vlines(band.place_G[ok], band.low_G[ok], band.high_G[ok], color=style.SKY, linewidth=3.0, zorder=1)
    note(ax, name, band.place_G, band.mean_G, y_low=band.low_G, y_high=band.high_G)
    ax.plot(band.place_G[ok], band.mean_G[ok], label=plain(name), **_drawn(look, int(ok.sum()), joined))


def _drawn(look: Look, points: int, joined: bool) -> dict[str, Any]:
    return look.line_style(points) | ({} if joined else {"linestyle": "none"})


def _ranked_line(ax: Axes, value: Array, number: int, count: int, label: str) -> None:
    y = binned(value, LINE_BINS)
    x = (np.arange(len(y)) + 0.5) / len(y) * 100
    ok = np.isfinite(y)
    drawn = _drawn(Look.of(number, count), int(ok.sum()), len(value) > LINE_BINS)
    line(ax, label, x[ok], y[ok], label=plain(label), **drawn)


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
    _from_zero(axes[1])
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
    line(ax, label, x, y, label=plain(label), **_drawn(Look.of(number, count), len(x), ok.sum() > LINE_BINS))


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
