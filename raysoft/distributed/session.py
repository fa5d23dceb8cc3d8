"""Start Ray for one run (or join the cluster of a Ray job), hold a CoordinatorActor, and leave nothing behind."""

from __future__ import annotations

import atexit
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from raysoft.config import RunConfig
from raysoft.distributed.guard import guarded
from raysoft.distributed.resources import plan_actors
from raysoft.distributed.start import knock, start_ray
from raysoft.distributed.user_files import gathered
from raysoft.errors import CoordinatorLostError, HeadLostError
from raysoft.federation.coordinator import Started
from raysoft.federation.liveness import BEAT_S, Steps, Vitals
from raysoft.federation.parts import RunState
from raysoft.kernels.portable import actor_environment
from raysoft.types import GlobalModel, RoundRecord

if TYPE_CHECKING:
    from raysoft.distributed.placement import Reservation

log = logging.getLogger("raysoft")
HEAD_LOOK_S, HEAD_GONE_S = 5.0, 15.0  # Ray itself ends the process after 60 s without a head: before any `except`


class RemoteCoordinator:
    """A Coordinator that lives in an actor; the same methods."""

    def __init__(self, config: RunConfig, room: Reservation, head: Head) -> None:
        from raysoft.distributed.coordinator_actor import CoordinatorActor
        from raysoft.distributed.placement import on_drivers_node

        actor_class: Any = CoordinatorActor
        self.config = config
        where = {} if room.group is None else on_drivers_node()  # a caller's placement group is inherited
        where |= actor_environment(config.actors.portable)
        self.actor = actor_class.options(num_cpus=0, **where).remote(config, room, gathered(config))
        self._timeout_s = config.actors.timeout_s
        self._vitals = Vitals()
        self._head = head

    def start(self, state: RunState | None = None) -> Started:
        """See Coordinator.start."""
        return self._call("start", state)

    def baseline(self) -> RoundRecord:
        """See Coordinator.baseline."""
        return self._call("baseline")

    def round(self, tick: int) -> RoundRecord:
        """See Coordinator.round."""
        return self._call("round", tick)

    def snapshot(self) -> RunState:
        """See Coordinator.snapshot."""
        return self._call("snapshot")

    def finish(self) -> tuple[GlobalModel, dict[str, Any], dict[str, Any]]:
        """See Coordinator.finish."""
        return self._call("finish")

    def fetch_base(self) -> Any:
        """See Coordinator.fetch_base."""
        return self._call("fetch_base")

    def _call(self, method: str, *args: Any) -> Any:
        """Raises CoordinatorLostError where the coordinator has died, or is hung and was ended, HeadLostError."""
        import ray
        from ray.exceptions import RayError, RayTaskError

        from raysoft.distributed.executor import original

        reply = self.actor.call.remote(method, *args)
        try:
            self._wait(reply, method)
            value, notices = ray.get(reply, timeout=self._timeout_s)
        except RayTaskError as error:
            raise original(error) from None
        except RayError as error:
            self._head.look(patience_s=0.0)  # a node that has lost its head ends its processes, the coordinator first
            raise CoordinatorLostError(
                f"the coordinator actor died during {method} ({type(error).__name__})"
            ) from error
        Steps.one()  # a short call is over before the first beat is looked at
        for notice in notices:
            log.warning(notice)
        return value

    def _wait(self, reply: Any, method: str) -> None:
        """Until the reply is there (or has failed), as long as the coordinator's other thread gives signs of life.

        That thread also tells how many answers of actors there were: a coordinator that lives but waits for nothing
        that could come is hung, too.
        """
        import ray

        self._vitals.begin(self._timeout_s)
        beat = self.actor.beat.remote()
        self._head.look()
        while not ray.wait([reply], timeout=BEAT_S)[0]:
            self._head.look()
            if ray.wait([beat], timeout=0)[0]:
                if self._vitals.heard(ray.get(beat, timeout=self._timeout_s)):
                    Steps.one()
                beat = self.actor.beat.remote()
            verdict = self._vitals.verdict()
            if verdict is not None:
                self._end(f"the coordinator {verdict}, during {method}")

    def _end(self, why: str) -> None:
        """A process that hangs is killed; another one goes on from the last checkpoint."""
        import ray

        ray.kill(self.actor)
        raise CoordinatorLostError(f"{why}, and was ended")


