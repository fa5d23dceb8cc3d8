"""Coordinate-wise median: a mean that a minority of clients cannot move far, whatever they send.

Source: Yin et al., "Byzantine-Robust Distributed Learning: Towards Optimal Statistical Rates", ICML 2018 (arXiv
1803.01498).

Here on the changes of LoRA factors. The median of a value is over the clients that sent some of its rank component:
over all of them it would be zero wherever fewer than half sent. Every client counts the same. Uploaded: the change of
A, of B and of a trained head.
"""

from typing import ClassVar

import numpy as np

from raysoft.config import Traits
from raysoft.methods.averaging import Averaging
from raysoft.methods.base import MethodConfig
from raysoft.methods.folds import EACH, Each
from raysoft.types import Array, ParamSpace, ServerState, Tensors


class Config(MethodConfig):
    """Nothing beyond the common options."""

    TRAITS: ClassVar[Traits] = Traits(whole_components=True, single_updates="each client's own update")


def median_of_senders(b_KOR: Array, a_KRI: Array) -> tuple[Array, Array]:
    """Medians over the clients that sent some of a component, zero where nobody did: [O, R] and [R, I]."""
    sent_KR: Array = np.any(b_KOR, axis=1) | np.any(a_KRI, axis=2)
    b, a = np.zeros(b_KOR.shape[1:]), np.zeros(a_KRI.shape[1:])
    for component in np.flatnonzero(np.any(sent_KR, axis=0)):
        senders = sent_KR[:, component]
        b[:, component] = np.median(b_KOR[senders, :, component].astype(np.float64), axis=0)
        a[component] = np.median(a_KRI[senders, component].astype(np.float64), axis=0)
    return b, a


def build(config: Config, space: ParamSpace) -> Averaging:
    """Medians instead of means."""

    def change(server: ServerState, folded: Tensors) -> Tensors:
        out: dict[str, Array] = {}
        for name in space.always_sent:
            out[name] = np.median(folded[EACH + name].astype(np.float64), axis=0)
        for pair in space.pairs:
            out[pair.b], out[pair.a] = median_of_senders(folded[EACH + pair.b], folded[EACH + pair.a])
        return out

    return Averaging(config, space, fold=Each(), change_of=change)
