"""Channel `rician`: macro-cell path loss, shadowing, and a direct path of power ratio K over the scattered waves.

Source: path loss of 3GPP TR 36.942, section 4.5.2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from raysoft.rng import Rng
from raysoft.types import Array, ChannelState
from raysoft.units import db_to_linear
from raysoft.wireless.base import Decibel
from raysoft.wireless.fading import channel_state, doppler_turns, rician
from raysoft.wireless.propagation import MacroConfig, macro_gain


class Config(MacroConfig):
    """Options of `rician`."""

    k_factor_db: Decibel = 6.0
    """Power of the direct path over that of the scattered waves. [dB]"""


@dataclass(frozen=True)
class Rician:
    """One direct path and many scattered waves."""

    config: Config
    rng: Rng

    def state(self, clients_K: Array, block: int) -> ChannelState:
        """Gains of a block."""
        clients_K = np.asarray(clients_K, dtype=np.int64)
        mean_gain_K, where = macro_gain(self.config, self.rng, clients_K)
        k_factor = db_to_linear(self.config.k_factor_db)
        h_K = rician(self.rng, clients_K, block, doppler_turns(self.config), k_factor)
        return channel_state(self.config, self.rng, clients_K, block, mean_gain_K, h_K, where)


def build(config: Config, rng: Rng) -> Rician:
    """The channel."""
    return Rician(config, rng)
