"""Objects of a caller that look on while runs go on, and may end them.

A callback has any of four methods: `on_start(run)`, `on_round(run, record)`, `on_checkpoint(run, folder)` and
`on_end(run, summary)`. The first three may return "stop". `Callback` is a base class that completes in an editor; any
other object with one of the methods will do.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

from raysoft.errors import ConfigError, RaysoftError

if TYPE_CHECKING:
    from raysoft.config import RunConfig
    from raysoft.types import RoundRecord

log = logging.getLogger("raysoft")
HOOKS = ("on_start", "on_round", "on_checkpoint", "on_end")
Verdict: TypeAlias = Literal["stop"] | None


@dataclass(frozen=True)
class Running:
    """The run that a callback looks on at. `name`: of its folder, in a comparison the label of its arm.

    `description`: what the run is on, in words (model, data, clients), as the log of a run begins; empty in a
    comparison. `folder`: where it is being written.
    """

    name: str
    folder: Path
    config: RunConfig
    description: Mapping[str, str] = field(default_factory=dict)

    @property
    def seed(self) -> int:
        """Of its configuration."""
        return self.config.seed


class Callback:
    """A base for callbacks: override what is of interest.

    Exceptions raised here end the run in one sentence that names the callback; its state is on disk by then, and
    `raysoft.resume` goes on with it.
    """

    def on_start(self, run: Running) -> Verdict:
        """Model and data are loaded and round 0, the untouched base, comes next."""
        return None

    def on_round(self, run: Running, record: RoundRecord) -> Verdict:
        """A round (0: the untouched base) is on disk."""
        return None

    def on_checkpoint(self, run: Running, folder: Path) -> Verdict:
        """The checkpoint in `folder` is on disk (written beside the next round, so it is told after that one)."""
        return None

    def on_end(self, run: Running, summary: Mapping[str, Any]) -> None:
        """The run has ended, with `summary["status"]` done, stopped, interrupted or failed."""


class HasStart(Protocol):
    """An object with `on_start`."""

    def on_start(self, run: Running) -> Verdict:
        """See Callback."""
        ...


class HasRound(Protocol):
    """An object with `on_round`."""

    def on_round(self, run: Running, record: RoundRecord) -> Verdict:
        """See Callback."""
        ...


class HasCheckpoint(Protocol):
    """An object with `on_checkpoint`."""

    def on_checkpoint(self, run: Running, folder: Path) -> Verdict:
        """See Callback."""
        ...


class HasEnd(Protocol):
    """An object with `on_end`."""

    def on_end(self, run: Running, summary: Mapping[str, Any]) -> None:
        """See Callback."""
        ...


AnyCallback: TypeAlias = HasStart | HasRound | HasCheckpoint | HasEnd
Callbacks: TypeAlias = AnyCallback | Sequence[AnyCallback]


class CallbackError(RaysoftError):
    """A callback raised, or returned what means nothing; `__cause__` is what it raised."""


class Calls:
    """Calls the callbacks in their order. The first that fails or wants an end decides; `wish` says what."""

    def __init__(self, callbacks: Callbacks) -> None:
        self._callbacks = tuple(callbacks) if isinstance(callbacks, Sequence) else (callbacks,)
        for one in self._callbacks:
            _check(one)
        self.wish: Literal["stop"] | CallbackError | None = None

    def tell(self, hook: str, run: Running, *more: Any) -> None:
        """Call one of on_start, on_round, on_checkpoint of each."""
        for one in self._callbacks:
            if isinstance(self.wish, CallbackError):
                return
            answer = self._call(one, hook, run, *more)
            if isinstance(answer, CallbackError) or self.wish is None:
                self.wish = answer

    def tell_end(self, run: Running, summary: Mapping[str, Any]) -> CallbackError | None:
        """Call on_end of each, whatever another has raised; the first error."""
        answers = [self._call(one, "on_end", run, summary) for one in self._callbacks]
        return next((one for one in answers if isinstance(one, CallbackError)), None)

    @staticmethod
    def _call(callback: Any, hook: str, *args: Any) -> Literal["stop"] | CallbackError | None:
        method = getattr(callback, hook, None)
        if method is None:
            return None
        name = f"the callback {type(callback).__qualname__}.{hook}"
        try:
            answer = method(*args)
        except (Exception, SystemExit) as error:
            what = " ".join(f"{type(error).__name__}: {error}".split())
            failed = CallbackError(f"{name} raised {what}")
            failed.__cause__ = error
            return failed
        if answer is None or (answer == "stop" and hook != "on_end"):
            return answer  # type: ignore[no-any-return]
        wanted = "nothing" if hook == "on_end" else '"stop" or nothing'
        return CallbackError(f"{name} returned {answer!r:.60}, but may return {wanted}")


def _check(callback: Any) -> None:
    """Raise ConfigError for an object that would never be called, or has a hook that would not."""
    kind = callback if isinstance(callback, type) else type(callback)
    if isinstance(callback, type):
        raise ConfigError("callbacks", f"{kind.__qualname__} is a class; give an object of it, {kind.__qualname__}()")
    strange = [name for name in dir(callback) if name.startswith("on_") and name not in HOOKS]
    if strange:
        raise ConfigError(
            "callbacks", f"{kind.__qualname__} has {strange[0]}, but is asked for {', '.join(HOOKS)} only"
        )
    if not any(callable(getattr(callback, hook, None)) for hook in HOOKS):
        raise ConfigError("callbacks", f"{kind.__qualname__} has none of {', '.join(HOOKS)}")
