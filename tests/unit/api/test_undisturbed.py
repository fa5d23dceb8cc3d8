"""What a block changes in the process is put back, whatever happens in it."""

import logging
import os
import signal
import threading
import time
import warnings

import pytest

from raysoft.api import undisturbed as module
from raysoft.api.undisturbed import undisturbed


def state():
    root = logging.getLogger()
    return {
        "environment": dict(os.environ),
        "handlers": [signal.getsignal(number) for number in sorted(signal.valid_signals())],
        "root": (root.level, list(root.handlers), logging.getLogger("raysoft").level),
        "filters": list(warnings.filters),
        "threads": {thread.name for thread in threading.enumerate()},
    }


def disturb():
    os.environ["RAYSOFT_TEST_NEW"] = "1"
    os.environ["PATH"] += ":/nowhere"
    os.environ.pop("HOME", None)
    signal.signal(signal.SIGTERM, lambda *_: None)
    logging.getLogger().setLevel(logging.DEBUG)
    logging.getLogger().addHandler(logging.NullHandler())
    logging.getLogger("raysoft").setLevel(logging.CRITICAL)
    warnings.simplefilter("error")
    threading.Thread(target=time.sleep, args=(0.2,), name="ends-soon", daemon=True).start()


@pytest.mark.parametrize("error", [None, ValueError, KeyboardInterrupt])
def test_everything_is_as_before(error):
    before = state()
    try:
        with undisturbed():
            disturb()
            assert state() != before
            if error is not None:
                raise error
    except BaseException as raised:
        assert type(raised) is error
    assert state() == before


def test_a_thread_that_stays_is_not_waited_for_for_ever(monkeypatch):
    monkeypatch.setattr(module, "GRACE_S", 0.1)
    done = threading.Event()
    began = time.monotonic()
    with undisturbed():
        threading.Thread(target=done.wait, args=(30,), daemon=True).start()
    assert time.monotonic() - began < 10
    done.set()


def test_it_works_in_another_thread_which_may_set_no_signals():
    failed = []

    def work():
        try:
            with undisturbed():
                os.environ["RAYSOFT_TEST_NEW"] = "1"
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(30)
    assert failed == []
    assert "RAYSOFT_TEST_NEW" not in os.environ
