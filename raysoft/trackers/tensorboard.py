"""TensorBoard event files in the run folder, one step a round."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from raysoft.trackers import Beginning, Row, curves
from raysoft.tracking import TENSORBOARD


class TensorBoard:
    """Curves under `tensorboard/`; a resumed run hides what was drawn after the round it goes on from."""

    name = "TensorBoard"
    imports: ClassVar[tuple[str, ...]] = ("tensorboardX",)

    def __init__(self) -> None:
        self._writer: Any = None
        self._folder = ""
        self._last_round = -1

    def start(self, begin: Beginning) -> None:
        """Open a new event file."""
        self._folder = str(begin.folder / TENSORBOARD)
        self._open(begin.earlier[-1]["round"] + 1 if begin.earlier else None)

    def _open(self, purge_step: int | None) -> None:
        from tensorboardX import SummaryWriter

        # The library names a file by the second, and would write over one that is younger.
        suffix = "" if purge_step is None else f".from-{purge_step}"
        self._writer = SummaryWriter(self._folder, purge_step=purge_step, filename_suffix=suffix)

    def round(self, row: Row) -> None:
        """Every number of a round, on disk before this returns."""
        if row["round"] <= self._last_round:
            self.drop()
            self._open(row["round"])
        self._last_round = row["round"]
        for name, value in curves(row):
            self._writer.add_scalar(name, value, global_step=row["round"])
        self._writer.flush()

    def finish(self, summary: Mapping[str, Any], within_s: float) -> None:
        """Close the file."""
        self.drop()

    def drop(self) -> None:
        """Close the file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
