"""What an allocator decides: before training who takes part, after training units, bandwidth and power.

State (queues, budgets) is a mapping of arrays that the coordinator owns and checkpoints; allocators hold none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Protocol

import numpy as np
from pydantic import Field

from raysoft.config import Positive, Section
from raysoft.rng import Rng
from raysoft.types import Allocation, Array, ChannelState, ClientReport, Outcome, Participants
from raysoft.wireless.link import Link


class AllocatorConfig(Section):
    """Options every allocator has."""

    latency_budget_s: Positive | None = None  # long-term mean round latency; None: no budget
    outage_factor: Annotated[float, Field(gt=0)] = 2.0


@dataclass(frozen=True)
class AllocationContext:
    """What an allocator knows besides the reports: the radio link and the codec's fixed fractions."""

    link: Link
    kept_fraction: float
    min_kept_fraction: float
    payload_scale: float  # payload bits are multiplied by this on the air


State = Mapping[str, Array]
BACKLOG = "queue_s"
"""A scalar of this name in an allocator's state is what it has overrun its budget by, in seconds; records quote it."""


def kept_fractions(plan: Allocation, reports: Sequence[ClientReport]) -> Array:
    """Share of the bits on its menu that each client may send, [K]: 0 where it is told not to.

    nan where an active client has no bits on it (only a head is trained).
    """
    kept_K = np.zeros(len(reports))
    for k in np.flatnonzero(plan.active_K).tolist():
        bits_J = reports[k].curve.bits_J
        kept_K[k] = bits_J[int(plan.units_K[k])] / bits_J[-1] if bits_J[-1] else np.nan
    return kept_K


class Allocator(Protocol):
    """Built from (config, AllocationContext); runs in the coordinator only.

    What it needs of the others is in its Config's traits: `needs_budget`, `needs_channel`, `reads_curves`.
    """

    def init(self) -> State:
        """State before the first round."""
        ...

    def select(self, candidates_K: Array, channel: ChannelState, state: State, tick: int, rng: Rng) -> Array:
        """The cohort (sorted client ids), chosen among the keyed candidates."""
        ...

    def allocate(
        self, reports: tuple[ClientReport, ...], who: Participants, state: State, tick: int, rng: Rng
    ) -> Allocation:
        """Outage, units, bandwidth and predicted latency."""
        ...

    def observe(self, plan: Allocation, outcome: Outcome, state: State) -> State:
        """The next state, from the realised latency."""
        ...
