"""TensorBoard event files in the run folder, one step a round."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from concurrent.futures import Future, wait
from importlib import import_module
from typing import Any

from raysoft.federation.liveness import in_background
from raysoft.rundir.folder import TENSORBOARD
from raysoft.runs.trackers.base import FINISH_S, Beginning, Row, curves


class TensorBoard:
    """Curves under `tensorboard/`; a resumed run hides what was drawn after the round it goes on from.

    The library imports torch, which takes more than a second of the first rounds: a thread does that, and the rounds
    until then wait in memory.
    """

    name = "TensorBoard"

    def __init__(self) -> None:
        self._writer: Any = None
        self._folder = ""
        self._purge_step: int | None = None
        self._last_round = -1
        self._waiting: list[Row] = []
        self._turn = threading.Lock()  # for the writer and what waits for it
        self._importing: Future[None] | None = None

    def start(self, begin: Beginning) -> None:
        """Begin to import the library."""
        self._folder = str(begin.folder / TENSORBOARD)
        self._purge_step = begin.earlier[-1]["round"] + 1 if begin.earlier else None
        self._importing = in_background(self._import, "tensorboard")

    def _import(self) -> None:
        import_module("tensorboardX")
        with self._turn:
            self._open(self._purge_step)
            self._write()

    def _open(self, purge_step: int | None) -> None:
        from tensorboardX import SummaryWriter

        # The library names a file by the second, and would write over one that is younger.
        suffix = "" if purge_step is None else f".from-{purge_step}"
        self._writer = SummaryWriter(self._folder, purge_step=purge_step, filename_suffix=suffix)

    def round(self, row: Row) -> None:
        """Every number of a round, on disk before this returns, once the library is there."""
        with self._turn:
            self._waiting.append(row)
            if self._writer is not None:
                self._write()
        if self._importing is not None and self._importing.done():
            self._importing.result()  # raises what was wrong

    def _write(self) -> None:
        for row in self._waiting:
            if row["round"] <= self._last_round:
                self._writer.close()
                self._open(row["round"])
            self._last_round = row["round"]
            for name, value in curves(row):
                self._writer.add_scalar(name, value, global_step=row["round"])
        self._waiting.clear()
        self._writer.flush()

    def finish(self, summary: Mapping[str, Any], within_s: float) -> None:
        """Close the file."""
        self._close(within_s)
        if self._importing is not None:
            self._importing.result(0)

    def drop(self) -> None:
        """Close the file."""
        self._close(FINISH_S)

    def _close(self, within_s: float) -> None:
        if self._importing is not None:
            wait([self._importing], within_s)  # a process that ends in the middle of an import may crash
        with self._turn:
            if self._writer is not None:
                self._writer.close()
                self._writer = None
