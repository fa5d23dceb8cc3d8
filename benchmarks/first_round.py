"""Time from the command to the first trained round: inline, on a Ray of its own, and as a Ray job.

Preset `soft` through the command line, A B C A B C; medians of wall time from the start of the command until line 1 of
rounds.jsonl is on disk (line 0 is the untouched base). The pretrained base is in the cache. The job goes to a local
head (127.0.0.1, token authentication, ports of its own) that is started once before and ended afterwards; its own start
is shown apart. CPU seconds are those of the command and its children until it has ended, where they can be seen.

Wall time is what a user waits for, but says little on a machine that does other things meanwhile.

    python benchmarks/first_round.py [--repeats 3] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import secrets
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import raysoft

RUN = ["-m", "raysoft", "run", "soft", "rounds=1", "tracking.tensorboard=false"]
BOUND_S = 300.0
SOURCE = str(Path(raysoft.__file__).parents[1])


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody uses now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


@contextmanager
def head(folder: Path) -> Iterator[tuple[dict[str, str], str]]:
    """A Ray head of its own: the environment of commands that use it, and its dashboard's address."""
    token = folder / "token"
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(32))
    env = {
        **os.environ,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_USAGE_STATS_ENABLED": "0",
        "PYTHONPATH": os.pathsep.join(filter(None, (SOURCE, os.environ.get("PYTHONPATH")))),
    }
    port, dashboard, client, listen = free_ports(4)
    ray_command = str(Path(sys.executable).parent / "ray")
    started = subprocess.Popen(
        [
            ray_command,
            "start",
            "--head",
            "--block",
            "--node-ip-address=127.0.0.1",
            f"--port={port}",
            "--dashboard-host=127.0.0.1",
            f"--dashboard-port={dashboard}",
            f"--ray-client-server-port={client}",
            f"--dashboard-agent-listen-port={listen}",
            "--min-worker-port=0",
            "--max-worker-port=0",
            f"--temp-dir={folder}/ray",
            "--disable-usage-stats",
        ],
        env=env,
        stdout=(folder / "head.log").open("w"),
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        until = time.monotonic() + BOUND_S
        while True:
            with suppress(OSError), socket.create_connection(("127.0.0.1", dashboard), timeout=1):
                break
            if started.poll() is not None or time.monotonic() > until:
                raise SystemExit(f"the head did not start:\n{(folder / 'head.log').read_text()[-2000:]}")
            time.sleep(0.1)
        yield {**env, "RAY_ADDRESS": f"127.0.0.1:{port}"}, f"http://127.0.0.1:{dashboard}"
    finally:
        started.terminate()  # `ray start --block` ends what it has started
        with suppress(subprocess.TimeoutExpired):
            started.wait(30)
        with suppress(ProcessLookupError):
            os.killpg(started.pid, signal.SIGKILL)


def seconds_to_first_round(command: list[str], env: dict[str, str], out: Path) -> tuple[float, float]:
    """Wall time until line 1 is there; CPU time of the whole command. SystemExit where it fails."""
    began, spent = time.perf_counter(), _children_cpu()
    with (out.parent / "log").open("w") as log:
        process = subprocess.Popen(command, env=env, stdout=log, stderr=subprocess.STDOUT)
        try:
            first = None
            while first is None:
                with suppress(OSError):
                    if (out / "rounds.jsonl").read_bytes().count(b"\n") >= 2:
                        first = time.perf_counter() - began
                ended = process.poll()
                if first is None and ((ended is not None) or time.perf_counter() - began > BOUND_S):
                    raise SystemExit(
                        f"{' '.join(command)} ended with {ended}:\n{(out.parent / 'log').read_text()[-2000:]}"
                    )
                time.sleep(0.02)
            process.wait(BOUND_S)
        finally:
            process.kill()
            process.wait()
    return first, _children_cpu() - spent


def _children_cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    from raysoft.models.embedded import ensure

    ensure("embedded/vit-digits")
    here = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (SOURCE, os.environ.get("PYTHONPATH"))))}
    here.pop("RAY_ADDRESS", None)
    found: dict[str, list[tuple[float, float]]] = {"inline": [], "Ray on this machine": [], "Ray job": []}
    with tempfile.TemporaryDirectory(prefix="rs") as name:
        folder, began = Path(name), time.perf_counter()
        with head(folder) as (env, dashboard):
            started = time.perf_counter() - began
            ray_command = str(Path(sys.executable).parent / "ray")
            (folder / "empty").mkdir()
            for repeat in range(args.repeats):
                for kind, times in found.items():
                    out = folder / f"{repeat}-{kind.replace(' ', '-')}" / "run"
                    out.parent.mkdir()
                    own = [
                        sys.executable,
                        *RUN,
                        "--out",
                        str(out),
                        "--executor",
                        "inline" if kind == "inline" else "ray",
                    ]
                    if kind == "Ray job":
                        submit = [ray_command, "job", "submit", "--address", dashboard]
                        own = [*submit, "--working-dir", str(folder / "empty"), "--", *own]
                    times.append(seconds_to_first_round(own, env if kind == "Ray job" else here, out))
    print(f"{'':>20} {'first round':>12}   CPU of the command (medians of {args.repeats})")
    for kind, times in found.items():
        wall, cpu = (statistics.median(column) for column in zip(*times, strict=True))
        shown = f"{cpu:>6.1f} s" if kind == "inline" else "(spread over Ray's processes)"
        print(f"{kind:>20} {wall:>10.1f} s   {shown}")
    print(f"the job's head, once: {started:.1f} s")
    if args.json:
        args.json.write_text(json.dumps({"seconds": found, "head_s": started}, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
