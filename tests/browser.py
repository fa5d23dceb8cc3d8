"""A headless Chromium for tests, driven through the DevTools protocol over a pipe: no port, no driver, no package."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-default-browser-check",
    "--remote-debugging-pipe",
    "--window-size=1200,900",
)
# Chromium reads commands from descriptor 3 and answers on 4; first out of the way, in case they are taken.
_EXEC = (
    "import fcntl, os, sys; r, w = (fcntl.fcntl(int(fd), fcntl.F_DUPFD, 10) for fd in sys.argv[1:3]); "
    "os.dup2(r, 3); os.dup2(w, 4); os.execv(sys.argv[3], sys.argv[3:])"
)


def find_chromium() -> str | None:
    """Path of an installed Chromium or Chrome."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


@dataclass
class Visit:
    """What happened while a page was open."""

    problems: list[str] = field(default_factory=list)  # console errors and warnings, uncaught exceptions, log entries
    requests: list[str] = field(default_factory=list)


class Browser:
    """One browser with one page; a context manager. Every wait ends after `timeout_s`."""

    def __init__(self, executable: str, timeout_s: float = 60.0) -> None:
        self.timeout_s = timeout_s
        self._profile = tempfile.mkdtemp(prefix="raysoft-browser-")
        from_us, self._write = os.pipe()
        self._read, to_us = os.pipe()
        self._log = (Path(self._profile) / "stderr").open("wb")
        command = [sys.executable, "-c", _EXEC, str(from_us), str(to_us), executable, *FLAGS]
        self._process = subprocess.Popen(
            [*command, f"--user-data-dir={self._profile}/profile", "about:blank"],
            pass_fds=(from_us, to_us),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._log,
            start_new_session=True,
        )
        os.close(from_us)
        os.close(to_us)
        self._buffer, self._number, self._session = b"", 0, None
        self._events: list[dict] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._write)  # the end of its commands: Chromium leaves
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)  # the group this class started
            self._process.wait(10)
        os.close(self._read)
        self._log.close()
        shutil.rmtree(self._profile, ignore_errors=True)

    def call(self, method: str, **params: object) -> dict:
        """Send one command and return its result. Raises RuntimeError on an error, TimeoutError on silence."""
        self._number += 1
        message: dict = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + self.timeout_s
        while True:
            reply = self._receive(deadline)
            if reply.get("id") == self._number:
                if "error" in reply:
                    raise RuntimeError(f"{method}: {reply['error']['message']}")
                return reply["result"]
            self._events.append(reply)

    def _receive(self, deadline: float) -> dict:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._read], [], [], max(0.0, deadline - time.monotonic()))
            chunk = os.read(self._read, 1 << 20) if ready else b""
            if not chunk:
                tail = (Path(self._profile) / "stderr").read_bytes()[-2000:].decode(errors="replace")
                raise TimeoutError(f"Chromium {'fell silent' if not ready else 'ended'}; it said: {tail}")
            self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(line)

    def open(self, url: str) -> Visit:
        """Load a page and wait until it and everything in it is loaded."""
        self._events.clear()
        if error := self.call("Page.navigate", url=url).get("errorText"):
            raise RuntimeError(f"{url}: {error}")
        deadline = time.monotonic() + self.timeout_s
        while not any(event.get("method") == "Page.loadEventFired" for event in self._events):
            self._events.append(self._receive(deadline))
        self.evaluate("new Promise(done => setTimeout(done, 200))")  # errors that come late
        return _visit(self._events)

    def evaluate(self, expression: str) -> object:
        """The JSON value of an expression in the page (a promise is awaited)."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{expression}: {answer['exceptionDetails']['text']}")
        return answer["result"].get("value")


def _visit(events: list[dict]) -> Visit:
    visit = Visit()
    for event in events:
        method, params = event.get("method"), event.get("params", {})
        if method == "Network.requestWillBeSent":
            visit.requests.append(params["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            visit.problems.append(params["exceptionDetails"]["text"])
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            visit.problems.append(" ".join(str(item.get("value")) for item in params["args"]))
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            visit.problems.append(params["entry"]["text"])
    return visit
