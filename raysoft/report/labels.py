"""Names written next to the points that they name, without covering each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox

from raysoft.report.style import COLOURS, GREY, SMALL_PT, Look, wrapped
from raysoft.types import Array

LABEL_CHARACTERS = 20  # of a line of a label inside a figure
Segment = tuple[tuple[float, float], tuple[float, float]]  # both ends in data coordinates


def ink(colour: str) -> str:
    """The colour as text on white: darkened until its contrast is 4.5 to 1 (WCAG 2.1, level AA)."""
    rgb = np.array(to_rgb(colour))
    while 1.05 / (_luminance(rgb) + 0.05) < 4.5:
        rgb = 0.95 * rgb
    return to_hex((rgb[0], rgb[1], rgb[2]))


def _luminance(rgb: Array) -> float:
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return float(linear @ np.array([0.2126, 0.7152, 0.0722]))


def looks_of(labels: Sequence[str], looks: Mapping[str, Look] | None = None) -> dict[str, Look]:
    """One look a label: the given one, or by its place; all the same where there are more labels than colours."""
    if len(labels) > len(COLOURS):
        return dict.fromkeys(labels, Look.of(0))
    return {label: (looks or {}).get(label, Look.of(number)) for number, label in enumerate(labels)}


_ANGLES = np.deg2rad([0, 180, 90, 270, 45, 315, 135, 225, 22, 338, 158, 202, 67, 113, 247, 293])
_RADII_PT = (6.0, 9.0, 14.0, 20.0, 28.0, 38.0, 50.0, 65.0, 80.0)


def point_labels(ax: Axes, points: Sequence[tuple[str, float, float, Look]], avoid: Sequence[Segment] = ()) -> None:
    """Name points where there is room: (label, x, y, look); `avoid` are lines to keep free.

    Greedy: each label takes the nearest place that covers no point, no other label and no edge. The layout is final
    afterwards.
    """
    figure = ax.get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # the places are measured in this layout
    scale = figure.dpi / 72
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    inside = ax.get_window_extent(renderer)
    centres = ax.transData.transform([(x, y) for _, x, y, _ in points] or np.empty((0, 2)))
    taken = [_boxes(centres, 3.2 * scale)]  # each [N, 4]: left, lower, right and upper edge in pixels
    for segment in avoid:
        start, end = ax.transData.transform(segment)
        pieces = max(2, int(np.hypot(*(end - start)) / (4 * scale)))
        taken.append(_boxes(np.linspace(start, end, pieces), 0.8 * scale))
    for number, (label, x, y, look) in enumerate(points):
        note = ax.annotate(
            wrapped(label, LABEL_CHARACTERS),
            (x, y),
            xytext=(0, 0),
            textcoords="offset points",
            fontsize=SMALL_PT,
            color=ink(look.colour),
            ha="left",
            va="bottom",
            linespacing=1.0,
        )
        note.set_in_layout(False)
        size = note.get_window_extent(renderer)
        best = _place(centres[number], size, np.concatenate(taken), np.array(inside.extents), scale)
        taken.append(np.array([best.padded(1.5 * scale).extents]))
        taken.append(_leader_boxes(centres[number], best, scale))  # a later name does not cross it
        _move(ax, note, best, centres[number], scale)


def _place(centre: Array, size: Bbox, taken_N4: Array, inside: Array, scale: float) -> Bbox:
    """The first candidate that covers nothing and whose leader crosses nothing, else the one that covers least."""
    candidates: list[tuple[float, int, Bbox]] = []
    for radius in _RADII_PT:
        for angle in _ANGLES:
            dx, dy = np.cos(angle), np.sin(angle)
            x = centre[0] + radius * scale * dx + (dx - 1) / 2 * size.width
            y = centre[1] + radius * scale * dy + (dy - 1) / 2 * size.height
            box = Bbox.from_bounds(x, y, size.width, size.height)
            text = np.array([box.extents])
            covered = _overlap(text, taken_N4) + 4 * _overlap(_leader_boxes(centre, box, scale), taken_N4)
            outside = size.width * size.height - _overlap(text, inside[None])
            if covered + outside <= 1e-6 * size.width * size.height:
                return box
            candidates.append((covered + 4 * outside, len(candidates), box))
    return min(candidates)[2]


def _move(ax: Axes, note: Annotation, box: Bbox, centre: Array, scale: float) -> None:
    """Put the text into `box`, with a leader where it stands away from its point."""
    note.set_position(((box.x0 - centre[0]) / scale, (box.y0 - centre[1]) / scale))
    near = _leader_end(centre, box, scale)
    if near is not None:
        offset = ((near[0] - centre[0]) / scale, (near[1] - centre[1]) / scale)
        leader = ax.annotate(
            "",
            note.xy,
            xytext=offset,
            textcoords="offset points",
            arrowprops={"arrowstyle": "-", "color": GREY, "linewidth": 0.5, "shrinkA": 0, "shrinkB": 3},
        )
        leader.set_in_layout(False)


def _leader_end(centre: Array, box: Bbox, scale: float) -> tuple[float, float] | None:
    """Where the leader from a point to its name ends; None where the name stands close enough without."""
    gap = np.hypot(max(box.x0 - centre[0], centre[0] - box.x1, 0.0), max(box.y0 - centre[1], centre[1] - box.y1, 0.0))
    if gap <= 8 * scale:
        return None
    return float(np.clip(centre[0], box.x0, box.x1)), float(np.clip(centre[1], box.y0, box.y1))


def _leader_boxes(centre: Array, box: Bbox, scale: float) -> Array:
    """A leader as small boxes [N, 4], without its ends, which touch the point and the name."""
    end = _leader_end(centre, box, scale)
    return np.empty((0, 4)) if end is None else _boxes(np.linspace(centre, end, 8)[2:-1], 0.8 * scale)


def _boxes(centre_N2: Array, radius: float) -> Array:
    return np.concatenate([centre_N2 - radius, centre_N2 + radius], axis=1)


def _overlap(one_M4: Array, two_N4: Array) -> float:
    """Sum of the areas that each of the ones shares with each of the others."""
    low_MN2 = np.maximum(one_M4[:, None, :2], two_N4[None, :, :2])
    high_MN2 = np.minimum(one_M4[:, None, 2:], two_N4[None, :, 2:])
    return float(np.prod(np.maximum(high_MN2 - low_MN2, 0.0), axis=2).sum())
