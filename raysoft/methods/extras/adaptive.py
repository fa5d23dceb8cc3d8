"""What FedAdam and FedYogi share: a step along the mean change, divided by the root of a mean square.

Source: Reddi et al., "Adaptive Federated Optimization", ICLR 2021 (arXiv 2003.00295), Algorithm 2.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from raysoft.config import Momentum, Positive, Traits
from raysoft.methods.extras.base import ExtraConfig, Plain
from raysoft.methods.rules.server_step import Moments, stepped
from raysoft.types import Array, Reception, ServerState


class AdaptiveConfig(ExtraConfig):
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
class Adaptive(Plain):
    """`name`: under which moments are kept. `next_square`: (mean square, squared change, beta2) -> the next one."""

    config: AdaptiveConfig
    name: str
    next_square: Callable[[Array, Array, float], Array]

    def step(self, before: ServerState, proposed: ServerState, received: Reception) -> ServerState:
        """The server's, from m = 0 and v = tau^2."""
        first = {"m": 0.0, "v": self.config.tau**2}
        return stepped(before, proposed, received, name=self.name, first=first, rule=self.rule)

    def rule(self, change: Array, moments: Moments) -> tuple[Array, Moments]:
        """The step, and the moments after it."""
        c = self.config
        m = c.beta1 * moments["m"] + (1.0 - c.beta1) * change
        v = self.next_square(moments["v"], change**2, c.beta2)
        return c.lr * m / (np.sqrt(v) + c.tau), {"m": m, "v": v}
