"""Head only: LoRA stays at its start (B = 0, so no matrix changes), the trained head is averaged.

Source: FedAvg on the head alone; McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized
Data", AISTATS 2017 (arXiv 1602.05629).

The baseline for runs that train a head: what the head explains without any adapter. Uploaded, and charged on the
downlink: the head. Codec and allocator have nothing to leave out; the head is always sent whole, at the codec's
`head_bits` a value.
"""

from typing import ClassVar

from raysoft.config import Traits
from raysoft.methods.averaging import Averaging
from raysoft.methods.base import MethodConfig
from raysoft.types import ParamSpace


class Config(MethodConfig):
    """Nothing beyond the common options."""

    TRAITS: ClassVar[Traits] = Traits(leaves_out_factor=True, needs_head=True, trains_lora=False)


def build(config: Config, space: ParamSpace) -> Averaging:
    """LoRA frozen, the head averaged."""
    return Averaging(config, space, changes=space.always_sent)
