"""Writes checkpoints beside the run: the round after goes on while the state of the one before goes to disk."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from concurrent.futures import wait as wait_for
from pathlib import Path

from raysoft.config import CheckpointConfig
from raysoft.errors import DiskHungError
from raysoft.federation.liveness import in_background
from raysoft.runs.checkpoint import Checkpoint, prune, save


class CheckpointWriter:
    """At most one checkpoint is on its way at a time; states are immutable, so they need no copy.

    A context manager: leaving it waits for the last checkpoint, also when the run has failed. No wait is longer than
    `timeout_s`: a disk that hangs (a network file system, a failing device) hangs whoever waits for it.
    """

    def __init__(
        self, folder: Path, config: CheckpointConfig, rounds_file: Path | None = None, timeout_s: float = 300.0
    ) -> None:
        self._folder = folder
        self._timeout_s = timeout_s
        self._rounds_file = rounds_file
        self._config = config
        self._pending: Future[tuple[int, Path]] | None = None

    def due(self, tick: int, last: int, ends: bool = False) -> bool:
        """Whether the state after this round is to be saved; `last`: the run's last round.

        `ends`: somebody ends the run here, who was promised that it can go on, also without `checkpoint.every`.
        """
        every = self._config.every
        return tick > 0 and (ends or (every is not None and (tick % every == 0 or tick == last)))

    def put(self, checkpoint: Checkpoint) -> None:
        """Begin to write; what became of the one before has to be asked first, by `written(wait=True)`."""
        assert self._pending is None
        self._pending = in_background(lambda: self._write(checkpoint), "checkpoint")

    def written(self, wait: bool = False) -> Iterator[tuple[int, Path]]:
        """Round and folder of a checkpoint that is on disk since the last call.

        Raises RaysoftError if it failed, DiskHungError if the disk did not take it in time.
        """
        if self._pending is not None and (wait or self._pending.done()):
            pending, self._pending = self._pending, None
            self._wait_for(pending)
            yield pending.result()

    def _wait_for(self, pending: Future[tuple[int, Path]]) -> None:
        if not wait_for([pending], self._timeout_s).done:
            raise DiskHungError(
                f"{self._folder}: a checkpoint was not on disk within actors.timeout_s={self._timeout_s:g} seconds; "
                "does the disk (a network file system?) answer?"
            )

    def __enter__(self) -> CheckpointWriter:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pending is not None:
            wait_for([self._pending], self._timeout_s)

    def _write(self, checkpoint: Checkpoint) -> tuple[int, Path]:
        path = save(checkpoint, self._folder, self._rounds_file)
        prune(self._folder, self._config.keep, self._config.keep_every)
        return checkpoint.round, path
