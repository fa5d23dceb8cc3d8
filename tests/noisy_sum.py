"""Uplink `noisy_sum`: updates add up on the air, and the receiver hears the mean with Gaussian noise.

An example of an analog uplink, as a package of its own would have it. All clients are aligned, so the factors of the
sum are the target weights themselves. The noise is drawn by the key (round, name); where nobody sent anything the
receiver listens to nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from raysoft.config import NonNegative, Traits
from raysoft.rng import Rng
from raysoft.types import Allocation, Array, Folded, Outcome, Participants, Tensors
from raysoft.uplinks.base import UplinkConfig
from raysoft.wireless.link import Link


class Config(UplinkConfig):
    """`noise_std`: standard deviation of the noise of every received value."""

    TRAITS: ClassVar[Traits] = Traits(shares_band=False, analog=True)

    noise_std: NonNegative = 0.01


@dataclass(frozen=True)
class NoisySum:
    """See the module."""

    config: Config

    def deliver(self, plan: Allocation, num_bits_K: Array, who: Participants, tick: int, rng: Rng) -> Outcome:
        """Everybody who was told to send is heard, at no cost."""
        active_K = np.asarray(plan.active_K, dtype=bool)
        seconds_K = who.downlink_s + who.compute_s_K
        weights_K = np.where(active_K, who.weights_K, 0.0)
        return Outcome(
            arrived_K=active_K,
            latency_s_K=seconds_K,
            energy_j_K=np.asarray(who.compute_j_K, dtype=float),
            reason_K=tuple(np.where(active_K, "", "outage").tolist()),
            round_s=float(seconds_K.max()),
            mix_K=weights_K / max(weights_K.sum(), 1e-300),
            noise_std=self.config.noise_std,
        )

    def receive(self, folded: Folded, outcome: Outcome, tick: int, rng: Rng) -> Tensors:
        """The sums with noise where somebody sent."""
        heard = {}
        for name, value in folded.values.items():
            noise = outcome.noise_std * rng(f"noisy_sum.{name}", tick).standard_normal(value.shape)
            heard[name] = value + np.where(folded.support[name], noise, 0.0)
        return heard


def build(config: Config, link: Link) -> NoisySum:
    """The uplink."""
    return NoisySum(config)
