"""Whose mean a rank component is: that of the whole cohort, or of the clients that sent it.

Who did not send a component counts as a zero change in the plain mean, so a component sent by a tenth of the cohort
moves a tenth of the way. With `component` weights its mean is over its senders, sum_k mix_k x_kj / sum_k mix_k [k sent
j], the denominator at least `sender_weight_floor`: 0 is the full step even where a single client sent it, 1 the plain
mean. A component counts as sent where any of its decoded values is not zero; the sums of these indicators are linear,
so they travel beside the updates, under "sent/<module>" [R].
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from raysoft.config import Unit
from raysoft.methods.base import MethodConfig, pad_to_rank
from raysoft.types import ParamSpace, Tensors, Update

PREFIX = "sent/"


class AveragingConfig(MethodConfig):
    """Options of methods that average factors."""

    sender_weights: Literal["cohort", "component"] = "cohort"
    sender_weight_floor: Unit = 0.0  # component: smallest denominator


def contribution(config: AveragingConfig, space: ParamSpace, received: Update) -> Tensors:
    """The decoded change padded to the server's rank, and where wanted which components are in it (0 or 1)."""
    padded = pad_to_rank(received, space)
    if config.sender_weights == "cohort":
        return padded
    for pair in space.pairs:
        sent = np.zeros(space.rank, dtype=bool)
        if pair.b in padded:
            sent |= padded[pair.b].any(axis=0)
        if pair.a in padded:
            sent |= padded[pair.a].any(axis=1)
        padded[PREFIX + pair.module] = sent.astype(np.float64)
    return padded


def mean_change(config: AveragingConfig, space: ParamSpace, sums: Tensors) -> Tensors:
    """What the sums of contributions stand for: every component divided by the weight that sent it."""
    if config.sender_weights == "cohort":
        return sums
    mean = {name: value for name, value in sums.items() if not name.startswith(PREFIX)}
    for pair in space.pairs:
        weight = np.maximum(sums[PREFIX + pair.module], config.sender_weight_floor)
        gain = np.divide(1.0, weight, out=np.zeros_like(weight), where=weight > 0)
        if pair.b in mean:
            mean[pair.b] = mean[pair.b] * gain
        if pair.a in mean:
            mean[pair.a] = mean[pair.a] * gain[:, None]
    return mean
