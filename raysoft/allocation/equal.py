"""The plainest rule: an equal share of the band for every sender, a fixed fraction of its bits.

The fraction is the codec's `kept_fraction`, rounded down to the menu, at least one unit. The slowest channel decides
how long the round takes.

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
    """B / (number of senders) for each, and the codec's fixed fraction."""
    senders = max(cohort.index.size, 1)
    bandwidth = np.where(cohort.active_K, cohort.context.link.bandwidth_hz / senders, 0.0)
    units = cohort.units_for(np.full(len(cohort.clients_K), cohort.context.kept_fraction))
    return cohort.plan(units, bandwidth, {})


def build(config: Config, context: AllocationContext) -> Memoryless:
    """The allocator."""
    return Memoryless(config, context, decide)
