"""A notebook goes on after a run: what the run and the libraries it loads change in the process is put back."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

GRACE_S = 2.0  # for threads that are about to end, such as the one that feeds a queue of processes


@contextmanager
def undisturbed() -> Iterator[None]:
    """Environment, signal handlers, levels and handlers of loggers, filters of warnings are as before afterwards.

    A decorator, too: `@undisturbed()` covers what a function imports. Threads that the block has started and that end
    by themselves are waited for. (Numbers of threads of numerical libraries come back where they are set:
    runs/session.py.)
    """
    environment, handlers, loggers = dict(os.environ), _signals(), _loggers()
    threads, excepthook = set(threading.enumerate()), sys.excepthook
    with warnings.catch_warnings():  # importing scikit-learn or torch adds filters
        # tqdm has no widgets here, says whoever imports it in a notebook; no bar of it is shown.
        warnings.filterwarnings("ignore", message="IProgress not found")
        try:
            yield
        finally:
            _wait_for(set(threading.enumerate()) - threads)
            _restore_environment(environment)
            sys.excepthook = excepthook  # Ray has one of its own
            for number, handler in handlers.items():
                if signal.getsignal(number) is not handler:
                    signal.signal(number, handler)
            for logger, (level, attached) in loggers.items():
                logger.setLevel(level)
                logger.handlers[:] = attached


def _signals() -> dict[int, Any]:
    """The handlers that Python knows; a thread other than the main one can set none, so it loses none."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    known = ((number, signal.getsignal(number)) for number in signal.valid_signals())
    return {number: handler for number, handler in known if handler is not None}


def _loggers() -> dict[logging.Logger, tuple[int, list[logging.Handler]]]:
    named = [one for one in logging.Logger.manager.loggerDict.values() if isinstance(one, logging.Logger)]
    return {one: (one.level, list(one.handlers)) for one in (logging.getLogger(), *named)}


def _restore_environment(before: dict[str, str]) -> None:
    for name in os.environ.keys() - before.keys():
        del os.environ[name]
    for name, value in before.items():
        if os.environ.get(name) != value:
            os.environ[name] = value


def _wait_for(threads: set[threading.Thread]) -> None:
    until = time.monotonic() + GRACE_S
    for thread in threads - {threading.current_thread()}:
        thread.join(max(0.0, until - time.monotonic()))
