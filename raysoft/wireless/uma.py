"""Channel `uma`: urban macro cell of 3GPP TR 38.901, antenna above the roofs.

Source: 3GPP TR 38.901 (V17.0.0).
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from raysoft.rng import Rng
from raysoft.wireless.tr38901 import UMA, Cellular, CellularConfig, Spread


class Config(CellularConfig):
    """Options of `uma`."""

    shadowing_db: Spread = 6.0
    """Standard deviation of the shadowing without line of sight. [dB]"""
    bs_height_m: Annotated[float, Field(gt=1, le=200)] = 25.0
    """Height of the base station's antenna. [m]"""
    k_factor_std_db: Spread = 3.5
    """Standard deviation of the K factor over clients. [dB]"""


def build(config: Config, rng: Rng) -> Cellular:
    """The channel."""
    return Cellular(UMA, config, rng)
