"""FedYogi: FedAdam whose mean square moves by steps of the size of D^2, so that it forgets slowly.

Source: Reddi et al., "Adaptive Federated Optimization", ICLR 2021 (arXiv 2003.00295).

With D the change that the method proposes, value by value,

    m = beta1 m + (1 - beta1) D,   v = v - (1 - beta2) D^2 sign(v - D^2),   theta = theta + lr m / (sqrt(v) + tau),

from m = 0 and v = tau^2, without bias correction, as in the paper. A rare large change is remembered longer than by
Adam. Momentum goes on where D = 0, and rests where nobody arrived. Nothing more is sent. The size of the step is `lr`,
so `method.server_lr` stays 1.
"""

from __future__ import annotations

import numpy as np

from raysoft.methods.extras.adaptive import Adaptive, AdaptiveConfig
from raysoft.methods.extras.base import ExtraContext
from raysoft.types import Array


class Config(AdaptiveConfig):
    """The options of every such optimiser."""


def mean_square(v: Array, square: Array, beta2: float) -> Array:
    """Towards the squared change, by a step of its size."""
    after: Array = v - (1.0 - beta2) * square * np.sign(v - square)
    return after


def build(config: Config, context: ExtraContext) -> Adaptive:
    """The extra."""
    return Adaptive(config, "fedyogi", mean_square)
