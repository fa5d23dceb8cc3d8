"""How every figure looks: colours for colour-blind readers, dashes and markers for print without colour, 8.5 pt text.

Colours: Okabe and Ito, "Color Universal Design" (2008), without the yellow, which vanishes on paper. Figures are
7 inches wide (the text width of a page), so that the sizes below are the printed sizes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from matplotlib import rc_context, rcdefaults, rcParams
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from raysoft.types import Array

WIDTH_IN = 7.0
COLUMN_IN = 3.5  # figures that stand side by side, still readable in a column of 7 cm
DPI = 200
FONT_PT = 8.5
BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, BLACK = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#000000",
)
COLOURS = (BLUE, VERMILLION, GREEN, PURPLE, BLACK, ORANGE, SKY)
LINES: tuple[Any, ...] = ("-", "--", "-.", (0, (1, 1)), (0, (5, 1, 1, 1, 1, 1)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
GREY = "#6b6b6b"
SPREAD = 8.0  # largest over median value from which an axis is logarithmic
COLOUR_MAP = "cividis"  # perceptually uniform, readable in grey and with every colour deficiency
_SETTINGS: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": FONT_PT,
    "axes.titlesize": FONT_PT,
    "axes.labelsize": FONT_PT,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#d9d9d9",
    "grid.linewidth": 0.5,
    "axes.axisbelow": True,
    "lines.linewidth": 1.4,
    "lines.markersize": 4.0,
    "legend.frameon": False,
    "hatch.linewidth": 0.6,
    "text.usetex": False,
    "axes.unicode_minus": True,
}


@contextmanager
def settings() -> Iterator[None]:
    """matplotlib's settings for the time of drawing; the user's own are back afterwards."""
    with rc_context():
        rcdefaults()
        for key, value in _SETTINGS.items():
            rcParams[key] = value  # type: ignore[index]
        yield


class Picture(Figure):
    """A figure that a notebook shows as the value of a cell, without pyplot."""

    def _repr_png_(self) -> bytes:
        buffer = BytesIO()
        self.savefig(buffer, format="png", dpi=DPI / 2)
        return buffer.getvalue()


def new_figure(
    height_in: float, rows: int = 1, columns: int = 1, width_in: float = WIDTH_IN, **kwargs: Any
) -> tuple[Figure, list[Axes]]:
    """A figure and its axes, row by row. No pyplot: nothing global, nothing left open."""
    figure = Picture(figsize=(width_in, height_in), layout=ConstrainedLayoutEngine(w_pad=0.06, h_pad=0.05))
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False, **kwargs)
    return figure, list(axes.flat)


@dataclass(frozen=True)
class Look:
    """Colour, dashes and marker of one run among several."""

    colour: str
    line: Any
    marker: str

    @classmethod
    def of(cls, number: int) -> Look:
        """The look of run `number`; combinations repeat after 315 runs only."""
        return cls(COLOURS[number % len(COLOURS)], LINES[number % len(LINES)], MARKERS[number % len(MARKERS)])


def plain(text: str, limit: int = 36) -> str:
    """Any text as a label: on one line, not taken for mathematics or hidden from a legend, shortened in the middle."""
    text = "".join(char if char.isprintable() else " " for char in text).strip() or "(unnamed)"
    if len(text) > limit:
        head = (limit - 1) // 2
        text = f"{text[:head]}…{text[-(limit - 1 - head) :]}"
    return (" " if text.startswith("_") else "") + text.replace("$", r"\$")


def marks_every(points: int, number: int) -> tuple[int, int]:
    """About eight markers a line, shifted from run to run so that they do not cover each other."""
    step = max(1, points // 8)
    return (number * 2) % step if step > 1 else 0, step


def log_if_spread(ax: Axes, values: Array) -> bool:
    """Logarithmic y axis with plain numbers at 1, 2, 5 where a few large values would flatten all others."""
    ok = values[np.isfinite(values)]
    if not len(ok) or ok.min() <= 0 or ok.max() < SPREAD * np.median(ok):
        return False
    ax.set_yscale("log")
    plain_log_ticks(ax.yaxis, subs=(1.0, 2.0, 5.0))
    return True


def plain_log_ticks(axis: Axis, subs: Sequence[float] | None = None) -> None:
    """Plain numbers on a logarithmic axis: at 1, 2, 5 over few decades, closer within one, fewer over many."""
    if subs is None:
        low, high = sorted(axis.get_view_interval())
        decades = np.log10(high / low)
        few = (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0) if decades < 0.7 else (1.0, 2.0, 5.0)
        subs = few if decades < 1.6 else (1.0, 3.0) if decades < 2.5 else (1.0,)
    axis.set_major_locator(LogLocator(subs=tuple(subs)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())


def legend_columns(labels: Sequence[str], width_in: float = WIDTH_IN) -> int:
    """How many entries of a legend fit into one row of a figure."""
    widest = max((len(plain(label)) for label in labels), default=1)
    return max(1, min(len(labels), int((width_in - 0.2) / (0.6 + 0.075 * widest))))


def legend_height(labels: Sequence[str]) -> float:
    """Inches that a legend above the panels needs; 0 for a single run, which has none."""
    return 0.0 if len(labels) < 2 else 0.1 + 0.2 * -(-len(labels) // legend_columns(labels))


def legend_above(figure: Figure, ax: Axes) -> None:
    """One legend for all panels, above them, from the lines of one of them."""
    handles, labels = ax.get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside upper center", ncols=legend_columns(labels), handlelength=3.2)
