"""All trackers of a run behind one: a tracker that fails is switched off with a warning, and the run goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

from raysoft.config import RunConfig
from raysoft.runs.trackers.base import FINISH_S, Beginning, Row, Tracker, log


class Trackers:
    """All trackers of a run. Nothing here raises but KeyboardInterrupt."""

    def __init__(self, members: Iterable[Tracker]) -> None:
        self._members = list(members)
        self.started = False

    def start(self, begin: Beginning) -> None:
        """Begin, once the run has something to show."""
        self.started = True
        for tracker in list(self._members):
            self._guarded(tracker, partial(tracker.start, begin))

    def round(self, row: Row) -> None:
        """Show one round."""
        for tracker in list(self._members):
            self._guarded(tracker, partial(tracker.round, row))

    def finish(self, summary: Mapping[str, Any], within_s: float = FINISH_S) -> dict[str, str]:
        """Close every tracker within `within_s` seconds; {tracker: line for the reader}."""
        notes: dict[str, str] = {}
        members, self._members = (self._members if self.started else []), []
        for tracker in members:
            note = self._guarded(tracker, partial(tracker.finish, summary, within_s))
            if note:
                notes[tracker.name] = note
        return notes

    def _guarded(self, tracker: Tracker, call: Callable[[], str | None]) -> str | None:
        try:
            return call()
        except Exception as error:
            reason = " ".join((str(error) or type(error).__name__).split())[:300]
            log.warning("%s is switched off for the rest of this run: %s", tracker.name, reason)
            self._drop(tracker)
        except BaseException:  # Ctrl-C while a tracker ends
            self._drop(tracker)
            raise
        return None

    def _drop(self, tracker: Tracker) -> None:
        with suppress(Exception):
            tracker.drop()
        with suppress(ValueError):
            self._members.remove(tracker)


def trackers_of(config: RunConfig) -> Trackers:
    """The trackers that a configuration asks for; no library is loaded before the run has begun."""
    from raysoft.runs.trackers.prometheus import Prometheus
    from raysoft.runs.trackers.tensorboard import TensorBoard
    from raysoft.runs.trackers.wandb_tracker import Wandb, allowed

    asked = config.tracking
    members: list[Tracker] = []
    if asked.tensorboard:
        members.append(TensorBoard())
    if asked.prometheus:
        members.append(Prometheus())
    if allowed(asked.wandb):
        members.append(Wandb(asked.wandb))
    return Trackers(members)


def in_sweep(config: RunConfig, sweep: str, trial: str) -> RunConfig:
    """A trial's configuration: W&B groups it under the sweep, by its own name, unless the user has chosen others."""
    wandb = config.tracking.wandb
    wandb = wandb.model_copy(update={"group": wandb.group or sweep, "name": wandb.name or trial})
    return config.model_copy(update={"tracking": config.tracking.model_copy(update={"wandb": wandb})})
