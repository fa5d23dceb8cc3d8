"""The figures that look at single clients: what each may send, how bandwidth is shared, and who is served at all."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from raysoft.report import style
from raysoft.report.run.data import ClientRounds, ClientTable, binned, client_rounds, client_table, rank_map
from raysoft.report.style import Look, new_figure, plain
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


def by_client(runs: Sequence[Run]) -> Figure | None:
    """Kept fraction and bandwidth of each client, ordered by mean gain; one line a run where several are compared."""
    found = tables(runs)
    panels = [
        (label, names)
        for label, names in (
            ("Kept fraction", ("kept_mean_C", "kept_low_C", "kept_high_C")),
            ("Bandwidth (kHz)", ("bandwidth_mean_hz_C", "bandwidth_low_hz_C", "bandwidth_high_hz_C")),
        )
        if any(np.isfinite(getattr(table, names[0])).any() for _, _, _, table in found)
    ]
    if not panels:
        return None
    several = len(runs) > 1
    figure, axes = new_figure(
        1.9 * len(panels) + 0.3 + style.legend_height([run.name for run in runs]), len(panels), 1, sharex=True
    )
    for ax, (label, names) in zip(axes, panels, strict=True):
        factor = 1e-3 if "kHz" in label else 1.0
        seen = []
        for number, run, _, table in found:
            mean, low, high = (factor * getattr(table, name) for name in names)
            seen += [mean] if several else [low, high]
            if several:
                _ranked_line(ax, mean, number, run.name)
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
    ax.plot(centre, mean, linestyle="none", marker="o", color=style.BLUE, markersize=3.2)


def _ranked_line(ax: Axes, value: Array, number: int, label: str) -> None:
    y = binned(value, LINE_BINS)
    x = (np.arange(len(y)) + 0.5) / len(y) * 100
    ok = np.isfinite(y)
    look = Look.of(number)
    ax.plot(x[ok], y[ok], color=look.colour, linestyle=look.line, marker=look.marker, label=plain(label))


def allocation(runs: Sequence[Run]) -> Figure | None:
    """Heat maps of kept fraction and share of bandwidth: rank of the gain in the cohort against the round. One run."""
    found = tables(runs)
    if len(runs) != 1 or not found:
        return None
    rounds = found[0][2]
    maps = [
        (label, np.where(rounds.served_N, value, np.nan))
        for label, value in (
            ("Kept fraction", rounds.kept_fraction_N),
            ("Bandwidth (kHz)", rounds.bandwidth_hz_N * 1e-3),
        )
        if np.isfinite(value[rounds.served_N]).any()  # not where every client was in outage all along
    ]
    numbers = np.unique(rounds.round_N)
    if not maps or not np.isfinite(rounds.gain_db_N).any() or len(numbers) < 2:
        return None
    figure, axes = new_figure(2.7, 1, len(maps), sharey=True)
    for ax, (label, value_N) in zip(axes, maps, strict=True):
        cells = rank_map(rounds, value_N)
        extent = (numbers[0] - 0.5, numbers[-1] + 0.5, 0.0, 100.0)
        image = ax.imshow(
            cells,
            origin="lower",
            aspect="auto",
            extent=extent,
            cmap=style.COLOUR_MAP,
            interpolation="nearest",
            vmin=0.0,
            vmax=_upper(cells),
        )
        bar = figure.colorbar(image, ax=ax, pad=0.02, extend="max" if np.nanmax(cells) > _upper(cells) else "neither")
        bar.set_label(label)
        bar.outline.set_visible(False)
        ax.grid(visible=False)
        ax.set_xlabel("Round")
        ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes[0].set_ylabel("Channel gain in the cohort\n(percentile: 0 weakest)")
    return figure


def _upper(cells: Array) -> float:
    """Top of the colour scale: the 99th percentile, so that one client alone in a round does not darken the rest."""
    return max(float(np.nanpercentile(cells, 99)), 1e-12) if np.isfinite(cells).any() else 1.0


def served(runs: Sequence[Run]) -> Figure | None:
    """Left: how often updates arrive; right: kept fraction against mean gain."""
    found = tables(runs)
    if not found:
        return None
    several = len(runs) > 1
    figure, axes = new_figure(2.8 + style.legend_height([run.name for run in runs]), 1, 2)
    if several:
        for number, run, _, table in found:
            share = 100 * table.delivered_C / np.maximum(table.invited_C, 1)
            _ranked_line(axes[0], share, number, run.name)
            _gain_line(axes[1], table, number, run.name)
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
        ("outage", table.outage_C, "#f2f2f2", "////////"),
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
        ax.plot(binned(table.gain_db_C[ok], LINE_BINS), binned(table.kept_mean_C[ok], LINE_BINS), color=style.BLACK)


def _gain_line(ax: Axes, table: ClientTable, number: int, label: str) -> None:
    ok = np.isfinite(table.gain_db_C) & np.isfinite(table.kept_mean_C)
    look = Look.of(number)
    ax.plot(
        binned(table.gain_db_C[ok], LINE_BINS),
        binned(table.kept_mean_C[ok], LINE_BINS),
        color=look.colour,
        linestyle=look.line,
        marker=look.marker,
        label=plain(label),
    )


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
