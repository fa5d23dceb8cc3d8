"""Runs stages on client actors. Replies come back small; handles stay in the object store and travel by reference."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, ObjectLostError, RayError, RayTaskError

from raysoft.config import RunConfig
from raysoft.distributed.client_actor import ClientActor
from raysoft.distributed.dispatch import Call, Dispatcher, Handle, ResultLost, WorkerLost
from raysoft.distributed.placement import Reservation, in_group, without_room
from raysoft.distributed.user_files import gathered
from raysoft.errors import RaysoftError
from raysoft.federation.liveness import ATTEMPTS, Steps, startup_s
from raysoft.federation.workload import WorkloadInfo, with_pack_size
from raysoft.kernels.portable import actor_environment
from raysoft.types import Pack


class RayCrew:
    """Client actors as workers. Actors are disposable: whoever dies is replaced by one that maps the same workload."""

    def __init__(self, config: RunConfig, room: Reservation) -> None:
        self.config = config
        self.plan = room.plan
        self.group = room.group
        self.size = room.plan.actors
        self.timeout_s = config.actors.timeout_s
        self.notices: list[str] = []
        self.workload: Any = None
        self._copy: Any = None
        contents = gathered(config)
        self._files: Any = ray.put(contents) if contents else {}
        self._joining: dict[int, Any] = {}  # workers that have been asked to adopt the workload
        self.actors = [self._spawn(slot) for slot in range(self.size)]

    def _spawn(self, slot: int) -> Any:
        return ClientActor.options(  # type: ignore[attr-defined]
            num_cpus=self.plan.cpus_per_actor,
            num_gpus=self.plan.gpus_per_actor,
            max_restarts=0,
            max_concurrency=1,
            **in_group(self.group, slot),
            **actor_environment(self.config.actors.portable),
        ).remote(self.config)

    def prepare(self) -> WorkloadInfo:
        """One actor loads model and data; all map them from the store. Raises ConfigError on bad input."""
        info = self._prepared()
        self.config = with_pack_size(self.config, info)
        for slot in range(self.size):
            self._adopt(slot)
        self.everyone("ready", "starting the client actors", startup_s(self.timeout_s))
        # The driver's node keeps a mapping of its own: the workload outlives the node that prepared it.
        self._copy = self.get(self.workload, "fetching model and data")
        return info

    def _prepared(self) -> WorkloadInfo:
        """From the first actor, or from one that takes its place where it dies."""
        doing = "preparing model and data"
        for attempt in range(1, ATTEMPTS + 1):
            self.workload, info = self.actors[0].prepare.options(num_returns=2).remote()
            try:
                return self._value(info, startup_s(self.timeout_s))
            except (WorkerLost, ResultLost) as fault:
                if attempt == ATTEMPTS:
                    raise RaysoftError(f"{doing}: {fault}, {ATTEMPTS} times in a row") from fault
                self.notices.append(f"{doing}: client actor 0: {fault}; begun again")
                ray.kill(self.actors[0])
                self.actors[0] = self._spawn(0)
        raise AssertionError

    def _adopt(self, slot: int) -> None:
        self._joining[slot] = self.actors[slot].adopt.remote(self.config, self.workload, self._files)

    def everyone(self, method: str, doing: str, seconds: float | None = None) -> None:
        """Call a method of every actor at once; those that have died are replaced and asked again.

        Actors that wait for room after their node was lost are left out. `seconds`: bound of each answer, if not
        actors.timeout_s.
        """
        away = self.without_room()
        replies = {slot: getattr(self.actors[slot], method).remote() for slot in range(self.size) if slot not in away}
        for slot, first in replies.items():
            reply = first
            for attempt in range(ATTEMPTS):
                try:
                    self.fetch(slot, reply, seconds)
                    break
                except WorkerLost as fault:
                    if attempt + 1 == ATTEMPTS:
                        raise RaysoftError(f"{doing}: client actor {slot}: {fault}") from fault
                    self.replace(slot)
                    if slot in self.without_room():
                        break
                    reply = getattr(self.actors[slot], method).remote()

    def start(self, slot: int, calls: Sequence[Call]) -> tuple[Any, Sequence[Any]]:
        """See Crew."""
        stage, down = calls[0].stage, calls[0].down
        handles = [handle.ref for call in calls for handle in call.handles]
        counts = [len(call.handles) for call in calls]
        run = self.actors[slot].run.options(num_returns=1 + len(calls))
        reply, *made = run.remote(stage, down, [call.request for call in calls], counts, *handles)
        return reply, made

    def wait(self, replies: Sequence[Any], seconds: float) -> list[Any]:
        """See Crew."""
        if not replies:
            time.sleep(seconds)
            return []
        ready, _ = ray.wait(list(replies), num_returns=1, timeout=seconds)
        return ready

    def fetch(self, slot: int, reply: Any, seconds: float | None = None) -> Any:
        """See Crew."""
        joining = self._joining.pop(slot, None)
        if joining is not None:
            self._value(joining, seconds)  # why the start failed says more than what followed from it
        return self._value(reply, seconds)

    def replace(self, slot: int) -> None:
        """See Crew."""
        ray.kill(self.actors[slot])
        self.actors[slot] = self._spawn(slot)
        self._adopt(slot)

    def without_room(self) -> set[int]:
        """See Crew."""
        return without_room(self.group)

    def get(self, ref: Any, doing: str) -> Any:
        """A value that only the run as a whole can do without. Raises RaysoftError."""
        try:
            return self._value(ref)
        except (WorkerLost, ResultLost) as fault:
            raise RaysoftError(f"{doing}: {fault}") from fault

    def _value(self, ref: Any, seconds: float | None = None) -> Any:
        """Waits `seconds`, actors.timeout_s where that is None."""
        bound_s = self.timeout_s if seconds is None else seconds
        try:
            return ray.get(ref, timeout=bound_s)
        except GetTimeoutError:
            bound = f"actors.timeout_s={bound_s:g}" if bound_s == self.timeout_s else f"{bound_s:g}"
            raise WorkerLost(f"no answer within {bound} seconds") from None
        except RayTaskError as error:
            if isinstance(error.cause, ObjectLostError):
                raise ResultLost("the result of an earlier stage is lost") from None
            raise original(error) from None
        except ObjectLostError:
            raise ResultLost("a result is lost") from None
        except RayError as error:
            raise WorkerLost(f"its process died ({type(error).__name__})") from None
        finally:
            Steps.one()  # a fault, too: there is another attempt


class RayExecutor:
    """Stages on the client actors that there is room for."""

    def __init__(self, config: RunConfig, room: Reservation) -> None:
        self.crew = RayCrew(config, room)
        self.dispatcher = Dispatcher(self.crew, config.actors.on_failure, config.actors.timeout_s, self._home)

    def start(self) -> WorkloadInfo:
        """Prepare the workload and hand it to all actors."""
        return self.crew.prepare()

    def put(self, value: Any) -> Any:
        """One object in the store, whatever the number of actors."""
        return ray.put(value)

    def map(
        self, stage: str, down: Any, requests: Sequence[Any], handles: Sequence[tuple[Handle, ...]] | None = None
    ) -> list[tuple[Any, Handle | None]]:
        """Replies and handles in request order; each actor has one request at a time."""
        return self.dispatcher.map(stage, down, requests, handles)

    def verify(self) -> None:
        """Every actor checks the base it maps."""
        self.crew.everyone("verify", "checking the base weights")

    def fetch_base(self) -> Any:
        """The frozen base from the object store."""
        return self.crew.get(self.crew.workload, "fetching the base model").base

    def take_notices(self) -> list[str]:
        """What happened to actors since the last call, for people."""
        taken = [*self.crew.notices, *self.dispatcher.notices]
        self.crew.notices, self.dispatcher.notices = [], []
        return taken

    def _home(self, pack: Pack) -> int | None:
        """The actor that is home to the pack's first client, when clients have homes."""
        per_actor = self.crew.plan.clients_per_actor
        return None if per_actor is None else (pack.clients[0] // per_actor) % self.crew.size


def original(error: RayTaskError) -> RaysoftError:
    """What a remote call raised, without Ray's wrapping."""
    if isinstance(error.cause, RaysoftError):
        return error.cause
    return RaysoftError(f"{type(error.cause).__name__}: {error.cause}\n{error}")
