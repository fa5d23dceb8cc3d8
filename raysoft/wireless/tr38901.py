"""Urban micro and macro cells of 3GPP TR 38.901 (V17.0.0): line of sight, path loss, shadowing, K factor.

Table 7.4.1-1 (path loss), 7.4.2-1 (line of sight), 7.5-6 (K factor). Outdoor terminals up to 13 m high, so that the
environment height is 1 m. Distances in metres, f in hertz, losses in dB; shapes broadcast.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, model_validator

from raysoft.rng import Rng
from raysoft.types import Array, ChannelState
from raysoft.wireless.base import ChannelConfig, Decibel
from raysoft.wireless.fading import channel_state, doppler_turns, rician
from raysoft.wireless.propagation import gain, positions, standard_shadowing

LIGHT_M_PER_S = 3.0e8  # the value the report uses
ENVIRONMENT_HEIGHT_M = 1.0
ALWAYS_LOS_M = 18.0
Spread = Annotated[float, Field(ge=0, le=60)]


@dataclass(frozen=True)
class Scenario:
    """The constants of one scenario. A loss is c0 + c1 log10(d3D) + c2 log10(f/GHz) (+ c3 (h_ut - 1.5))."""

    los_decay_m: float  # P(line of sight) = 18/d + exp(-d/decay) (1 - 18/d) beyond 18 m
    near: tuple[float, float, float]  # line of sight up to the break point
    far: tuple[float, float, float]  # beyond it, minus break_db log10(d_bp^2 + (h_bs - h_ut)^2)
    break_db: float
    blocked: tuple[float, float, float, float]


UMI = Scenario(36.0, (32.4, 21.0, 20.0), (32.4, 40.0, 20.0), 9.5, (22.4, 35.3, 21.3, -0.3))
UMA = Scenario(63.0, (28.0, 22.0, 20.0), (28.0, 40.0, 20.0), 9.0, (13.54, 39.08, 20.0, -0.6))


class CellularConfig(ChannelConfig):
    """Options of both scenarios. `shadowing_db` holds without line of sight, `los_shadowing_db` with it."""

    carrier_hz: Annotated[float, Field(ge=5e8, le=1e11)] = 3.5e9
    """Carrier frequency. [Hz]"""
    bs_height_m: Annotated[float, Field(gt=1, le=200)] = 10.0
    """Height of the base station's antenna. [m]"""
    ut_height_m: Annotated[float, Field(ge=1.5, le=13)] = 1.5
    """Height of the clients' antennas. [m]"""
    los_shadowing_db: Spread = 4.0
    """Standard deviation of the shadowing in line of sight. [dB]"""
    k_factor_db: Decibel = 9.0
    """Mean K factor over clients in line of sight. [dB]"""
    k_factor_std_db: Spread = 5.0
    """Standard deviation of the K factor over clients. [dB]"""
    line_of_sight: Literal["random", "always", "never"] = "random"
    """Who is in line of sight: drawn by distance, everybody, or nobody."""

    @model_validator(mode="after")
    def _valid_range(self) -> CellularConfig:
        if self.cell_radius_m > 5000:
            raise ValueError(f"cell_radius_m ({self.cell_radius_m:g}) must not exceed 5000, where TR 38.901 ends")
        if self.min_distance_m < 10:
            raise ValueError(f"min_distance_m ({self.min_distance_m:g}) must be at least 10, where TR 38.901 begins")
        return self


def los_probability(scenario: Scenario, distance_m: Array | float) -> Array:
    """Probability of line of sight at a ground distance."""
    near = np.minimum(ALWAYS_LOS_M / np.asarray(distance_m, dtype=float), 1.0)
    probability: Array = near + np.exp(-np.asarray(distance_m) / scenario.los_decay_m) * (1 - near)
    return probability


def breakpoint_m(config: CellularConfig) -> float:
    """Ground distance d'_BP = 4 h'_bs h'_ut f / c where the path loss in line of sight steepens."""
    heights = (config.bs_height_m - ENVIRONMENT_HEIGHT_M) * (config.ut_height_m - ENVIRONMENT_HEIGHT_M)
    return 4 * heights * config.carrier_hz / LIGHT_M_PER_S


def path_loss_db(scenario: Scenario, config: CellularConfig, distance_m: Array | float, los: Array | bool) -> Array:
    """Path loss at a ground distance, with or without line of sight."""
    ground = np.asarray(distance_m, dtype=float)
    height_gap = config.bs_height_m - config.ut_height_m
    log_d = np.log10(np.sqrt(ground**2 + height_gap**2))
    log_f = np.log10(config.carrier_hz / 1e9)
    breakpoint = breakpoint_m(config)
    near = scenario.near[0] + scenario.near[1] * log_d + scenario.near[2] * log_f
    far = scenario.far[0] + scenario.far[1] * log_d + scenario.far[2] * log_f
    far = far - scenario.break_db * np.log10(breakpoint**2 + height_gap**2)
    clear = np.where(ground <= breakpoint, near, far)
    c0, c1, c2, c3 = scenario.blocked
    blocked = c0 + c1 * log_d + c2 * log_f + c3 * (config.ut_height_m - 1.5)
    loss_db: Array = np.where(los, clear, np.maximum(clear, blocked))
    return loss_db


@dataclass(frozen=True)
class Cellular:
    """Clients keep their place, line of sight, shadowing and K factor; fading changes per block."""

    scenario: Scenario
    config: CellularConfig
    rng: Rng

    def in_sight(self, clients_K: Array, distance_m_K: Array) -> Array:
        """Whether each client sees the antenna, bool [K]; independent between clients."""
        if self.config.line_of_sight != "random":
            return np.full(len(clients_K), self.config.line_of_sight == "always")
        return self.rng.uniform("channel.los", clients_K)[:, 0] < los_probability(self.scenario, distance_m_K)

    def k_factor(self, clients_K: Array, los_K: Array) -> Array:
        """Rician K (linear, lognormal over clients) in line of sight, else 0, shape [K]."""
        z_K = self.rng.normal("channel.k_factor", clients_K)[:, 0]
        k_db_K = self.config.k_factor_db + self.config.k_factor_std_db * z_K
        return np.where(los_K, gain(-k_db_K), 0.0)

    def state(self, clients_K: Array, block: int) -> ChannelState:
        """Gains of a block; parts also tell who has line of sight."""
        clients_K = np.asarray(clients_K, dtype=np.int64)
        config, rng = self.config, self.rng
        where = positions(config, rng, clients_K)
        los_K = self.in_sight(clients_K, where.distance_m_K)
        spread_db_K = np.where(los_K, config.los_shadowing_db, config.shadowing_db)
        shadowing_db_K = spread_db_K * standard_shadowing(config, rng, clients_K, where)
        mean_gain_K = gain(path_loss_db(self.scenario, config, where.distance_m_K, los_K) + shadowing_db_K)
        h_K = rician(rng, clients_K, block, doppler_turns(config), self.k_factor(clients_K, los_K))
        state = channel_state(config, rng, clients_K, block, mean_gain_K, h_K, where)
        return ChannelState(state.gain_K, state.reported_gain_K, {**state.parts, "los": los_K})
