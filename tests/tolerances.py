"""How far two float32 computations of one quantity may lie apart, whatever processor, kernel or order of summation.

Two correct implementations differ by rounding alone, and rounding differs between instruction sets. A bound that one
machine happens to keep says nothing of another, so the bounds here follow from the number format and from how far the
optimiser magnifies a rounded gradient; never from a measured difference.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from raysoft.config import TrainConfig

EPSILON = 2.0**-24  # half a unit in the last place of float32: the error of one rounded operation, relative
# Roundings along the longest path of our test models: two layers of some ten operations each, every one a sum of at
# most 64 terms, forward and backward. Errors of a sum grow like the root of its length: 2 * 2 * 10 * sqrt(64).
ROUNDINGS = 320


def training(settings: TrainConfig, steps: int, largest: float = 1.0) -> float:
    """Absolute bound on a trained value after `steps` steps, for gradients clipped to norm 1 or about that size.

    A gradient is known to ROUNDINGS * EPSILON of its size. SGD with momentum m hands an error of the gradient on with
    lr / (1 - m) at most. Adam's step lr * g / (|g| + eps) has slope lr / eps at g = 0, which is why a comparison with
    eps = 1e-8 compares noise. `largest` bounds the values themselves, each rounded once a step.
    """
    slope = settings.lr / settings.eps if settings.optimizer == "adamw" else settings.lr / (1.0 - settings.momentum)
    clip = settings.clip_norm if settings.clip_norm is not None else 1.0
    return steps * EPSILON * (ROUNDINGS * slope * clip + largest)


def logits(values: Any) -> float:
    """Absolute bound on logits of a test model: rounded along one forward pass, relative to the largest."""
    return ROUNDINGS * EPSILON * max(1.0, float(np.abs(np.asarray(values)).max()))
