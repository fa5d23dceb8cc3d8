"""What a caller may draw while a run goes on, and whether the run is to end early."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from raysoft.config import RunConfig
from raysoft.errors import RaysoftError
from raysoft.planning.events import Preparing
from raysoft.types import RoundRecord

Wish = Literal["stop"] | RaysoftError | None


class Events(Preparing):
    """What a caller may draw while a run goes on; these draw nothing."""

    def started(self, config: RunConfig, description: Mapping[str, str]) -> None:
        """The run is ready to begin."""

    def round(self, record: RoundRecord) -> None:
        """A round (or the base, round 0) is on disk."""

    def checkpoint(self, tick: int, folder: Path) -> None:
        """The checkpoint after a round is on disk."""

    def wish(self) -> Wish:
        """Asked after every round: None to go on, "stop" to end the run here properly, or an error that ends it."""
        return None
