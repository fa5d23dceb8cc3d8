"""FedIT: federated averaging of LoRA factors.

Source: Zhang et al., "Towards Building the Federated GPT: Federated Instruction Tuning", arXiv 2305.05644.

Every client trains both factors from the broadcast; the server averages A and B separately (which differs from
averaging the products by the covariance that `aggregation_covariance` reports). Uploaded: the change of A, of B and of
a trained head.
"""

from raysoft.methods.averaging import Averaging
from raysoft.methods.base import MethodConfig
from raysoft.types import ParamSpace


class Config(MethodConfig):
    """Nothing beyond the common options."""


def build(config: Config, space: ParamSpace) -> Averaging:
    """Separate averaging of both factors."""
    return Averaging(config, space)
