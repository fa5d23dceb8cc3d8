"""Small-scale fading of unit mean power, and what the server knows of it. Keyed by (client, block), no history.

Shapes: K clients, N sinusoids. h is the complex gain, E|h|^2 = 1.
"""

from __future__ import annotations

import numpy as np

from raysoft.rng import Rng
from raysoft.types import Array, ChannelState
from raysoft.wireless.base import ChannelConfig
from raysoft.wireless.propagation import Positions, cos_turns, sin_turns

SINUSOIDS = 64
HALF_CORRELATION = 1.5211440576687652  # the first x with J0(x) = 1/2


def doppler_turns(config: ChannelConfig) -> float | None:
    """Largest Doppler shift in turns per round; None where every block is drawn afresh.

    `correlation_time_rounds` T is the lag at which the autocorrelation J0(2 pi f T) of h first falls to one half, so
    f = 1.521 / (2 pi T). (The covariance of the power |h|^2 is then 1/4 - 1/64: see `scattered`.)
    """
    if config.correlation_time_rounds is None:
        return None
    return HALF_CORRELATION / (2 * np.pi * config.correlation_time_rounds)


def scattered(rng: Rng, clients_K: Array, block: int, doppler: float | None) -> Array:
    """Rayleigh fading h ~ CN(0, 1), complex [K].

    Without Doppler, independent from block to block. With Doppler, Clarke's model: N waves of equal power, whose
    angles of arrival are keyed by the client (one in each of N equal sectors) and whose phases are keyed and uniform;
    the autocorrelation over clients is J0(2 pi f lag) exactly. The covariance of the power |h|^2 is J0^2 - 1/N to first
    order in 1/N (no wave interferes with itself), its variance 1 - 1/N.
    P(|h|^2 > s) = e^-s (1 - (s^2 - 2s)/(4N) + O(N^-2)): at N = 64 the far tail is 6 % thin at
    s = 5 (8 waves would halve it).
    """
    if doppler is None:
        return complex_normal(rng, "channel.fading", clients_K, block)
    u_K2N = rng.uniform("channel.waves", clients_K, size=2 * SINUSOIDS)
    angle_KN = (np.arange(SINUSOIDS) + u_K2N[:, :SINUSOIDS]) / SINUSOIDS
    turns_KN = doppler * block * cos_turns(angle_KN) + u_K2N[:, SINUSOIDS:]
    h_K: Array = (cos_turns(turns_KN).sum(axis=1) + 1j * sin_turns(turns_KN).sum(axis=1)) / np.sqrt(SINUSOIDS)
    return h_K


def line_of_sight(rng: Rng, clients_K: Array, block: int, doppler: float | None) -> Array:
    """The direct path: amplitude one, keyed phase, turning at its own keyed Doppler shift; complex [K]."""
    u_K2 = rng.uniform("channel.los_wave", clients_K, size=2)
    turns_K = u_K2[:, 0] if doppler is None else u_K2[:, 0] + doppler * block * cos_turns(u_K2[:, 1])
    return cos_turns(turns_K) + 1j * sin_turns(turns_K)


def rician(rng: Rng, clients_K: Array, block: int, doppler: float | None, k_factor_K: Array | float) -> Array:
    """h = sqrt(k/(k+1)) * direct + sqrt(1/(k+1)) * scattered, complex [K]; k = 0 is Rayleigh."""
    direct = line_of_sight(rng, clients_K, block, doppler)
    diffuse = scattered(rng, clients_K, block, doppler)
    h_K: Array = np.sqrt(k_factor_K / (1 + k_factor_K)) * direct + np.sqrt(1 / (1 + k_factor_K)) * diffuse
    return h_K


def complex_normal(rng: Rng, purpose: str, clients_K: Array, block: int) -> Array:
    """CN(0, 1), complex [K]."""
    z_K2 = rng.normal(purpose, clients_K, block, size=2)
    h_K: Array = (z_K2[:, 0] + 1j * z_K2[:, 1]) / np.sqrt(2.0)
    return h_K


def power(h_K: Array) -> Array:
    """|h|^2."""
    power_K: Array = h_K.real**2 + h_K.imag**2
    return power_K


def channel_state(
    config: ChannelConfig, rng: Rng, clients_K: Array, block: int, mean_gain_K: Array, h_K: Array, where: Positions
) -> ChannelState:
    """True gains, and the reported ones: mean gain * |sqrt(1-e) h + sqrt(e) w|^2 with w ~ CN(0, 1) drawn every block.

    With csi_error e = 0 both are the same array. `parts` tells the distance [m] and the mean gain of each client.
    """
    gain_K = mean_gain_K * power(h_K)
    reported_K = gain_K
    if config.csi_error > 0:
        error_K = complex_normal(rng, "channel.csi", clients_K, block)
        estimate_K = np.sqrt(1 - config.csi_error) * h_K + np.sqrt(config.csi_error) * error_K
        reported_K = mean_gain_K * power(estimate_K)
    return ChannelState(gain_K, reported_K, {"distance_m": where.distance_m_K, "mean_gain": mean_gain_K})
