"""dB and dBm to SI and back: the only place in raysoft where decibels are converted.

>>> round(dbm_to_watt(30.0), 12)
1.0
>>> round(linear_to_db(db_to_linear(7.0)), 12)
7.0
"""

from __future__ import annotations

import math


def db_to_linear(value_db: float) -> float:
    """Power ratio of a level in dB."""
    return 10.0 ** (value_db / 10.0)


def linear_to_db(ratio: float) -> float:
    """Level in dB of a positive power ratio."""
    return 10.0 * math.log10(ratio)


def dbm_to_watt(level_dbm: float) -> float:
    """Power in watts of a level in dBm (also W/Hz of dBm/Hz)."""
    return 10.0 ** (level_dbm / 10.0) * 1e-3
