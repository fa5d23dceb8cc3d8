"""How every figure looks: one column or one page wide, 8 to 8.5 pt text, arms that differ in grey as in colour.

Widths are those of a two-column paper (IEEE: 3.5 and 7.16 inches), so that the sizes below are the printed sizes.
The hues of the arms follow Okabe and Ito, "Color Universal Design" (2008); their lightness is spaced evenly, so that
print without colour and every colour deficiency leave them apart. Dashes and markers say the same once more.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import colormaps, rc_context, rcdefaults, rcParams
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from raysoft.config import FigureWidth
from raysoft.report.chart import LOG, Chart
from raysoft.types import Array

WIDTHS_IN: dict[FigureWidth, float] = {"column": 3.5, "page": 7.16}
COLUMN_IN, PAGE_IN = WIDTHS_IN["column"], WIDTHS_IN["page"]
DPI = 200
FONT_PT = 8.5
SMALL_PT = 8.0
# Their lightness (CIE L*) is 34, 52, 0, 65, 17 and 77: at least 11 apart, and 23 from white.
BLUE, VERMILLION, BLACK, GREEN, PURPLE, ORANGE = ("#0a4f8f", "#c8501e", "#000000", "#2ca587", "#47104f", "#e6b044")
COLOURS = (BLUE, VERMILLION, BLACK, GREEN, PURPLE, ORANGE)
SKY = "#8cc5e8"  # areas and ranges behind BLUE
PALE = "#f2f2f2"
FAINT = "#c4c4c4"  # what stands behind the one that is looked at
LINES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1, 1)), (0, (6, 1.5, 1, 1.5)), (0, (3, 1)), (0, (5, 1, 1, 1, 1, 1)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
GREY = "#6b6b6b"
SPREAD = 8.0  # largest over median value from which an axis is logarithmic
FEW = 25  # a line of at most so many points has a marker at each, a longer one has none
COLOUR_MAP = "cividis"  # perceptually uniform, readable in grey and with every colour deficiency
COUNT_MAP = "Blues"  # from white at nothing to dark, just as readable
_SETTINGS: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": FONT_PT,
    "axes.titlesize": FONT_PT,
    "axes.labelsize": FONT_PT,
    "xtick.labelsize": SMALL_PT,
    "ytick.labelsize": SMALL_PT,
    "legend.fontsize": SMALL_PT,
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
    "pdf.fonttype": 42,  # TrueType, which publishers ask for and editors can change
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "raysoft",  # the same identifiers every time
}
_WIDTH: ContextVar[FigureWidth] = ContextVar("width", default="page")


@contextmanager
def settings(width: FigureWidth = "page") -> Iterator[None]:
    """matplotlib's settings and the width for the time of drawing; the user's own are back afterwards."""
    token = _WIDTH.set(width)
    try:
        with rc_context():
            rcdefaults()
            for key, value in _SETTINGS.items():
                rcParams[key] = value  # type: ignore[index]
            yield
    finally:
        _WIDTH.reset(token)


def width_in() -> float:
    """How wide figures are drawn at the moment, in inches."""
    return WIDTHS_IN[_WIDTH.get()]


def is_column() -> bool:
    """Whether figures are drawn for one column of a paper."""
    return _WIDTH.get() == "column"


def new_figure(
    height_in: float, rows: int = 1, columns: int = 1, width: float | None = None, **kwargs: Any
) -> tuple[Chart, list[Axes]]:
    """A figure and its axes, row by row, of the current width. No pyplot: nothing global, nothing left open."""
    figure = Chart((width_in() if width is None else width, height_in))
    axes = figure.subplots(rows, columns, squeeze=False, **kwargs)
    return figure, list(axes.flat)


def panels(
    count: int, row_in: float, columns: int, *, extra_in: float = 0.0, most_in_column: int = 1, **kwargs: Any
) -> tuple[Chart, list[Axes]]:
    """`count` axes, up to `columns` beside each other on a page; in a column at most `most_in_column`. Spare: hidden.

    `row_in`: height of a row; `extra_in`: what stands above the rows.
    """
    across = min(count, most_in_column if is_column() else columns)
    down = -(-count // across)
    figure, axes = new_figure(row_in * down + extra_in, down, across, **kwargs)
    for ax in axes[count:]:
        ax.set_visible(False)
    return figure, axes[:count]


@dataclass(frozen=True)
class Look:
    """Colour, dashes and marker of one run among several."""

    colour: str
    line: Any
    marker: str

    @classmethod
    def of(cls, number: int, count: int = 0) -> Look:
        """The look of run `number` of `count`; above as many as there are COLOURS they are steps of one scale."""
        if max(count, number + 1) > len(COLOURS):
            step = number / max(count - 1, number, 1)
            colour = to_hex(colormaps[COLOUR_MAP](0.95 * step))
        else:
            colour = COLOURS[number]
        return cls(colour, LINES[number % len(LINES)], MARKERS[number % len(MARKERS)])

    def line_style(self, points: int) -> dict[str, Any]:
        """How a line of so many points is drawn: a marker is a point that was measured, or there is none."""
        marked = {"marker": self.marker, "markersize": 3.2} if points <= FEW else {}
        return {"color": self.colour, "linestyle": self.line, **marked}


def plain(text: str, limit: int = 130) -> str:
    """Any text as a label: on one line, not taken for mathematics or hidden from a legend; nothing shortens a name
    that a configuration allows, what is longer still is cut in the middle."""
    text = "".join(char if char.isprintable() else " " for char in text).strip() or "(unnamed)"
    if len(text) > limit:
        head = (limit - 1) // 2
        text = f"{text[:head]}…{text[-(limit - 1 - head) :]}"
    return (" " if text.startswith("_") else "") + text.replace("$", r"\$")


def wrapped(text: str, width: int) -> str:
    """The same on as many lines as it needs, broken at blanks, '-' and '_' where there are any."""
    lines = [""]
    word = ""
    for char in plain(text):
        word += char
        if char in " -_/=," or len(word) >= width:
            lines, word = _with_word(lines, word, width), ""
    return "\n".join(line.rstrip() for line in _with_word(lines, word, width) if line.strip())


def _with_word(lines: list[str], word: str, width: int) -> list[str]:
    fits = len(lines[-1]) + len(word.rstrip()) <= width
    return [*lines[:-1], lines[-1] + word] if fits or not lines[-1] else [*lines, word]


def log_if_spread(ax: Axes, values: Array) -> bool:
    """Logarithmic y axis with plain numbers at 1, 2, 5 where a few large values would flatten all others."""
    ok = values[np.isfinite(values)]
    if not len(ok) or ok.min() <= 0 or ok.max() < SPREAD * np.median(ok):
        return False
    ax.set_yscale("log")
    plain_log_ticks(ax.yaxis, subs=(1.0, 2.0, 5.0))
    return True


def log_x(ax: Axes) -> None:
    """A logarithmic x axis, whose label says so; to be called once the label is there."""
    ax.set_xscale("log")
    label = ax.get_xlabel()
    ax.set_xlabel(label + (LOG.replace(" ", "\n", 1) if "\n" in label else LOG))


def plain_log_ticks(axis: Axis, subs: Sequence[float] | None = None, few: bool = False) -> None:
    """Plain numbers on a logarithmic axis: at 1, 2, 5 over few decades, closer within one, fewer over many.

    `few`: for a narrow panel.
    """
    if subs is None:
        low, high = sorted(axis.get_view_interval())
        decades = np.log10(high / low) * (2.5 if few else 1.0)
        close = (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0) if decades < 0.7 else (1.0, 2.0, 5.0)
        subs = close if decades < 1.6 else (1.0, 3.0) if decades < 2.5 else (1.0,)
    axis.set_major_locator(LogLocator(subs=tuple(subs)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())


LEGEND_CHARACTERS = 44  # of a line of a legend


def legend_columns(labels: Sequence[str]) -> int:
    """How many entries of a legend fit into one row of a figure of the current width."""
    widest = max((len(line) for label in labels for line in _entry(label).split("\n")), default=1)
    return max(1, min(len(labels), int((width_in() - 0.2) / (0.62 + 0.072 * widest))))


def _entry(label: str) -> str:
    return wrapped(label.replace("\\$", "$"), LEGEND_CHARACTERS if not is_column() else 36)


def legend_height(labels: Sequence[str], alone: bool = False) -> float:
    """Inches that a legend above the panels needs; 0 for a single run, which has none unless `alone`."""
    if len(labels) < (1 if alone else 2):
        return 0.0
    across = legend_columns(labels)
    rows = [labels[first : first + across] for first in range(0, len(labels), across)]
    return 0.1 + 0.17 * sum(max(_entry(label).count("\n") + 1 for label in row) for row in rows)


def legend_above(figure: Figure, ax: Axes) -> None:
    """One legend for all panels, above them, from the lines of one of them."""
    handles, labels = ax.get_legend_handles_labels()
    if handles:
        entries = [_entry(label) for label in labels]
        across = legend_columns(labels)
        figure.legend(handles, entries, loc="outside upper center", ncols=across, handlelength=3.2, columnspacing=1.2)


def lightness(colour: str) -> float:
    """CIE L* of a colour, 0 (black) to 100 (white): what is left of it in grey."""
    rgb = np.array([int(to_hex(colour)[at : at + 2], 16) / 255 for at in (1, 3, 5)])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    y = float(linear @ np.array([0.2126, 0.7152, 0.0722]))
    return 116 * y ** (1 / 3) - 16 if y > (6 / 29) ** 3 else y * (29 / 3) ** 3
