"""A fixed fraction of everybody's bits, and the bandwidth that ends the round earliest (see `solvers/fdma.py`).

The fraction is the codec's `kept_fraction`, rounded down to the menu, at least one unit.

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
    """The codec's fixed fraction, delivered as fast as the band allows."""
    units = cohort.units_for(np.full(len(cohort.clients_K), cohort.context.kept_fraction))
    return cohort.fastest_plan(units[cohort.index], {})


def build(config: Config, context: AllocationContext) -> Memoryless:
    """The allocator."""
    return Memoryless(config, context, decide)
