"""LoRA-FAIR, in its exact form: the mean of A stays, B is corrected so that B A is nearest to the mean of the products.

Source: Bian et al., "LoRA-FAIR: Federated LoRA Fine-Tuning with Aggregation and Initialization Refinement",
arXiv 2411.14961.

Averaging A and B apart is biased by their covariance over clients. With W* = sum_k p_k B_k A_k, the means A~ and B~,
M = sum_k p_k B_k (A_k A~^T) and G = A~ A~^T, the server broadcasts A~ and B~ + dB with

    dB = (M - B~ G) (G + ridge I)^-1,   the minimiser of ||W* - (B~ + dB) A~||_F^2 + ridge ||dB||_F^2.

The paper minimises 1 - cosine plus lambda ||dB|| by gradient steps; this is the same correction with a closed form,
which also corrects the magnitude. Nothing of size O x I is formed. Uploaded: the change of A, of B and of a head.
"""

from typing import ClassVar

import numpy as np

from raysoft.config import NonNegative, Traits
from raysoft.methods.averaging import Averaging
from raysoft.methods.base import MethodConfig
from raysoft.methods.folds import STACK, Stack
from raysoft.types import Array, ParamSpace, ServerState, Tensors


class Config(MethodConfig):
    """`ridge` is what a change of B has to be worth; 0: the projection on the rows of the mean A, exactly."""

    TRAITS: ClassVar[Traits] = Traits(single_updates="the products of each client's factors")

    ridge: NonNegative = 0.01
    """What a change of B has to be worth; 0: the exact projection on the rows of the mean A. [1]"""


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
            more = correction(b, a, folded[STACK + pair.b], folded[STACK + pair.a], config.ridge)
            out[pair.b] = out[pair.b] + more
        return out

    return Averaging(config, space, fold=Stack(space), change_of=change)
