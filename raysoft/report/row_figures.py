"""Figures of a comparison with one named row an arm: paired differences, time to a target, values of single seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from raysoft.report import style
from raysoft.report.chart import Chart, note
from raysoft.report.labels import ink, looks_of
from raysoft.report.style import Look, new_figure, wrapped
from raysoft.types import Array

# Marks of targets: no colours, which are the arms'; from an open circle to black, the harder the darker.
TARGET_LOOKS = (("o", "#ffffff"), ("s", "#c4c4c4"), ("D", style.BLACK), ("^", style.GREY), ("v", style.BLACK))
APART = 0.26  # of a row, between the marks of two targets: those of one value stay visible
ROW_CHARACTERS = 24  # of a line of a row's name
Looks = Mapping[str, Look] | None  # by label, so that an arm looks the same in every figure


@dataclass(frozen=True)
class DifferenceRow:
    """A paired difference to the reference and its interval; `good`: non-inferior, None where not tested."""

    label: str
    value: float
    low: float | None = None
    high: float | None = None
    good: bool | None = None


@dataclass(frozen=True)
class Sample:
    """The values of an arm, one a seed (or one a round, for a distribution)."""

    label: str
    values: Sequence[float] | Array


@dataclass(frozen=True)
class Reach:
    """What an arm needed to reach each target, by the target's name; None where it never did."""

    label: str
    needed: Mapping[str, float | None] = field(default_factory=dict)


def forest(
    differences: Sequence[DifferenceRow],
    x_label: str,
    margin: float | None,
    reference: str,
    lower_is_better: bool = False,
    looks: Looks = None,
) -> Chart | None:
    """Paired differences to the reference with their intervals, best first, the margin of non-inferiority drawn."""
    if not differences:
        return None
    look = looks_of([item.label for item in differences], looks)
    best_last = sorted(differences, key=lambda item: -item.value if lower_is_better else item.value)
    figure, ax = named_rows([item.label for item in best_last], x_label, extra_in=0.22 + 0.15 * (len(reference) > 30))
    for place, item in enumerate(best_last):
        one = look[item.label]
        note(ax, _tested(item.good), [item.value], [item.label], y_name="arm", x_low=[item.low], x_high=[item.high])
        if item.low is not None and item.high is not None:
            ax.plot([item.low, item.high], [place, place], color=one.colour, linewidth=1.6, solid_capstyle="butt")
        ax.plot(
            item.value,
            place,
            marker="o",
            markersize=5,
            color=one.colour,
            markerfacecolor=one.colour if item.good else "white",
        )
    note(ax, reference, [0.0], [""], y_name="arm")
    lines = [ax.axvline(0.0, color=style.GREY, linewidth=1.0, zorder=1, label=f"= {wrapped(reference, 30)}")]
    if margin:
        at = margin if lower_is_better else -margin
        note(ax, "margin", [at], [""], y_name="arm")
        lines.append(ax.axvline(at, color=style.BLACK, linestyle=(0, (4, 2)), linewidth=1.0, zorder=1, label="margin"))
    ax.margins(x=0.08)
    ax.xaxis.set_major_locator(MaxNLocator(5))
    figure.legend(handles=lines, loc="outside upper center", ncols=2, handlelength=2.4)
    return figure


def _tested(good: bool | None) -> str:
    return "not tested" if good is None else "non-inferior" if good else "not shown to be non-inferior"


