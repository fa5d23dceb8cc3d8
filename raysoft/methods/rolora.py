"""RoLoRA: the factors take turns, B in odd rounds and A in even ones.

Source: Chen et al., "Robust Federated Finetuning of LLMs via Alternating Optimization of LoRA", arXiv 2502.01755.

Only the active factor is trained and sent, so that the mean of the products is exact in every round and two rounds cost
one of FedIT's. B is first: with B = 0 the gradient of A is zero. A trained head travels in every round. Clients keep
nothing between rounds, so the broadcast is charged with both factors.
"""

from typing import ClassVar

from raysoft.config import Traits
from raysoft.methods.averaging import Averaging, factor_names
from raysoft.methods.base import MethodConfig
from raysoft.types import ParamSpace


class Config(MethodConfig):
    """Nothing beyond the common options."""

    TRAITS: ClassVar[Traits] = Traits(leaves_out_factor=True, moves_gauge="name=rolora", alternates=True)


def build(config: Config, space: ParamSpace) -> Averaging:
    """One factor a round."""
    active = (factor_names(space, "a"), factor_names(space, "b"))
    return Averaging(config, space, trains=lambda tick: active[tick % 2])
