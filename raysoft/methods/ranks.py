"""A client's part of the values, by its rank: cut from those of r_max and padded again."""

from __future__ import annotations

from dataclasses import replace

from raysoft.kernels.lowrank import corner, padded
from raysoft.types import Array, ParamSpace, Tensors, Update, Upload, View


def cut_to_rank(theta: Tensors, space: ParamSpace, rank: int) -> dict[str, Array]:
    """The part of the global values that a client of a smaller rank holds (views, no copies)."""
    if rank >= space.rank:
        return dict(theta)
    shapes = space.shapes_at(rank)
    return {name: value[corner(shapes[name])] if name in shapes else value for name, value in theta.items()}


def as_sent(view: View, upload: Upload, space: ParamSpace) -> View:
    """The view of what travels: the client's, cut to the rank that the upload has."""
    if upload.rank is None or upload.rank >= view.rank:
        return view
    return replace(view, rank=upload.rank, start=cut_to_rank(view.start, space, upload.rank))


def pad_to_rank(update: Update, space: ParamSpace) -> dict[str, Array]:
    """A client's update in the server's layout: missing rank components are zero."""
    return {name: padded(value, space.shapes[name]) for name, value in update.items()}
