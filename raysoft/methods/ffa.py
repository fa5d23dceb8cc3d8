"""FFA-LoRA: federated LoRA with A frozen at its shared start.

Source: Sun et al., "Improving LoRA in Privacy-preserving Federated Learning", arXiv 2403.12313.

Only B is trained and sent: half the traffic (exactly, where a matrix is square), and the mean of the products is exact
because A is shared. A travels as a seed. Uploaded: the change of B and of a trained head.
"""

from typing import ClassVar

from raysoft.config import Traits
from raysoft.methods.averaging import Averaging, factor_names
from raysoft.methods.base import MethodConfig
from raysoft.types import ParamSpace


class Config(MethodConfig):
    """Nothing beyond the common options."""

    TRAITS: ClassVar[Traits] = Traits(leaves_out_factor=True)


def build(config: Config, space: ParamSpace) -> Averaging:
    """A frozen, B averaged."""
    return Averaging(config, space, changes=factor_names(space, "b"))
