"""SCAFFOLD: control variates take the drift out of local steps, in a form that is right under momentum.

Source: Karimireddy et al., "SCAFFOLD: Stochastic Controlled Averaging for Federated Learning", ICML 2020 (arXiv
1910.06378).

A client steps along g - c_k + c. Its new control variate is the mean gradient of its steps, read off what it moved:

    c_k+ = c_k - c + (w_t - w_k) / (eta a),   a = sum_{s < tau} (1 - beta^(tau - s)) / (1 - beta),

tau steps of SGD with momentum beta at learning rate eta. At beta = 0 a is tau, the paper's option II; that one with
momentum diverges, since a step then moves the values many times over. The server keeps c <- c + sum (c_k+ - c_k) / N
over the N clients there are. The change of c_k travels beside the update and c beside the model, as exact float32, so
traffic doubles both ways; a change that is lost is not remembered either.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from raysoft.config import Traits
from raysoft.methods.extras.base import ExtraConfig, ExtraContext, Plain
from raysoft.types import Array, LocalJob, Reception, ServerState, Tensors, Upload, View

C = "scaffold/"


class Config(ExtraConfig):
    """Nothing to choose; needs SGD without weight decay and clipping, whose steps the formula describes."""

    TRAITS: ClassVar[Traits] = Traits(plain_sgd=True, side_sums=True, fixed_gauge=True)


def steps_moved(steps: int, momentum: float) -> float:
    """a: by how many learning rates a constant gradient moves the values in so many steps.

    >>> steps_moved(5, 0.0), steps_moved(2, 0.5)
    (5.0, 2.5)
    """
    return float(sum((1.0 - momentum**left) / (1.0 - momentum) for left in range(1, steps + 1)))


@dataclass(frozen=True)
class Scaffold(Plain):
    """See the module."""

    context: ExtraContext

    def side(self, server: ServerState) -> Tensors:
        """c, zero at first."""
        return {name: self._c(server, name) for name in server.theta}

    def local(self, job: LocalJob, view: View, memory: Tensors, rng: np.random.Generator) -> LocalJob:
        """The gradient of every step plus c - c_k."""
        mean = self._mean(view)
        own = {name: mean[name] - self._own(memory, view, name) for name in view.trains}
        both = {name: own[name] + job.linear[name] for name in own} if job.linear else own
        return replace(job, linear=both)

    def upload(
        self, upload: Upload, job: LocalJob, end: Tensors, view: View, memory: Tensors, rng: np.random.Generator
    ) -> Upload:
        """Beside the update the change of c_k, and c_k+ for the memory if it arrives."""
        mean, after, side = self._mean(view), {}, {}
        for name in sorted(view.trains):
            start, moved = view.start[name].astype(np.float64), steps_moved(job.steps, self.context.train.momentum)
            gradient = (start - end[name]) / (self._rate(name) * moved)
            change = (gradient - mean[name]).astype(np.float32)
            side[name] = change
            after[name] = self._own(memory, view, name) + change
        return replace(upload, side=side, memory_if_delivered=after, memory_if_lost=memory)

    def step(self, before: ServerState, proposed: ServerState, received: Reception) -> ServerState:
        """c moves by what arrived, divided by all clients that there are."""
        moved = {
            C + name: (self._c(before, name) + received.side[name] / self.context.clients).astype(np.float32)
            for name in before.theta
            if name in received.side
        }
        return replace(proposed, extra={**proposed.extra, **moved})

    def _c(self, server: ServerState, name: str) -> Array:
        known = server.extra.get(C + name)
        return np.zeros_like(server.theta[name]) if known is None else known

    def _mean(self, view: View) -> Tensors:
        """c at the client's rank, of what is trained."""
        return {name: value[tuple(map(slice, view.start[name].shape))] for name, value in view.side.items()}

    def _own(self, memory: Tensors, view: View, name: str) -> Array:
        """c_k, zero at first and after a change of rank."""
        known = memory.get(name)
        start = view.start[name]
        return np.zeros_like(start) if known is None or known.shape != start.shape else known

    def _rate(self, name: str) -> float:
        train, heads = self.context.train, self.context.space.always_sent
        return train.head_lr if train.head_lr is not None and name in heads else train.lr


def build(config: Config, context: ExtraContext) -> Scaffold:
    """The extra."""
    return Scaffold(context)
