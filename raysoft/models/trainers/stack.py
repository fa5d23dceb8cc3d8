"""The parameters of K clients as one matrix [K, P]: a row per client, smaller ranks padded with zeros.

One buffer makes clipping and the optimiser a handful of operations; each named parameter is a view into it. Padding
stays zero by itself (a zero row of A only ever meets a zero column of B) and is masked as well, so that a loss term
cannot move it either.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor

from raysoft.errors import RaysoftError
from raysoft.kernels.lowrank import corner
from raysoft.types import Array, LocalJob, ParamSpace, Tensors


class StackLayout:
    """Where each parameter lies in a row; LoRA factors first, then the head."""

    def __init__(self, space: ParamSpace) -> None:
        self.space = space
        self.spans: dict[str, slice] = {}
        offset = 0
        for name, shape in space.shapes.items():
            size = int(np.prod(shape))
            self.spans[name] = slice(offset, offset + size)
            offset += size
        self.size = offset

    def views(self, rows_KP: Tensor) -> dict[str, Tensor]:
        """Every parameter as a view [K, *shape]."""
        clients = len(rows_KP)
        return {name: rows_KP[:, span].view(clients, *self.space.shapes[name]) for name, span in self.spans.items()}

    def stack(self, values: Sequence[Tensors]) -> Array:
        """Rows of float32, zero where a client's rank is smaller. Raises RaysoftError for a missing name."""
        rows = np.zeros((len(values), self.size), dtype=np.float32)
        for row, tensors in zip(rows, values, strict=True):
            for name, span in self.spans.items():
                if name not in tensors:
                    raise RaysoftError(f"a client starts without a value for {name}")
                block = row[span].reshape(self.space.shapes[name])
                block[corner(tensors[name].shape)] = tensors[name]
        return rows

    def unstack(self, row_P: Array, like: Tensors) -> dict[str, Array]:
        """Copies of one client's parameters in the shapes of `like`."""
        return {
            name: row_P[span].reshape(self.space.shapes[name])[corner(like[name].shape)].copy()
            for name, span in self.spans.items()
        }

    def live(self, jobs: Sequence[LocalJob]) -> Array | None:
        """True where a client trains a value of its own, [K, P]; None where that is everywhere."""
        mask = np.zeros((len(jobs), self.size), dtype=bool)
        for row, job in zip(mask, jobs, strict=True):
            for name, span in self.spans.items():
                if job.trains is None or name in job.trains:
                    row[span].reshape(self.space.shapes[name])[corner(job.start[name].shape)] = True
        return None if mask.all() else mask

    def linear(self, jobs: Sequence[LocalJob]) -> Array | None:
        """What is added to every gradient, [K, P] float32; None where it is nothing."""
        if not any(job.linear for job in jobs):
            return None
        rows = np.zeros((len(jobs), self.size), dtype=np.float32)
        for row, job in zip(rows, jobs, strict=True):
            for name, value in (job.linear or {}).items():
                row[self.spans[name]].reshape(self.space.shapes[name])[corner(value.shape)] = value
        return rows

    def rates(self, lr: float, head_lr: float | None) -> Array:
        """The learning rate of each value, [1, P] float32."""
        rates = np.full((1, self.size), lr, dtype=np.float32)
        for name in self.space.always_sent if head_lr is not None else ():
            rates[:, self.spans[name]] = head_lr
        return rates


def gather(state: Mapping[str, Tensor], rows: Tensor) -> dict[str, Tensor]:
    """Copies of some clients' rows."""
    return {name: value.index_select(0, rows) for name, value in state.items()}


def scatter(state: Mapping[str, Tensor], rows: Tensor, part: Mapping[str, Tensor]) -> None:
    """Write them back."""
    for name, value in state.items():
        value.index_copy_(0, rows, part[name])
