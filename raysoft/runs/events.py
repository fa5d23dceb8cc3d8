"""What a caller may draw while a run goes on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from raysoft.config import RunConfig
from raysoft.planning.events import Preparing
from raysoft.types import RoundRecord


class Events(Preparing):
    """What a caller may draw while a run goes on; these draw nothing."""

    def started(self, config: RunConfig, description: Mapping[str, str]) -> None:
        """The run is ready to begin."""

    def round(self, record: RoundRecord) -> None:
        """A round (or the base, round 0) is on disk."""

    def checkpoint(self, tick: int, folder: Path) -> None:
        """The checkpoint after a round is on disk."""
