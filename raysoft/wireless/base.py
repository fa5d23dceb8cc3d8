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
    """Band that all clients of a round share. [Hz]"""
    cell_radius_m: Distance = 250.0
    """Largest distance of a client from the base station. [m]"""
    min_distance_m: Distance = 35.0
    """Least distance; clients are spread uniformly over the ring between the two. [m]"""
    shadowing_db: Annotated[float, Field(ge=0, le=60)] = 8.0
    """Standard deviation of the log-normal shadowing. [dB]"""
    shadowing_decorrelation_m: Annotated[float, Field(ge=0.1, le=1e6)] | None = None
    """Distance over which the correlation of two clients' shadowing falls to 1/e; null: independent. [m]"""
    noise_dbm_per_hz: Decibel = -174.0
    """Power density of the thermal noise. [dBm/Hz]"""
    noise_figure_db: Decibel = 7.0
    """Noise figure of the receiver. [dB]"""
    max_spectral_efficiency: Annotated[float, Field(ge=1e-3, le=1e3)] = 7.4
    """Largest rate a hertz that modulation and coding allow. [bit/s/Hz]"""
    snr_gap_db: Decibel = 3.0
    """Distance of the modulation and coding from Shannon's rate. [dB]"""
    interference_margin_db: Decibel = 3.0
    """Interference of other cells, as a rise of the noise. [dB]"""
    csi_error: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the fading's power that the server's channel estimate misses; 0: perfect. [1]"""
    correlation_time_rounds: Annotated[float, Field(ge=0.01, le=1e9)] | None = None
    """Lag at which the fading's autocorrelation falls to 1/2; null: a fresh block every round. [rounds]"""
    control_rate_bps: Annotated[float, Field(ge=1, le=1e15)] = 1e6
    """Rate of the channel over which clients report and hear their plan. [bit/s]"""

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