def time_to(rows: Sequence[Reach], x_label: str, looks: Looks = None) -> Chart | None:
    """What each arm needed to reach the targets; an arm that never reached one has no mark for it."""
    targets = list(dict.fromkeys(name for row in rows for name in row.needed))
    values = np.array([value for row in rows for value in row.needed.values() if value is not None])
    if not len(values):
        return None
    look = looks_of([row.label for row in rows], looks)
    last = targets[-1]
    order = sorted(rows, key=lambda row: _or_never(row, last, targets), reverse=True)
    figure, ax = named_rows([row.label for row in order], x_label, extra_in=0.36, row_in=0.28)
    marks = {name: TARGET_LOOKS[number % len(TARGET_LOOKS)] for number, name in enumerate(targets)}
    middle = (len(targets) - 1) / 2
    lift = {name: min(APART, 0.65 / len(targets)) * (middle - number) for number, name in enumerate(targets)}
    for place, row in enumerate(order):
        path = [(value, place + lift[name]) for name, value in row.needed.items() if value is not None]
        if path:
            ax.plot(*zip(*path, strict=True), color=look[row.label].colour, linewidth=0.8, zorder=1)
    for name, (marker, colour) in marks.items():
        seen = [(value, place) for place, row in enumerate(order) if (value := row.needed.get(name)) is not None]
        x, y = zip(*seen, strict=True) if seen else ((), ())
        note(ax, name, x, [order[place].label for place in y], y_name="arm")
        ax.plot(
            x,
            [place + lift[name] for place in y],
            linestyle="none",
            marker=marker,
            color=colour,
            markeredgecolor=style.BLACK,
            markeredgewidth=0.8,
            markersize=4,
            label=name,
        )
    coloured = order if len(order) <= len(style.COLOURS) else []
    for tick, row in zip(ax.get_yticklabels(), coloured, strict=False):
        tick.set_color(ink(look[row.label].colour))
    if values.min() > 0 and values.max() >= 4 * values.min():
        style.log_x(ax)
        ax.margins(x=0.08)
        style.plain_log_ticks(ax.xaxis)
    else:
        ax.set_xlim(left=0)
    figure.legend(loc="outside upper center", ncols=len(targets), handlelength=1.0, columnspacing=1.2)
    return figure


def _or_never(row: Reach, last: str, targets: Sequence[str]) -> tuple[float, ...]:
    """Order of arms: by what the hardest target took, then by the easier ones; never comes last."""
    names = [last, *reversed(targets[:-1])]
    return tuple(np.inf if row.needed.get(name) is None else float(row.needed[name] or 0.0) for name in names)


def dots(samples: Sequence[Sample], x_label: str, level: float | None = None, looks: Looks = None) -> Chart | None:
    """Each seed of each arm as a dot, its mean as a bar, best mean on top; `level` is a line to compare with."""
    filled = [item for item in samples if len(item.values)]
    if not filled:
        return None
    look = looks_of([item.label for item in samples], looks)
    order = sorted(filled, key=lambda item: float(np.mean(item.values)))
    figure, ax = named_rows([item.label for item in order], x_label)
    if level is not None:
        ax.axvline(level, color=style.GREY, linewidth=1.0, zorder=1)
    for place, item in enumerate(order):
        one = look[item.label]
        note(ax, "seed", item.values, [item.label] * len(item.values), y_name="arm")
        note(ax, "mean", [float(np.mean(item.values))], [item.label], y_name="arm")
        ax.plot(
            item.values,
            [place] * len(item.values),
            linestyle="none",
            marker="o",
            markersize=4,
            markerfacecolor="none",
            markeredgewidth=0.8,
            color=one.colour,
        )
        mean = float(np.mean(item.values))
        ax.plot([mean, mean], [place - 0.32, place + 0.32], color=one.colour, linewidth=2.2)
    ax.margins(x=0.06)
    ax.xaxis.set_major_locator(MaxNLocator(5))
    return figure


def named_rows(labels: Sequence[str], x_label: str, extra_in: float = 0.0, row_in: float = 0.0) -> tuple[Chart, Axes]:
    """Axes with one row an arm under its whole name, first at the bottom.

    `extra_in`: inches for what stands above; `row_in`: of a row at least.
    """
    names = [wrapped(label, ROW_CHARACTERS) for label in labels]
    most = max((name.count("\n") + 1 for name in names), default=1)
    figure, (ax,) = new_figure(0.75 + extra_in + max(0.06 + 0.135 * most, row_in) * max(len(labels), 3))
    ax.set_yticks(range(len(labels)), names)
    ax.set_ylim(-0.6, len(labels) - 0.4)
    ax.tick_params(axis="y", length=0)
    ax.grid(visible=False, axis="y")
    ax.set_xlabel(x_label)
    return figure, ax
