"""SIGTERM as a clean interruption: what `ray job stop`, Slurm and Kubernetes send before they kill."""

from __future__ import annotations

import signal
import threading
from typing import Any


class Terminated(KeyboardInterrupt):  # noqa: N818 - not an error: somebody asked for it
    """Somebody asked this process to end; whatever handles Ctrl-C handles it."""


def end_on_sigterm() -> None:
    """From now on SIGTERM raises Terminated in the main thread; a second one ends the process at once."""

    def handler(number: int, frame: Any) -> None:
        signal.signal(number, signal.SIG_DFL)
        raise Terminated

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)
