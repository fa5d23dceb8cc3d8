"""FedYogi: FedAdam whose mean square moves by steps of the size of D^2, so that it forgets slowly.

Source: Reddi et al., "Adaptive Federated Optimization", ICLR 2021 (arXiv 2003.00295).

With D the change that the method proposes, value by value,

    m = beta1 m + (1 - beta1) D,   v = v - (1 - beta2) D^2 sign(v - D^2),   theta = theta + lr m / (sqrt(v) + tau),

from m = 0 and v = tau^2, without bias correction, as in the paper. A rare large change is remembered longer than by
Adam. Momentum goes on where D = 0, and rests where nobody arrived. Nothing more is sent. The size of the step is `lr`,
so `method.server_lr` stays 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from raysoft.config import Momentum, Positive, Traits
from raysoft.methods.extras.base import ExtraConfig, ExtraContext, Plain
from raysoft.methods.rules.server_step import Moments, stepped
from raysoft.types import Array, Reception, ServerState


class Config(ExtraConfig):
    """`lr` is the length of a step of a value whose changes all point one way; `tau` bounds those of small ones."""

    TRAITS: ClassVar[Traits] = Traits(server_step=True)

    lr: Positive = 1e-3
    """Step of the server. [1]"""
    beta1: Momentum = 0.9
    """Share of the mean change that is kept in a step. [1]"""
    beta2: Momentum = 0.99
    """One minus the share of a squared change by which the mean square moves. [1]"""
    tau: Positive = 1e-3
    """Added to the root: how far the steps adapt; larger, less. [1]"""


@dataclass(frozen=True)
class FedYogi(Plain):
    """See the module."""

    config: Config

    def step(self, before: ServerState, proposed: ServerState, received: Reception) -> ServerState:
        """Yogi's."""
        first = {"m": 0.0, "v": self.config.tau**2}
        return stepped(before, proposed, received, name="fedyogi", first=first, rule=self.rule)

    def rule(self, change: Array, moments: Moments) -> tuple[Array, Moments]:
        """The step, and the moments after it."""
        c, square = self.config, change**2
        m = c.beta1 * moments["m"] + (1.0 - c.beta1) * change
        v = moments["v"] - (1.0 - c.beta2) * square * np.sign(moments["v"] - square)
        return c.lr * m / (np.sqrt(v) + c.tau), {"m": m, "v": v}


def build(config: Config, context: ExtraContext) -> FedYogi:
    """The extra."""
    return FedYogi(config)
