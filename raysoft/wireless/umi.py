"""Channel `umi`: street canyon of 3GPP TR 38.901, antenna below the roofs.

Source: 3GPP TR 38.901 (V17.0.0).
"""

from __future__ import annotations

from raysoft.rng import Rng
from raysoft.wireless.base import Distance
from raysoft.wireless.tr38901 import UMI, Cellular, CellularConfig, Spread


class Config(CellularConfig):
    """Options of `umi`."""

    cell_radius_m: Distance = 100.0
    """Largest distance of a client from the base station. [m]"""
    min_distance_m: Distance = 10.0
    """Least distance; clients are spread uniformly over the ring between the two. [m]"""
    shadowing_db: Spread = 7.82
    """Standard deviation of the shadowing without line of sight. [dB]"""


def build(config: Config, rng: Rng) -> Cellular:
    """The channel."""
    return Cellular(UMI, config, rng)
