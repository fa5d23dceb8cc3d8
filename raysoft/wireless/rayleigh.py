"""Channel `rayleigh`: macro-cell path loss, shadowing, and Rayleigh fading |h|^2 ~ Exp(1) per round.

Source: path loss of 3GPP TR 36.942, section 4.5.2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from raysoft.rng import Rng
from raysoft.types import Array, ChannelState
from raysoft.wireless.fading import channel_state, doppler_turns, scattered
from raysoft.wireless.propagation import MacroConfig, macro_gain


class Config(MacroConfig):
    """Options of `rayleigh`."""


@dataclass(frozen=True)
class Rayleigh:
    """No direct path: many scattered waves."""

    config: Config
    rng: Rng

    def state(self, clients_K: Array, block: int) -> ChannelState:
        """Gains of a block."""
        clients_K = np.asarray(clients_K, dtype=np.int64)
        mean_gain_K, where = macro_gain(self.config, self.rng, clients_K)
        h_K = scattered(self.rng, clients_K, block, doppler_turns(self.config))
        return channel_state(self.config, self.rng, clients_K, block, mean_gain_K, h_K, where)


def build(config: Config, rng: Rng) -> Rayleigh:
    """The channel."""
    return Rayleigh(config, rng)
