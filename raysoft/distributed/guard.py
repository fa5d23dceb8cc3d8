"""Ends what is left of a Ray that was started for one run when the process that started it is killed.

Most of Ray's processes end with their driver; its agents go on for about a minute, looking for a head that is gone. Run
as a script: it watches its parent's children while standard input is open, and afterwards ends those of Ray that have
not ended by themselves. It knows each by pid and start time, so that it never meets a stranger.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil

LOOK_S = 2.0  # how often new children are looked for
GRACE_S = 1.0  # for those that end by themselves
_RAYS = re.compile(r"^ray::|gcs_server|raylet|/ray/(?:dashboard|_private|autoscaler|core)/")


@contextlib.contextmanager
def guarded() -> Iterator[None]:
    """While the block runs, and after it, however it ends: no process of Ray outlives this one."""
    guard = subprocess.Popen(
        [sys.executable, str(Path(__file__)), str(os.getpid())],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    assert guard.stdin is not None
    try:
        yield
    finally:
        guard.stdin.close()  # what a killed parent does too
        with contextlib.suppress(subprocess.TimeoutExpired):
            guard.wait(4 * GRACE_S)


def _watch(parent: psutil.Process) -> list[psutil.Process]:
    """Every process of Ray that the parent had while standard input was open."""
    seen: dict[tuple[int, float], psutil.Process] = {}
    ended = False
    while not ended:
        with contextlib.suppress(psutil.Error):
            for one in parent.children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    if (one.pid, one.create_time()) not in seen and _is_rays(one):
                        seen[one.pid, one.create_time()] = one
        ready, _, _ = select.select([sys.stdin], [], [], LOOK_S)
        ended = bool(ready) and not os.read(0, 1)
    return list(seen.values())


def _is_rays(process: psutil.Process) -> bool:
    return bool(_RAYS.search(process.name()) or _RAYS.search(" ".join(process.cmdline())))


def main() -> None:
    """Watch, wait, end."""
    left = _watch(psutil.Process(int(sys.argv[1])))
    for one in psutil.wait_procs(left, timeout=GRACE_S)[1]:
        with contextlib.suppress(psutil.Error):
            one.kill()  # psutil refuses a pid that belongs to another process by now


if __name__ == "__main__":
    main()
