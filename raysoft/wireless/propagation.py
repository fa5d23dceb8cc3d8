"""Large-scale gain: where a client is, its path loss and its shadowing. Constant over a run, keyed by the client.

Shapes: K clients, M plane waves. Units: metres, dB inside this file, linear power gain at its end.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

from raysoft.rng import Rng
from raysoft.types import Array
from raysoft.wireless.base import ChannelConfig, Decibel

PLANE_WAVES = 256


class MacroConfig(ChannelConfig):
    """Macro-cell path loss PL = path_loss_at_1km_db + 10 path_loss_exponent log10(d/km).

    The defaults are 128.1 + 37.6 log10(d/km) dB (3GPP TR 36.942 §4.5.2, 2 GHz, 15 m antenna).
    """

    path_loss_at_1km_db: Decibel = 128.1
    """Path loss at 1 km. [dB]"""
    path_loss_exponent: Annotated[float, Field(gt=0, le=10)] = 3.76
    """Exponent by which power falls with distance. [1]"""


@dataclass(frozen=True)
class Positions:
    """Where clients are relative to the server's antenna, in the plane [m]."""

    distance_m_K: Array
    x_m_K: Array
    y_m_K: Array


def positions(config: ChannelConfig, rng: Rng, clients_K: Array) -> Positions:
    """Uniform over the area between min_distance_m and cell_radius_m, keyed by the client."""
    u_K2 = rng.uniform("channel.position", clients_K, size=2)
    inner, outer = config.min_distance_m**2, config.cell_radius_m**2
    distance = np.sqrt(inner + (outer - inner) * u_K2[:, 0])
    angle = 2 * np.pi * u_K2[:, 1]
    return Positions(distance, distance * np.cos(angle), distance * np.sin(angle))


def macro_path_loss_db(config: MacroConfig, distance_m: Array | float) -> Array:
    """Path loss [dB] at distances [m]."""
    return config.path_loss_at_1km_db + 10 * config.path_loss_exponent * np.log10(np.asarray(distance_m) / 1000)


def standard_shadowing(config: ChannelConfig, rng: Rng, clients_K: Array, where: Positions) -> Array:
    """Shadowing in units of its standard deviation, shape [K]: normal and keyed by the client.

    With `shadowing_decorrelation_m` D the values of two clients at distance d have correlation exp(-d/D) (Gudmundson,
    Electronics Letters 1991). The field is a sum of M plane waves, so that a client's value still needs no other
    client: random Fourier features (Rahimi and Recht, NeurIPS 2007) whose wave vectors follow the spectrum of
    exp(-d/D) in the plane, a Cauchy distribution of scale 1/D.
    """
    if config.shadowing_decorrelation_m is None:
        return rng.normal("channel.shadowing", clients_K)[:, 0]
    z_M3 = rng.normal("channel.shadowing.waves", np.arange(PLANE_WAVES), size=3)
    phase_M = rng.uniform("channel.shadowing.phases", np.arange(PLANE_WAVES))[:, 0]
    waves_M2 = z_M3[:, :2] / (np.abs(z_M3[:, 2:]) * config.shadowing_decorrelation_m)
    turns_KM = (where.x_m_K[:, None] * waves_M2[:, 0] + where.y_m_K[:, None] * waves_M2[:, 1]) / (2 * np.pi) + phase_M
    shadowing_K: Array = np.sqrt(2 / PLANE_WAVES) * cos_turns(turns_KM).sum(axis=1)
    return shadowing_K


def cos_turns(turns: Array) -> Array:
    """cos(2 pi x). The whole turns are dropped first: a huge argument would cost precision and vector speed."""
    cosine: Array = np.cos(2 * np.pi * (turns - np.floor(turns)))
    return cosine


def sin_turns(turns: Array) -> Array:
    """sin(2 pi x), see `cos_turns`."""
    sine: Array = np.sin(2 * np.pi * (turns - np.floor(turns)))
    return sine


def gain(loss_db_K: Array) -> Array:
    """Linear power gain of a loss [dB]."""
    return np.power(10.0, -loss_db_K / 10)


def macro_gain(config: MacroConfig, rng: Rng, clients_K: Array) -> tuple[Array, Positions]:
    """Mean power gain of each client (path loss and shadowing) and its position."""
    where = positions(config, rng, clients_K)
    shadowing_db_K = config.shadowing_db * standard_shadowing(config, rng, clients_K, where)
    return gain(macro_path_loss_db(config, where.distance_m_K) + shadowing_db_K), where
