"""A quick Ray for one run on this machine, which nobody else reaches, or the cluster at RAY_ADDRESS."""

from __future__ import annotations

import logging
import os
import socket
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from raysoft.errors import ConfigError, RaysoftError

KNOCK_S = 10.0
OBJECT_STORE_BYTES = 1_000_000_000  # holds the base once, a cohort's updates and a round's broadcasts


def start_ray(cpus: int | None, gauges: bool = False) -> None:
    """A quiet Ray on this machine, with a metrics port for `gauges`, or without `cpus` the cluster at RAY_ADDRESS."""
    import ray

    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if cpus is not None:
        _make_token_folder()
        options |= {
            "address": "local",
            "num_cpus": cpus,
            "include_dashboard": False,
            "_node_ip_address": "127.0.0.1",
            "object_store_memory": OBJECT_STORE_BYTES,
        }
    where = "on this machine" if cpus is not None else f"at RAY_ADDRESS={os.environ['RAY_ADDRESS']}"
    try:
        if cpus is None:
            knock(os.environ["RAY_ADDRESS"])
        with nullcontext() if cpus is None else _alone(gauges):
            ray.init(**options)
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        if cpus is not None and "AF_UNIX" in reason:
            place = os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()
            raise ConfigError(
                "TMPDIR",
                f"{place} is too long for the names of Ray's sockets, which may have 107 characters; set "
                "TMPDIR to a shorter path, e.g. TMPDIR=/tmp",
            ) from None
        raise RaysoftError(f"Ray cannot be reached or started {where}: {reason}") from error
    if cpus is not None:
        _protect_token()


@contextmanager
def _alone(gauges: bool) -> Iterator[None]:
    """A Ray for this process and its children: nobody else reaches it, and what serves others does not start."""
    with _loopback_only(), _without_services(gauges):
        yield


@contextmanager
def _without_services(gauges: bool) -> Iterator[None]:
    """No autoscaler, no dashboard server (Ray starts one even for `include_dashboard=False`), no log forwarder.

    Nobody asks them anything here. Without them, with a node's agent that serves no pages (unless for `gauges`: it
    serves the metrics port, too), and with a closer look for the node, Ray is there in half the time. A later Ray that
    names these things otherwise starts as ever.
    """
    from ray._private import services, utils
    from ray._private.node import Node

    def nothing(self: Any) -> None:
        pass

    def no_server(self: Any, **_: Any) -> None:
        self._webui_url = ""

    def no_pages() -> str:
        return "no dashboard"

    get_node = getattr(services, "get_node", None)

    def registered(gcs_address: str, node_id: str) -> Any:
        with suppress(Exception):  # only a shortcut: Ray's own look follows
            _await_node(gcs_address)
        return get_node(gcs_address, node_id)  # type: ignore[misc]

    stand_ins = [
        (Node, "start_monitor", nothing),
        (Node, "start_log_monitor", nothing),
        (Node, "start_api_server", no_server),
        (services, "get_node", registered),
    ]
    if not gauges:
        stand_ins.append((utils, "get_dashboard_dependency_error", no_pages))
    with ExitStack() as stack:
        for owner, name, stand_in in stand_ins:
            if hasattr(owner, name):
                stack.callback(setattr, owner, name, getattr(owner, name))
                setattr(owner, name, stand_in)
        yield


def _await_node(gcs_address: str) -> None:
    """Until the first node has registered: Ray looks once, and then again after a whole second."""
    from ray._raylet import GcsClient  # type: ignore[attr-defined]

    client, deadline = GcsClient(address=gcs_address), time.monotonic() + KNOCK_S
    while not client.get_all_node_info(timeout=KNOCK_S) and time.monotonic() < deadline:
        time.sleep(0.02)


@contextmanager
def _loopback_only() -> Iterator[None]:
    """Ray takes an address that others reach, and listens on all of them, unless it believes there are no clusters.

    With that switch, which it has for macOS and Windows, every port of its processes is on 127.0.0.1 alone.
    """
    from ray._private import ray_constants

    switch = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
    before, known = os.environ.get(switch), getattr(ray_constants, "ENABLE_RAY_CLUSTER", True)
    os.environ[switch], ray_constants.ENABLE_RAY_CLUSTER = "0", False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = known
        if before is None:
            os.environ.pop(switch, None)
        else:
            os.environ[switch] = before


def knock(address: str, seconds: float = KNOCK_S) -> None:
    """Raises OSError where nobody answers at host:port; Ray itself would try for several minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():  # not `auto`
        socket.create_connection((host.strip("[]"), int(port)), timeout=seconds).close()


def _token() -> Path:
    return Path(os.environ.get("RAY_AUTH_TOKEN_PATH", Path.home() / ".ray" / "auth_token"))


def _make_token_folder() -> None:
    """Ray writes its authentication token readable by everybody: make sure that others cannot enter its folder."""
    with suppress(OSError):  # Ray says why
        _token().parent.mkdir(mode=0o700, parents=True, exist_ok=True)


def _protect_token() -> None:
    """Where the folder was there before: the token itself."""
    token = _token()
    with suppress(OSError):  # another user's file: not ours to change
        if token.is_file() and token.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            token.chmod(0o600)
