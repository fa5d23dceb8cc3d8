"""Uplink `fdma`: every client has its own share of the band for the whole round.

    latency_k = downlink + compute_k + control bits_k / control rate + bits_k / R_k(b_k)

The rate follows from the *true* gain, while bandwidth and bits were planned on the reported one. Who is late or too
weak is lost, and the server has waited for them until the deadline. With perfect CSI and neither `deadline_s`,
`sensitivity_dbm` nor `packet_error` set, nobody is lost.

Source: this project's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from raysoft.config import NonNegative, Positive
from raysoft.rng import Rng
from raysoft.types import Allocation, Array, ChannelState, Folded, Outcome, Participants, Tensors
from raysoft.units import dbm_to_watt
from raysoft.uplinks.base import UplinkConfig, is_late
from raysoft.wireless.link import Link


class Config(UplinkConfig):
    """Options of `fdma`.

    Without `deadline_s` and with imperfect CSI the server waits for `1 + late_tolerance` times the planned round.
    `packet_error: snr` loses an upload (one packet) with probability 1 - exp(-waterfall N0 b / (P g)): Rayleigh
    outage around a threshold SNR `waterfall` (Xi, Burr, Wei and Grace, IEEE Trans. Wireless Commun. 2011; used for
    federated learning by Chen et al., IEEE Trans. Wireless Commun. 2021).
    """

    late_tolerance: NonNegative = 0.1
    """Without a deadline: share of the planned round that the server waits longer for late arrivals. [1]"""
    sensitivity_dbm: Annotated[float, Field(ge=-300, le=300)] | None = None
    """Weakest received power that can be decoded; null: no limit. [dBm]"""
    packet_error: Literal["none", "snr"] = "none"
    """Whether uploads are lost at random, the more the weaker their signal."""
    waterfall: Positive = 0.023
    """With snr: threshold of the signal-to-noise ratio around which uploads are lost. [1]"""


@dataclass(frozen=True)
class Fdma:
    """Orthogonal shares, decided by the allocator."""

    config: Config
    link: Link

    def deliver(self, plan: Allocation, num_bits_K: Array, who: Participants, tick: int, rng: Rng) -> Outcome:
        """Latency [s], energy [J] and fate of each participant.

        Lost clients, reason "deadline" or "sensitivity", send until the deadline; those in "outage" trained and
        reported, but do not send; "packet_error" is noticed only when the upload has ended. The round lasts as long as
        its slowest sender, and plan.round_s where nobody sends. Raises ValueError for a sender without bandwidth.
        """
        channel = who.channel
        active_K = np.asarray(plan.active_K, dtype=bool)
        control_s_K = self.link.control_s(plan.control_bits_K)
        ready_s_K = who.downlink_s + np.asarray(who.compute_s_K, dtype=float) + control_s_K
        airtime_s_K = np.where(active_K, self._airtime_s(plan, num_bits_K, channel, active_K), 0.0)
        deadline_s = self._deadline_s(plan, channel)

        weak_K = active_K & (self._weak(plan, channel) | np.isinf(airtime_s_K))  # inf: no rate at all
        late_K = active_K & ~weak_K & is_late(ready_s_K + airtime_s_K, deadline_s)
        lost_K = weak_K | late_K
        # A client that is too weak is waited for until the deadline; without one, until the plan's end.
        wait_s = deadline_s if np.isfinite(deadline_s) else plan.round_s
        airtime_s_K = np.where(lost_K, np.maximum(wait_s - ready_s_K, 0.0), airtime_s_K)
        latency_K = np.where(lost_K, wait_s, ready_s_K + airtime_s_K)
        broken_K = active_K & ~lost_K & self._broken(plan, channel, tick, rng)

        reason_K = np.full(len(active_K), "", dtype=object)
        for name, who_K in (
            ("outage", ~active_K),
            ("sensitivity", weak_K),
            ("deadline", late_K),
            ("packet_error", broken_K),
        ):
            reason_K[who_K] = name
        return Outcome(
            arrived_K=active_K & ~lost_K & ~broken_K,
            latency_s_K=latency_K,
            energy_j_K=np.asarray(who.compute_j_K, dtype=float) + plan.power_w_K * (control_s_K + airtime_s_K),
            reason_K=tuple(reason_K),
            round_s=float(latency_K[active_K].max()) if active_K.any() else plan.round_s,
        )

    def receive(self, folded: Folded, outcome: Outcome, tick: int, rng: Rng) -> Tensors:
        """The identity: a digital upload arrives exactly or not at all."""
        return folded.values

    def _airtime_s(self, plan: Allocation, num_bits_K: Array, channel: ChannelState, active_K: Array) -> Array:
        bits_K = np.asarray(num_bits_K, dtype=float)
        starved_K = active_K & (bits_K > 0) & ~(plan.bandwidth_hz_K > 0)
        if starved_K.any():
            raise ValueError(f"clients {plan.clients_K[starved_K].tolist()} are to send but were given no bandwidth")
        snr_hz_K = self.link.snr_hz(channel.gain_K, plan.power_w_K)
        return self.link.airtime_s(bits_K, plan.bandwidth_hz_K, snr_hz_K)

    def _deadline_s(self, plan: Allocation, channel: ChannelState) -> float:
        """Seconds after which the server stops waiting; inf where it knows that all will come."""
        if self.config.deadline_s is not None:
            return self.config.deadline_s
        if np.array_equal(channel.gain_K, channel.reported_gain_K):
            return np.inf
        return plan.round_s * (1 + self.config.late_tolerance)

    def _weak(self, plan: Allocation, channel: ChannelState) -> Array:
        if self.config.sensitivity_dbm is None:
            return np.zeros(len(plan.active_K), dtype=bool)
        weak_K: Array = plan.power_w_K * channel.gain_K < dbm_to_watt(self.config.sensitivity_dbm)
        return weak_K

    def _broken(self, plan: Allocation, channel: ChannelState, tick: int, rng: Rng) -> Array:
        if self.config.packet_error == "none":
            return np.zeros(len(plan.active_K), dtype=bool)
        noise_w_K = self.link.noise_w_per_hz * plan.bandwidth_hz_K
        with np.errstate(divide="ignore", invalid="ignore"):  # silent clients may have neither power nor gain
            error_K = -np.expm1(-self.config.waterfall * noise_w_K / (plan.power_w_K * channel.gain_K))
        broken_K: Array = rng.uniform("uplink.packet_error", plan.clients_K, tick)[:, 0] < error_K
        return broken_K


def build(config: Config, link: Link) -> Fdma:
    """The uplink."""
    return Fdma(config, link)
