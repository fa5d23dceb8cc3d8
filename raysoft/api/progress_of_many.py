"""What is shown while a comparison or a sweep goes on, on the boards of progress.py."""

from __future__ import annotations

from raysoft.api.progress import Board
from raysoft.comparison.batch import BatchEvents, Job, JobOutcome, head_line, outcome_line, waiting_line
from raysoft.sweep.driver import SweepEvents
from raysoft.sweep.folder import FAILED


class BatchProgress(BatchEvents):
    """Events of many runs on a board, as a comparison has them."""

    def __init__(self, shown: Board) -> None:
        self._board = shown
        self._runs = self._done = self._known = self._rounds = 0
        self._seen: dict[int, int] = {}  # rounds of a job that the bar has counted

    def preparing(self, fraction: float, text: str) -> None:
        """Something other than runs."""
        self._board.move(text, 100 * fraction, 100 if fraction else None)

    def planned(self, total: int, reused: int, rounds: int) -> None:
        """How much there is to do."""
        self._runs, self._known, self._rounds = total, reused, rounds
        self._board.say(head_line(total, reused, rounds))

    def round(self, job: Job, tick: int) -> None:
        """Move the bar."""
        self._seen[id(job)] = tick
        self._board.move("rounds", sum(self._seen.values()), self._rounds)

    def finished(self, outcome: JobOutcome) -> None:
        """One line."""
        self._done += 1
        if self._done <= self._known:
            return
        self._board.say(outcome_line(outcome, self._done, self._runs))
        self.round(outcome.job, outcome.job.config.rounds)  # also those that a failed run has left out

    def waiting(self, runs: int) -> None:
        """Others are at work."""
        self.preparing(0.0, waiting_line(runs))


class SweepProgress(SweepEvents):
    """Events of a sweep on a board."""

    def __init__(self, shown: Board) -> None:
        self._board = shown
        self._total = self._ended = 0

    def preparing(self, fraction: float, text: str) -> None:
        """Something other than trials."""
        self._board.move(text, 100 * fraction, 100 if fraction else None)

    def planned(self, total: int, done: int, at_once: int | None) -> None:
        """How much there is to do."""
        self._total, self._ended = total, done
        before = f", {done} of them done before" if done else ""
        self._board.say(f"{total} trials{before}; {at_once or 'as many as nodes come'} side by side")
        self._board.move("trials", done, total)

    def finished(self, trial: str, status: str, text: str) -> None:
        """One line."""
        self._ended += 1
        self._board.say(f"[{self._ended}/{self._total}] {trial}: {'FAILED: ' if status == FAILED else ''}{text}")
        self._board.move("trials", self._ended, self._total)
