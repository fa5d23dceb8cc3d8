"""Channel `static`: path loss and shadowing only, no fading. Gains never change.

Source: path loss of 3GPP TR 36.942, section 4.5.2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from raysoft.rng import Rng
from raysoft.types import Array, ChannelState
from raysoft.wireless.fading import channel_state
from raysoft.wireless.propagation import MacroConfig, macro_gain


class Config(MacroConfig):
    """Options of `static`; `shadowing_db: 0` leaves distance alone."""


@dataclass(frozen=True)
class Static:
    """Macro-cell gains without fading."""

    config: Config
    rng: Rng

    def state(self, clients_K: Array, block: int) -> ChannelState:
        """The same gains in every block; only an imperfect report changes."""
        clients_K = np.asarray(clients_K, dtype=np.int64)
        mean_gain_K, where = macro_gain(self.config, self.rng, clients_K)
        h_K = np.ones(len(clients_K), dtype=complex)
        return channel_state(self.config, self.rng, clients_K, block, mean_gain_K, h_K, where)


def build(config: Config, rng: Rng) -> Static:
    """The channel."""
    return Static(config, rng)
