"""What a channel decides: power gains per client and block, a pure function of (seed, client, block), no history.

The section `channel` also holds the radio constants of the uplink; see `link.py` for what follows from them.
"""

from __future__ import annotations

from typing import Annotated, Protocol

from pydantic import Field, model_validator

from raysoft.config import NonNegative, Positive, Section
from raysoft.types import Array, ChannelState

Decibel = Annotated[float, Field(ge=-300, le=300, strict=False)]


class ChannelConfig(Section):
    """Radio constants every channel model has (see `shared` spec: wireless limits, outage, CSI)."""

    bandwidth_hz: Positive = 1e6
    cell_radius_m: Positive = 250.0
    min_distance_m: Positive = 35.0
    shadowing_db: NonNegative = 8.0
    noise_dbm_per_hz: Decibel = -174.0
    noise_figure_db: Decibel = 7.0
    max_spectral_efficiency: Positive = 7.4  # bit/s/Hz
    snr_gap_db: Decibel = 3.0
    interference_margin_db: Decibel = 3.0
    csi_error: Annotated[float, Field(ge=0, lt=1, strict=False)] = 0.0
    correlation_time_rounds: Positive | None = None  # null: a fresh block every round
    control_rate_bps: Positive = 1e6

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