class Head:
    """Whether the head of Ray, which knows of every process, still takes connections; to be made when Ray is there.

    `look_s`: between two looks, and the longest wait for an answer; `gone_s`: how long it may be out of reach.
    """

    def __init__(self, look_s: float = HEAD_LOOK_S, gone_s: float = HEAD_GONE_S) -> None:
        import ray

        self._look_s, self._gone_s = look_s, gone_s
        # Through Ray Client (ray://) the head itself may be out of reach.
        client = ray.util.client.ray.is_connected()
        self._address: str | None = None if client else ray.get_runtime_context().gcs_address
        self._gone_since: float | None = None
        self._looked = time.monotonic()

    def look(self, patience_s: float | None = None) -> None:
        """Every few seconds, whenever it is called; at once where `patience_s` is given. Raises HeadLostError."""
        now = time.monotonic()
        if self._address is None or (patience_s is None and now - self._looked < self._look_s):
            return
        self._looked = now
        try:
            knock(self._address, self._look_s)
            self._gone_since = None
        except OSError as error:  # a network may come back, and a head that keeps its state elsewhere
            self._gone_since = self._gone_since or now
            if now - self._gone_since >= (self._gone_s if patience_s is None else patience_s):
                raise HeadLostError(f"the head of Ray at {self._address} has died: {error.strerror or error}") from None


@contextmanager
def ray_session(config: RunConfig, head: Callable[[], Head] = Head) -> Iterator[RemoteCoordinator]:
    """A coordinator in an actor. A Ray that was started here is stopped on the way out, whatever happened.

    `head` begins to watch the head of that Ray; it is called when Ray is there.
    Raises ResourceError before an actor starts where the run cannot fit (before Ray itself, where it is started here),
    RaysoftError where Ray cannot be started.
    """
    plan = None if joins_cluster() else plan_actors(config)
    with running_ray(None if plan is None else plan.total_cpus, config.tracking.prometheus) as mine:
        import ray

        from raysoft.distributed.placement import Reservation, reserve

        coordinator = room = None
        head_lost = False
        try:
            if mine and plan is not None:
                room = Reservation(plan)  # a Ray of this machine alone, for this run alone
            elif ray.util.get_current_placement_group() is not None:
                room = Reservation(plan or plan_actors(config))  # the caller has made room, and its actors inherit it
            else:
                room = reserve(config)
            coordinator = RemoteCoordinator(config, room, head())
            yield coordinator
        except HeadLostError as error:
            head_lost = True  # nobody is left to be asked for anything
            if mine and plan is not None:
                raise CoordinatorLostError(str(error)) from error  # this machine can have another one
            raise
        finally:
            if not mine and not head_lost and coordinator is not None:
                ray.kill(coordinator.actor)  # its client actors end with it
            if room is not None and not head_lost:
                room.release()


def joins_cluster() -> bool:
    """Whether RAY_ADDRESS names a cluster to join, as in a Ray job."""
    return os.environ.get("RAY_ADDRESS", "") not in ("", "local")


@contextmanager
def running_ray(cpus: int | None, gauges: bool) -> Iterator[bool]:
    """A quiet Ray of `cpus` cores on this machine, or without them the cluster at RAY_ADDRESS; stopped on the way out.

    One that is started here has a metrics port if there are `gauges` to read. Yields False, and leaves Ray as it is,
    where the caller has one already. Raises RaysoftError where Ray cannot be started or reached.
    """
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # train.device decides about GPUs, as inline
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    mine = not ray.is_initialized()  # somebody who calls raysoft.run may have a Ray of their own
    with guarded() if mine and cpus is not None else nullcontext():
        try:
            if mine:
                with _own_sigterm():
                    start_ray(cpus, gauges)
            yield mine
        except HeadLostError:
            if mine:
                mine = False
                _leave_without_head()
            raise
        finally:
            if mine:
                ray.shutdown()


def _leave_without_head() -> None:
    """Ray's own farewell asks the head, and ends the process when that has not answered for a minute."""
    import ray

    atexit.unregister(ray.shutdown)


@contextmanager
def _own_sigterm() -> Iterator[None]:
    """Ray puts its own handler of SIGTERM in place of the caller's, which knows how to end a run."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if callable(handler):
            signal.signal(signal.SIGTERM, handler)
