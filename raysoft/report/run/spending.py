"""Figures of what a round consists of: one round client by client, and where seconds, joules and bits went."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from raysoft.report import style
from raysoft.report.chart import Chart, note
from raysoft.report.run.data import DELIVERED
from raysoft.report.run.phases import (
    PHASES,
    ClientPhases,
    bits_split,
    client_phases,
    joules_split,
    seconds_split,
    typical_round,
)
from raysoft.report.style import panels, plain, wrapped
from raysoft.rundir.reading import Run

MOST_ROWS = 30  # clients of a timeline
# Told apart by lightness first, by hatching where neighbours are close.
_LOOKS = {
    "downlink": (style.PURPLE, ""),
    "training": (style.BLUE, ""),
    "control": (style.BLACK, ""),
    "upload": (style.ORANGE, ""),
    "waiting": (style.PALE, "//////"),
}
_SCALES = ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""), (1e-3, "m"), (1e-6, "µ"))


def timeline(runs: Sequence[Run]) -> Chart | None:
    """The round of median length, a row a client in the order in which they were done. One run."""
    phases = client_phases(runs[0]) if len(runs) == 1 else None
    if phases is None:
        return None
    number = typical_round(phases)
    chosen = np.flatnonzero(phases.round_N == number)
    seconds = phases.seconds_N5[chosen]
    ready = np.round(seconds[:, :4].sum(axis=1) / seconds.sum(axis=1), 4)  # those who end together: by number
    order = np.lexsort((phases.id_N[chosen], ready))
    if len(order) > MOST_ROWS:
        order = order[np.linspace(0, len(order) - 1, MOST_ROWS).round().astype(int)]
    rows = chosen[order]
    figure, (ax,) = style.new_figure(0.65 + _legend_in() + 0.155 * max(len(rows), 4))
    ax.set(xlabel=f"Seconds since round {number} began", ylabel="Client")
    _spans(ax, phases, rows.tolist())
    ax.set_yticks(range(len(rows)), [str(phases.id_N[row]) for row in rows])
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    ax.grid(visible=False, axis="y")
    ax.margins(x=0)
    ax.xaxis.set_major_locator(MaxNLocator(6))
    _legend(figure, [name for at, name in enumerate(PHASES) if phases.seconds_N5[rows, at].any()])
    return figure


def _spans(ax: Axes, phases: ClientPhases, rows: Sequence[int]) -> None:
    """The bars of a timeline, and why an update did not arrive."""
    starts = np.cumsum(phases.seconds_N5[rows], axis=1) - phases.seconds_N5[rows]
    for at, name in enumerate(PHASES):
        width = phases.seconds_N5[rows, at]
        if not width.any():
            continue
        colour, hatch = _LOOKS[name]
        ax.barh(
            range(len(rows)), width, left=starts[:, at], height=0.72, color=colour, hatch=hatch, edgecolor="#8a8a8a",
            linewidth=0.3,
        )  # fmt: skip
        note(
            ax,
            name,
            width,
            [f"client {phases.id_N[row]}" for row in rows],
            x_low=starts[:, at],
            x_high=starts[:, at] + width,
        )
    for place, row in enumerate(rows):
        if phases.status_N[row] != DELIVERED:
            ax.annotate(
                plain(str(phases.status_N[row])),
                (1.0, place),
                xycoords=("axes fraction", "data"),
                xytext=(-3, 0),
                textcoords="offset points",
                ha="right",
                va="center",
                fontsize=style.SMALL_PT,
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.4},
            )


def split(runs: Sequence[Run]) -> Chart | None:
    """Three stacked bars a run: seconds of an average client and round, joules and bits of the whole run."""
    found = [
        (title, unit, rows)
        for title, unit, rows in (
            ("Time of a client in a round", "s", [seconds_split(run) for run in runs]),
            ("Energy of all devices", "J", [joules_split(run) for run in runs]),
            ("Bits on the air", "bit", [bits_split(run) for run in runs]),
        )
        if any(rows)
    ]
    if not found:
        return None
    names = [name for name in PHASES if any(row.get(name) for _, _, rows in found for row in rows)]
    labels = [wrapped(run.name, 22) for run in runs] if len(runs) > 1 else [""]
    bars = sum(label.count("\n") + 1 for label in labels)
    row_in = 0.62 + 0.17 * max(bars, 2)
    figure, axes = panels(len(found), row_in, 3, extra_in=_legend_in(), sharey=True)
    for ax, (title, unit, rows) in zip(axes, found, strict=True):
        _stack(ax, title, unit, rows, [run.name for run in runs], names)
        ax.set_yticks(range(len(runs)), labels)
        ax.set_ylim(len(runs) - 0.4, -0.6)
    _legend(figure, names)
    return figure


def _stack(
    ax: Axes, title: str, unit: str, rows: Sequence[dict[str, float]], runs: Sequence[str], names: Sequence[str]
) -> None:
    largest = max((sum(row.values()) for row in rows), default=0.0)
    factor, prefix = next((pair for pair in _SCALES if largest >= pair[0]), _SCALES[-1])
    ax.set_xlabel(f"{title} ({prefix}{unit})")
    left = np.zeros(len(rows))
    for name in names:
        width = np.array([row.get(name, 0.0) for row in rows]) / factor
        if not width.any():
            continue
        colour, hatch = _LOOKS[name]
        ax.barh(
            range(len(rows)), width, left=left, height=0.62, color=colour, hatch=hatch, edgecolor="#8a8a8a",
            linewidth=0.3,
        )  # fmt: skip
        note(ax, name, width, runs, y_name="run", x_low=left, x_high=left + width)
        left = left + width
    ax.tick_params(axis="y", length=0)
    ax.grid(visible=False, axis="y")
    ax.set_xlim(left=0)
    ax.xaxis.set_major_locator(MaxNLocator(4))


def _legend_in() -> float:
    return 0.47 if style.is_column() else 0.3


def _legend(figure: Chart, names: Sequence[str]) -> None:
    """One entry a phase, above the panels."""
    from matplotlib.patches import Patch

    marks = [
        Patch(facecolor=_LOOKS[name][0], hatch=_LOOKS[name][1], edgecolor="#8a8a8a", linewidth=0.3, label=name)
        for name in names
    ]
    across = 3 if style.is_column() else len(marks)
    figure.legend(handles=marks, loc="outside upper center", ncols=across, handlelength=1.2, columnspacing=1.0)


def describe(run: Run) -> str:
    """The split in numbers."""
    parts = []
    for what, unit, found in (
        ("an average client's round", "s", seconds_split(run)),
        ("energy", "J", joules_split(run)),
        ("bits", "bit", bits_split(run)),
    ):
        if found:
            parts.append(what + " " + ", ".join(f"{name} {value:.3g} {unit}" for name, value in found.items()))
    return "; ".join(parts) + "." if parts else "not measured."
