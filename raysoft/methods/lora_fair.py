"""LoRA-FAIR: the mean of A stays, B is corrected so that B A is nearest to the mean of the products.

Source: Bian et al., "LoRA-FAIR: Federated LoRA Fine-Tuning with Aggregation and Initialization Refinement",
arXiv 2411.14961.

Averaging A and B apart is biased by their covariance over clients. With W* = sum_k p_k B_k A_k, the means A~ and B~,
M = sum_k p_k B_k (A_k A~^T) and G = A~ A~^T, the server broadcasts A~ and B' = B~ + dB. Two ways to choose dB:

    ridge:   dB = (M - B~ G) (G + ridge I)^-1, the minimiser of ||W* - B' A~||_F^2 + ridge ||dB||_F^2;
    cosine:  the best of some gradient steps from dB = 0 on 1 - cos(W*, B' A~) + cosine_weight ||dB|| / ||B~||.

The second is the paper's, which leaves the magnitude as it is; the first has a closed form and corrects that, too.
Nothing of size O x I is formed: <W*, B' A~> = <M, B'> and ||B' A~||^2 = <B' G, B'>. Uploaded: the change of A and B.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from pydantic import model_validator

from raysoft.config import Count, NonNegative, Positive, Traits
from raysoft.methods.averaging import Averaging
from raysoft.methods.base import MethodConfig
from raysoft.methods.folds import Stack
from raysoft.methods.rules.cosine import turned
from raysoft.methods.rules.products import points
from raysoft.types import Array, ParamSpace, ServerState, Tensors

OPTIONS = {"ridge": ("ridge",), "cosine": ("cosine_weight", "cosine_steps", "cosine_rate")}


class Config(MethodConfig):
    """Options of the mode that is not chosen are refused."""

    TRAITS: ClassVar[Traits] = Traits(single_updates="the products of each client's factors")

    mode: Literal["ridge", "cosine"] = "ridge"
    """Whether B is corrected by least squares or, as published, by gradient steps on the cosine."""
    ridge: NonNegative = 0.01
    """What a change of B has to be worth; 0: the exact projection on the rows of the mean A. [1]"""
    cosine_weight: NonNegative = 0.01
    """With cosine: what a change of B as large as B has to be worth. [1]"""
    cosine_steps: Count = 100
    """With cosine: how many steps along the gradient. [steps]"""
    cosine_rate: Positive = 0.3
    """With cosine: length of a step along the gradient, in units of the norm of B. [1]"""

    @model_validator(mode="after")
    def _of_the_mode(self) -> Config:
        for name in OPTIONS["cosine" if self.mode == "ridge" else "ridge"]:
            if getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name} does nothing with mode: {self.mode}")
        return self


def correction(b: Array, a: Array, b_stack: Array, a_stack: Array, ridge: float) -> Array:
    """dB [O, R] for the means b [O, R] and a [R, I] and the stacks [O, K R] and [K R, I] (mix on A); float64."""
    gram = a @ a.T
    residual = b_stack @ (a_stack @ a.T) - b @ gram
    regular = gram + ridge * np.eye(len(gram))
    inverse = np.linalg.inv(regular) if ridge else np.linalg.pinv(regular, hermitian=True)
    more: Array = residual @ inverse
    return more


def build(config: Config, space: ParamSpace) -> Averaging:
    """Means of both factors, B corrected."""

    def change(server: ServerState, folded: Tensors) -> Tensors:
        out = {name: folded[name] for name in server.theta if name in folded}
        for pair in space.pairs:
            b, a = (server.theta[name] + folded[name] for name in (pair.b, pair.a))  # float64
            _, b_stack, a_stack = points(server, folded, pair, 1.0)
            if config.mode == "ridge":
                more = correction(b, a, b_stack, a_stack, config.ridge)
            else:
                more = turned(b, a, b_stack, a_stack, config.cosine_weight, config.cosine_steps, config.cosine_rate)
            out[pair.b] = out[pair.b] + more
        return out

    return Averaging(config, space, fold=Stack(space), change_of=change)
