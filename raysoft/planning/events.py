"""What everything that takes a while tells its caller: the base of the events of runs, comparisons and sweeps."""

from __future__ import annotations


class Preparing:
    """Draws nothing; a caller that draws overrides what it shows."""

    def preparing(self, fraction: float, text: str) -> None:
        """Something other than the work itself is going on: a base, a start, a report, a step of the plan."""
