"""The uplink's radio constants in SI, and the scalar identities of an FDMA share.

With a = P g / (Gamma N0) [Hz] a client with b hertz reaches `R(b) = b min(eta_max, log2(1 + a/b))` [bit/s]: concave
and increasing in b, limited by a/ln 2. Gamma is the SNR gap, N0 includes the noise figure and interference margin.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from raysoft.config import DeviceConfig, Range
from raysoft.rng import Rng
from raysoft.types import Array
from raysoft.units import db_to_linear, dbm_to_watt
from raysoft.wireless.base import ChannelConfig


@dataclass(frozen=True)
class Link:
    """Uplink constants shared by allocators and uplinks."""

    bandwidth_hz: float
    noise_w_per_hz: float  # N0 with noise figure and interference margin
    snr_gap: float
    max_spectral_efficiency: float
    control_rate_bps: float

    @classmethod
    def from_config(cls, config: ChannelConfig) -> Link:
        """SI constants of a channel section."""
        noise = dbm_to_watt(config.noise_dbm_per_hz + config.noise_figure_db + config.interference_margin_db)
        return cls(
            bandwidth_hz=config.bandwidth_hz,
            noise_w_per_hz=noise,
            snr_gap=db_to_linear(config.snr_gap_db),
            max_spectral_efficiency=config.max_spectral_efficiency,
            control_rate_bps=config.control_rate_bps,
        )

    def snr_hz(self, gain_K: Array | float, power_w_K: Array | float) -> Array:
        """a_k = P g / (Gamma N0) [Hz], the bandwidth at which the SNR behind the gap is one."""
        return np.asarray(power_w_K) * gain_K / (self.snr_gap * self.noise_w_per_hz)

    def rate_bps(self, bandwidth_hz_K: Array | float, snr_hz_K: Array | float) -> Array:
        """R(b), zero where b or a is zero. Shapes broadcast."""
        b, a = np.broadcast_arrays(np.asarray(bandwidth_hz_K, float), np.asarray(snr_hz_K, float))
        with np.errstate(divide="ignore", invalid="ignore"):
            efficiency = np.log1p(a / b) / np.log(2.0)
        return np.where(b > 0, b * np.minimum(efficiency, self.max_spectral_efficiency), 0.0)

    def airtime_s(self, num_bits_K: Array, bandwidth_hz_K: Array | float, snr_hz_K: Array | float) -> Array:
        """Seconds to send the bits: S / R(b); 0 for no bits, inf where there are bits but no rate. Shapes broadcast."""
        bits, rate = np.broadcast_arrays(np.asarray(num_bits_K, float), self.rate_bps(bandwidth_hz_K, snr_hz_K))
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            return np.where(bits > 0, bits / rate, 0.0)

    def control_s(self, control_bits_K: Array) -> Array:
        """Seconds of signalling at the fixed control rate."""
        return np.asarray(control_bits_K, dtype=float) / self.control_rate_bps


@dataclass(frozen=True)
class Devices:
    """The simulated devices; every value of a client is a pure function of its id."""

    config: DeviceConfig
    rng: Rng

    def power_w(self, clients_K: Array) -> Array:
        """Transmit power [W]."""
        return np.full(len(clients_K), dbm_to_watt(self.config.tx_power_dbm))

    def cpu_hz(self, clients_K: Array) -> Array:
        """Clock rate [Hz], keyed by client when given as a range."""
        cpu = self.config.cpu_hz
        if not isinstance(cpu, Range):
            return np.full(len(clients_K), cpu)
        return cpu.low + (cpu.high - cpu.low) * self.rng.uniform("cpu", clients_K)[:, 0]

    def compute_s(self, cycles_K: Array, clients_K: Array) -> Array:
        """Seconds of local training, t = cycles / f."""
        seconds_K: Array = cycles_K * self.config.compute_scale / self.cpu_hz(clients_K)
        return seconds_K

    def compute_j(self, cycles_K: Array, clients_K: Array) -> Array:
        """Joules of local training, kappa f^2 per cycle."""
        joules_K: Array = self.config.kappa * self.cpu_hz(clients_K) ** 2 * cycles_K * self.config.compute_scale
        return joules_K
