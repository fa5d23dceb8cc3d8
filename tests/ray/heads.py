"""A Ray cluster as a user starts it by hand: `ray start`, token authentication, everything on 127.0.0.1.

It has its own ports and folder, and is ended by the processes that were started here.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

RAY = str(Path(sys.executable).with_name("ray"))
ROOT = Path(__file__).parents[2]


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


class HandMade:
    """A head without cores, and nodes of one core."""

    def __init__(self, nodes: int) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="rs"))  # short: sockets have names of at most 107 characters
        self.token = self.folder / "token"
        self.token.write_text(secrets.token_hex(32))
        self.token.chmod(0o600)
        self.processes: list[subprocess.Popen[bytes]] = []
        self.started = 0
        port, self.dashboard = free_ports(2)
        self.environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("RAY")},
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self.token),
            "RAY_USAGE_STATS_ENABLED": "0",
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",  # jobs say `python`
        }
        try:
            self._bring_up(port, nodes)
        except BaseException:
            self.stop()
            raise

    def _bring_up(self, port: int, nodes: int) -> None:
        head = (
            "--head",
            f"--port={port}",
            "--num-cpus=0",
            "--dashboard-host=127.0.0.1",
            f"--dashboard-port={self.dashboard}",
        )
        self._up(head, lambda: self.ray("job", "list").returncode == 0)
        here = f"--address=127.0.0.1:{port}"
        self.nodes = [
            # one after the other: on one machine they would be in each other's way
            self._up((here, "--num-cpus=1"), lambda n=n: self.ray("status", here).stdout.count(" node_") == n + 2)
            for n in range(nodes)
        ]

    def _up(self, words, happened) -> subprocess.Popen[bytes]:
        """A node that is up; Ray gives up after 30 seconds, which is not long on a busy machine."""
        for _ in range(4):
            process = self.start(*words)
            deadline = time.monotonic() + 90
            while process.poll() is None and time.monotonic() < deadline:
                if happened():
                    return process
                time.sleep(0.5)
            self.end(process)
            self.processes.remove(process)
        raise AssertionError(self.logs())

    def logs(self) -> str:
        return "\n".join(path.read_text()[-2000:] for path in sorted(self.folder.glob("log*")))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.dashboard}"

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        agent, grpc, metrics, client = free_ports(4)
        where = "--ray-client-server-port" if "--head" in words else "--runtime-env-agent-port"
        self.started += 1
        session = self.folder / f"n{self.started}"  # nodes unpack working directories: each into its own folder
        process = subprocess.Popen(
            [
                RAY,
                "start",
                *words,
                "--block",
                "--node-ip-address=127.0.0.1",
                "--object-store-memory=150000000",
                f"--dashboard-agent-listen-port={agent}",
                f"--dashboard-agent-grpc-port={grpc}",
                f"--metrics-export-port={metrics}",
                f"{where}={client}",
                "--disable-usage-stats",
                f"--temp-dir={session}",
            ],
            env=self.environment,
            stdout=(self.folder / f"log{self.started}").open("w"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self.processes.append(process)
        return process

    def wait_for(self, happened, seconds: float = 120) -> None:
        deadline = time.monotonic() + seconds
        while not happened():
            assert time.monotonic() < deadline, self.logs()
            assert all(process.poll() is None for process in self.processes), self.logs()
            time.sleep(0.5)

    def ray(self, *words: str, timeout: float = 200) -> subprocess.CompletedProcess[str]:
        return self.run(RAY, *words, timeout=timeout)

    def python(self, code: str, timeout: float = 200) -> str:
        """What a script of a client prints; it finds `client`, a JobSubmissionClient."""
        head = f"from ray.job_submission import JobSubmissionClient\nclient = JobSubmissionClient({self.url!r})\n"
        done = self.run(sys.executable, "-c", head + code, timeout=timeout)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def run(self, *words: str, timeout: float) -> subprocess.CompletedProcess[str]:
        environment = {**self.environment, "RAY_API_SERVER_ADDRESS": self.url}
        return subprocess.run(
            words, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=timeout, check=False
        )

    def end(self, process: subprocess.Popen[bytes]) -> None:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)

    def stop(self) -> None:
        for process in reversed(self.processes):
            self.end(process)
        shutil.rmtree(self.folder, ignore_errors=True)
