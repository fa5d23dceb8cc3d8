"""A random fraction of each client's bits, and the bandwidth that ends the round earliest.

Uniform between the codec's `min_kept_fraction` and 1, keyed by client and round: what adapting the fraction to channel
and update is worth.

Source: this project's.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from raysoft.allocation.base import AllocationContext, AllocatorConfig
from raysoft.allocation.cohort import Cohort
from raysoft.allocation.memoryless import Memoryless
from raysoft.config import Traits
from raysoft.rng import Rng
from raysoft.types import Allocation


class Config(AllocatorConfig):
    """Nothing of its own; a budget matters to the outage rule only."""

    TRAITS: ClassVar[Traits] = Traits(reads_curves=False)


def decide(cohort: Cohort, tick: int, rng: Rng) -> Allocation:
    """Fractions drawn for (client, tick), delivered as fast as the band allows."""
    draw_K = rng.uniform("allocator.random", cohort.clients_K, tick)[:, 0]
    least = cohort.context.min_kept_fraction
    units = np.maximum(cohort.units_for(least + (1.0 - least) * draw_K), cohort.menus.least_K)
    return cohort.fastest_plan(units[cohort.index], {})


def build(config: Config, context: AllocationContext) -> Memoryless:
    """The allocator."""
    return Memoryless(config, context, decide)
