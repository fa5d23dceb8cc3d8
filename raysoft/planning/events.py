"""What everything that takes a while tells its caller: the base of the events of runs, comparisons and sweeps."""

from __future__ import annotations

from collections.abc import Sequence


class Preparing:
    """Draws nothing; a caller that draws overrides what it shows."""

    def preparing(self, fraction: float, text: str) -> None:
        """Something other than the work itself is going on: a base, a start, a report, a step of the plan."""

    def rank_chosen(self, rank: int, ranks: Sequence[int]) -> None:
        """The plan of a run (model.lora.rank=plan) has chosen one of these ranks."""
