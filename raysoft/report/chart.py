"""A figure that keeps the numbers it shows: they are written as CSV beside it."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO, StringIO
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

BOUNDS = ("y_low", "y_high", "x_low", "x_high", "value", "arm", "seed", "round")
COLUMNS = ("panel", "series", "x_name", "x", "y_name", "y", *BOUNDS[:4], "value_name", *BOUNDS[4:])
LOG = ", log scale"  # behind the label of an axis; the CSV names the quantity alone


@dataclass(frozen=True)
class Noted:
    """N points of a panel: the series of each, its place, further columns by name, and what the numbers are."""

    ax: Axes
    series: Sequence[str]
    x: Sequence[Any]
    y: Sequence[Any]
    bounds: Mapping[str, Sequence[Any]]
    names: tuple[str | None, str | None, str | None]  # of x, y and value; None: the label of the axis


class Chart(Figure):
    """A matplotlib figure in whose panels series are noted as they are drawn."""

    def __init__(self, size_in: tuple[float, float]) -> None:
        super().__init__(figsize=size_in, layout=ConstrainedLayoutEngine(w_pad=0.06, h_pad=0.05))
        FigureCanvasAgg(self)
        self.noted: list[Noted] = []

    def _repr_png_(self) -> bytes:
        """So that a notebook shows it as the value of a cell, without pyplot."""
        buffer = BytesIO()
        self.savefig(buffer, format="png", dpi=90)
        return buffer.getvalue()

    def rows(self) -> Iterator[list[Any]]:
        """The points of all series in the order of COLUMNS, as they are drawn; panels count from 1."""
        places = {ax: number for number, ax in enumerate(dict.fromkeys(one.ax for one in self.noted), start=1)}
        for one in self.noted:
            x_name = _name(one.ax, "x") if one.names[0] is None else one.names[0]
            y_name = _name(one.ax, "y") if one.names[1] is None else one.names[1]
            columns = [one.bounds.get(name, [None] * len(one.x)) for name in BOUNDS]
            for series, x, y, *more in zip(one.series, one.x, one.y, *columns, strict=True):
                yield [places[one.ax], series, x_name, x, y_name, y, *more[:4], one.names[2], *more[4:]]

    def csv(self) -> str:
        """One line a point; numbers with all their digits, nothing for what was not measured."""
        out = StringIO()
        writer = csv.writer(out, lineterminator="\n")
        rows = list(self.rows())
        used = [at for at in range(len(COLUMNS)) if at < 6 or any(row[at] is not None for row in rows)]
        writer.writerow([COLUMNS[at] for at in used])
        for row in rows:
            writer.writerow([_cell(row[at]) for at in used])
        return out.getvalue()


def note(
    ax: Axes,
    series: str | Sequence[str],
    x: Iterable[Any],
    y: Iterable[Any],
    *,
    x_name: str | None = None,
    y_name: str | None = None,
    value_name: str | None = None,
    **bounds: Iterable[Any],
) -> None:
    """Keep what is being drawn in `ax` for the CSV file; `bounds` may be y_low, y_high, x_low, x_high, value, arm,
    seed, round.

    `series`: of all points, or of each. The names say what the numbers are where the labels of the axes do not.
    """
    figure = ax.get_figure(root=True)
    assert isinstance(figure, Chart)
    assert not set(bounds) - set(BOUNDS), bounds
    whole = {name: _plain(values) for name, values in bounds.items()}
    places = _plain(x)
    each = [series] * len(places) if isinstance(series, str) else list(series)
    figure.noted.append(Noted(ax, each, places, _plain(y), whole, (x_name, y_name, value_name)))


def line(ax: Axes, series: str, x: Any, y: Any, **style: Any) -> Any:
    """Plot and note one series; the artist."""
    note(ax, series, x, y)
    (artist,) = ax.plot(x, y, **style)
    return artist


def _plain(values: Iterable[Any]) -> list[Any]:
    return [value.item() if isinstance(value, np.generic) else value for value in values]


def _name(ax: Axes, axis: Literal["x", "y"]) -> str:
    """What an axis shows: its label, that of a panel which shares it, or the panel's title."""
    shared = ax.get_shared_x_axes() if axis == "x" else ax.get_shared_y_axes()
    for one in (ax, *shared.get_siblings(ax)):
        text = one.get_xlabel() if axis == "x" else one.get_ylabel()
        if text:
            return " ".join(text.split()).removesuffix(LOG)
    return " ".join((ax.get_title(loc="left") or ax.get_title()).split()) if axis == "y" else ""


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return ""
    return repr(value) if isinstance(value, float) else str(value).replace("\\$", "$").strip()
