"""FedProx: clients are held near the model they received.

Source: Li et al., "Federated Optimization in Heterogeneous Networks", MLSys 2020 (arXiv 1812.06127).

The local loss has the additional term mu / 2 ||w - w_t||^2 over the values that are trained. Nothing more is sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from raysoft.config import NonNegative
from raysoft.methods.extras.base import ExtraConfig, ExtraContext, Plain
from raysoft.types import LocalJob, Tensors, View, with_term

if TYPE_CHECKING:
    from torch import Tensor


class Config(ExtraConfig):
    """`mu`: weight of the proximal term; 0: the method itself."""

    mu: NonNegative = 0.01
    """Weight of the proximal term; 0: the method itself. [1]"""


@dataclass(frozen=True)
class Proximal:
    """mu / 2 ||w - w_t||^2 for K clients at once."""

    mu: float
    names: frozenset[str]

    def __call__(self, now: Mapping[str, Tensor], start: Mapping[str, Tensor]) -> Tensor:
        """Added loss per client, shape [K]."""
        moved = [(now[name] - start[name]).flatten(start_dim=1).square().sum(dim=1) for name in sorted(self.names)]
        return 0.5 * self.mu * sum(moved)  # type: ignore[return-value]


@dataclass(frozen=True)
class FedProx(Plain):
    """See the module."""

    config: Config

    def local(self, job: LocalJob, view: View, memory: Tensors, rng: np.random.Generator) -> LocalJob:
        """With the term."""
        if self.config.mu == 0.0:
            return job
        return replace(job, loss_term=with_term(job.loss_term, Proximal(self.config.mu, view.trains)))


def build(config: Config, context: ExtraContext) -> FedProx:
    """The extra."""
    return FedProx(config)
