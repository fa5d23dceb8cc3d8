"""The errors a user may see. Each carries the exit code of the command line (design contract)."""

from __future__ import annotations

_LONGEST = 1500  # characters of a message: whatever it quotes, it can be read


class RaysoftError(Exception):
    """Anything that ends a run with one clear sentence instead of a traceback."""

    exit_code = 1

    def __str__(self) -> str:
        text = super().__str__()
        return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}... ({len(text):,} characters)"


class ConfigError(RaysoftError):
    """An invalid configuration: names the field, the value and what would be valid."""

    exit_code = 2

    def __init__(self, field: str, message: str) -> None:
        self.field = field
        self.message = message
        super().__init__(f"{field}: {message}" if field else message)

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        return type(self), (self.field, self.message)  # so that it crosses process borders


class ResourceError(RaysoftError):
    """Not enough cores or memory: carries the arithmetic and a setting that fits."""

    exit_code = 3


class PlugInError(RaysoftError):
    """A plug-in raised, or gave back what cannot be right; the message names it, the round and the client."""


class CoordinatorLostError(RaysoftError):
    """The process of a coordinator died, or was hung; another one can go on from the last checkpoint."""


class DiskHungError(RaysoftError):
    """What was to be written is not on disk after a time in which every disk should have taken it."""


class HeadLostError(RaysoftError):
    """The head of a Ray cluster died, and with it all that was started there."""
