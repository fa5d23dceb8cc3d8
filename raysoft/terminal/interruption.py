"""SIGTERM as a clean interruption: what `ray job stop`, Slurm and Kubernetes send before they kill."""

from __future__ import annotations

import signal
import threading
from typing import Any


class Terminated(KeyboardInterrupt):
    """Somebody asked this process to end; whatever handles Ctrl-C handles it."""


_asked: list[int] = []  # signals that have come: a library on the way may turn the exception into something else


def terminated() -> bool:
    """Whether SIGTERM has come."""
    return bool(_asked)


def end_on_sigterm() -> None:
    """From now on SIGTERM raises Terminated in the main thread; a second one ends the process at once."""

    def handler(number: int, frame: Any) -> None:
        signal.signal(number, signal.SIG_DFL)
        _asked.append(number)
        raise Terminated

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)
