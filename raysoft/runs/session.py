"""A coordinator, wherever it lives: in this process, in an actor of Ray, or where a caller has put it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from raysoft.config import RunConfig
from raysoft.types import GlobalModel, RoundRecord

if TYPE_CHECKING:
    from raysoft.federation.coordinator import Started
    from raysoft.federation.parts import RunState


class Session(Protocol):
    """A coordinator, wherever it lives."""

    def start(self, state: RunState | None = None) -> Started:
        """Make ready, with the state of a checkpoint or from the beginning; raises ConfigError on bad input."""
        ...

    def baseline(self) -> RoundRecord:
        """Round 0, the untouched base."""
        ...

    def round(self, tick: int) -> RoundRecord:
        """The next round. Raises CoordinatorLostError where the coordinator's process has died."""
        ...

    def snapshot(self) -> RunState:
        """All that the rounds so far have changed."""
        ...

    def finish(self) -> tuple[GlobalModel, dict[str, Any], dict[str, Any]]:
        """The global values and run totals."""
        ...

    def fetch_base(self) -> Any:
        """The frozen base."""
        ...


Sessions = Callable[[RunConfig], AbstractContextManager[Session]]


@contextmanager
def own_session(config: RunConfig) -> Iterator[Session]:
    """A coordinator in this process, or in an actor of a Ray that this call starts and stops."""
    if config.executor == "inline":
        from raysoft.federation.coordinator import Coordinator
        from raysoft.federation.executor import InlineExecutor, pin_threads
        from raysoft.models.runtime import threads_kept

        # The caller's own thread counts come back afterwards: torch's, and those of the libraries that are loaded.
        with threads_kept(), pin_threads(config.actors.threads):
            yield Coordinator(config, InlineExecutor(config))
    else:
        from raysoft.distributed.session import ray_session

        with ray_session(config) as coordinator:
            yield coordinator
