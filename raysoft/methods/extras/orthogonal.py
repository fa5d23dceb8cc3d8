"""Orthogonal: SOFT's penalty on rank components that are not orthogonal, added to any method that trains factors.

Source: Kim and Choi, "Two-Stage Wireless Federated LoRA Fine-Tuning with Sparsified Orthogonal Updates", arXiv
2505.00333.

The local loss has the additional term lambda Omega(A, B) of `soft` (rules/orthogonality.py), over the factors that the
round trains: both, B alone (ffa), or the one whose turn it is (rolora). With it and the codec `rank_components`, what a
client leaves out is small also under other methods; fedit with both is soft itself, bit for bit. Under flora, where B
begins at zero, a component that is not sent is zero at the server, and with orthogonal factors the components of the
largest norm are Eckart-Young's. Nothing more is sent. With soft it comes on top of soft's own penalty.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np

from raysoft.config import NonNegative, Positive, Traits
from raysoft.methods.extras.base import ExtraConfig, ExtraContext, Plain
from raysoft.methods.rules.orthogonality import OrthogonalityPenalty
from raysoft.types import LocalJob, ParamSpace, Tensors, View, with_term


class Config(ExtraConfig):
    """As the options of `soft`. Its `identity` is not among them: it acts on A alone, which some methods freeze."""

    TRAITS: ClassVar[Traits] = Traits(needs_factors=True)

    penalty: Literal["cosine", "offdiag"] = "cosine"
    """Penalty that keeps rank components orthogonal: on cosines, or on off-diagonal products."""
    weight: NonNegative = 1e-3
    """Weight lambda of the penalty in the loss; 0: the method itself. [1]"""
    norm_floor: Positive = 1e-2
    """With cosine: shorter rows count as this long, so that B = 0 has a bounded gradient. [1]"""


@dataclass(frozen=True)
class Orthogonal(Plain):
    """See the module."""

    config: Config
    space: ParamSpace

    def local(self, job: LocalJob, view: View, memory: Tensors, rng: np.random.Generator) -> LocalJob:
        """With the penalty."""
        c = self.config
        if c.weight == 0.0:
            return job
        term = OrthogonalityPenalty(self.space, c.penalty, c.weight, c.norm_floor, view.trains)
        return replace(job, loss_term=with_term(job.loss_term, term))


def build(config: Config, context: ExtraContext) -> Orthogonal:
    """The extra."""
    return Orthogonal(config, context.space)
