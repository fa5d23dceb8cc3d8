"""What a channel decides: power gains per client and block, a pure function of (seed, client, block), no history.

The section `channel` also holds the radio constants of the uplink; see `link.py` for what follows from them.
"""

from __future__ import annotations

from typing import Annotated, Protocol

import numpy as np
from pydantic import Field, model_validator

from raysoft.config import Section
from raysoft.errors import RaysoftError
from raysoft.types import Array, ChannelState

Decibel = Annotated[float, Field(ge=-300, le=300)]
Distance = Annotated[float, Field(ge=1, le=100_000)]


class ChannelConfig(Section):
    """Radio constants every channel model has: geometry, noise, limits of a real receiver, what the server knows.

    The bounds are wide; they only keep every derived number finite.

    A plug-in's Config may declare `describe(self) -> list[tuple[str, str]]`, the rows (name, value with unit) by which
    reports tell its geometry, path loss and fading; without it they give its name and options.
    """

    bandwidth_hz: Annotated[float, Field(ge=1, le=1e12)] = 1e6
    cell_radius_m: Distance = 250.0
    min_distance_m: Distance = 35.0  # clients are spread uniformly over the ring between the two
    shadowing_db: Annotated[float, Field(ge=0, le=60)] = 8.0
    # Distance over which the correlation of two clients' shadowing falls to 1/e; null: independent clients.
    shadowing_decorrelation_m: Annotated[float, Field(ge=0.1, le=1e6)] | None = None
    noise_dbm_per_hz: Decibel = -174.0
    noise_figure_db: Decibel = 7.0
    max_spectral_efficiency: Annotated[float, Field(ge=1e-3, le=1e3)] = 7.4  # bit/s/Hz
    snr_gap_db: Decibel = 3.0
    interference_margin_db: Decibel = 3.0
    csi_error: Annotated[float, Field(ge=0, lt=1)] = 0.0
    # The lag at which the autocorrelation J0 of the fading falls to 1/2; null: a fresh block every round.
    correlation_time_rounds: Annotated[float, Field(ge=0.01, le=1e9)] | None = None
    control_rate_bps: Annotated[float, Field(ge=1, le=1e15)] = 1e6

    @model_validator(mode="after")
    def _distances(self) -> ChannelConfig:
        if self.min_distance_m >= self.cell_radius_m:
            raise ValueError(
                f"min_distance_m ({self.min_distance_m:g}) must be below cell_radius_m ({self.cell_radius_m:g})"
            )
        return self


class Channel(Protocol):
    """Built from (config, Rng). Cheap for any client id: there is no per-client object."""

    def state(self, clients_K: Array, block: int) -> ChannelState:
        """Gains of the clients in a block (= round)."""
        ...


def gains(channel: Channel, clients_K: Array, block: int) -> ChannelState:
    """The channel's state, checked: a gain that is no number would look like an outage. Raises RaysoftError."""
    state = channel.state(clients_K, block)
    for name, values in (("gain", state.gain_K), ("reported gain", state.reported_gain_K)):
        gain_K = np.asarray(values)
        if gain_K.shape != np.shape(clients_K):
            raise RaysoftError(
                f"round {block}: the channel gives {name}s of shape {gain_K.shape} for {len(clients_K)} clients"
            )
        (bad,) = np.nonzero(~(np.isfinite(gain_K) & (gain_K >= 0)))
        if bad.size:
            client = int(np.asarray(clients_K)[bad[0]])
            raise RaysoftError(
                f"round {block}, client {client}: the channel gives a {name} of {gain_K[bad[0]]:g}; power gains are "
                "finite and not negative (0: nothing arrives)"
            )
    return state
