"""Start Ray for one run (or join the cluster of a Ray job), hold a CoordinatorActor, and leave nothing behind."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from raysoft.config import RunConfig
from raysoft.errors import ConfigError, RaysoftError
from raysoft.federation.resources import plan_actors

OBJECT_STORE_BYTES = 1_000_000_000  # holds the base once, a cohort's updates and a round's broadcasts


@contextmanager
def ray_session(config: RunConfig) -> Iterator[dict[str, Callable[..., Any]]]:
    """The calls of a coordinator that lives in an actor. Ray is stopped on the way out, whatever happened."""
    plan = plan_actors(config)  # before Ray starts: a run that cannot fit is refused in a moment
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray
    from ray.exceptions import GetTimeoutError, RayActorError, RayTaskError

    from raysoft.federation.actors import CoordinatorActor

    joined = "RAY_ADDRESS" in os.environ
    if joined:
        ray.init(log_to_driver=False, logging_level=logging.ERROR)
    else:
        ray.init(
            num_cpus=plan.total_cpus,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            _node_ip_address="127.0.0.1",
            object_store_memory=OBJECT_STORE_BYTES,
        )
        _protect_token()
    try:
        actor_class: Any = CoordinatorActor
        coordinator = actor_class.options(num_cpus=0).remote(config, plan)

        def call(method: str, *args: Any) -> Any:
            # A round makes four bounded waits on client actors; the coordinator itself gets one more.
            bound = 6 * config.actors.timeout_s
            try:
                return ray.get(getattr(coordinator, method).remote(*args), timeout=bound)
            except GetTimeoutError:
                raise RaysoftError(f"the coordinator did not answer within {bound:g} seconds ({method})") from None
            except RayTaskError as error:
                if isinstance(error.cause, RaysoftError):
                    raise error.cause from None
                raise RaysoftError(str(error)) from None
            except RayActorError as error:
                raise RaysoftError(f"the coordinator actor died during {method}: {error}") from None

        def bind(method: str) -> Callable[..., Any]:
            return lambda *args: call(method, *args)

        yield {name: bind(name) for name in ("start", "baseline", "round", "finish", "fetch_base")}
    finally:
        ray.shutdown()


def _protect_token() -> None:
    """Ray writes its authentication token readable by everybody; keep it to the owner."""
    token = Path(os.environ.get("RAY_AUTH_TOKEN_PATH", Path.home() / ".ray" / "auth_token"))
    try:
        if token.is_file() and token.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            token.chmod(0o600)
    except OSError:
        pass  # another user's file: not ours to change


__all__ = ["ConfigError", "ray_session"]
