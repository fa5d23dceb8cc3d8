"""FedAvgM: the server takes its steps with momentum.

Source: Hsu et al., "Measuring the Effects of Non-Identical Data Distribution for Federated Visual Classification",
arXiv 1909.06335; as SGD with momentum in Reddi et al., "Adaptive Federated Optimization", ICLR 2021.

With D the change that the method proposes, m = beta m + D and theta = theta + lr m: at beta = 0 and lr = 1 the method
itself, bit for bit. Momentum goes on where D = 0; where nobody arrived it rests. Nothing more is sent. The size of the
step is `lr`, so `method.server_lr` stays 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from raysoft.config import Momentum, Positive, Traits
from raysoft.methods.extras.base import ExtraConfig, ExtraContext, Plain
from raysoft.methods.rules.server_step import Moments, stepped
from raysoft.types import Array, Reception, ServerState


class Config(ExtraConfig):
    """`beta` = 0 and `lr` = 1: the method itself."""

    TRAITS: ClassVar[Traits] = Traits(server_step=True)

    lr: Positive = 1.0
    """Step of the server along the momentum. [1]"""
    beta: Momentum = 0.9
    """Share of the momentum that is kept in a step. [1]"""


@dataclass(frozen=True)
class FedAvgM(Plain):
    """See the module."""

    config: Config

    def step(self, before: ServerState, proposed: ServerState, received: Reception) -> ServerState:
        """Along the momentum."""
        return stepped(before, proposed, received, name="fedavgm", first={"m": 0.0}, rule=self.rule)

    def rule(self, change: Array, moments: Moments) -> tuple[Array, Moments]:
        """The step, and the momentum after it."""
        m = self.config.beta * moments["m"] + change
        return self.config.lr * m, {"m": m}


def build(config: Config, context: ExtraContext) -> FedAvgM:
    """The extra."""
    return FedAvgM(config)
