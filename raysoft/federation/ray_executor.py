"""Runs stages on client actors. Any actor can run any pack; every wait is bounded; lost actors are replaced.

Replies come back small; handles stay in the object store of the node that made them and travel by reference.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import (
    ActorUnavailableError,
    GetTimeoutError,
    ObjectLostError,
    RayActorError,
    RayTaskError,
    WorkerCrashedError,
)

from raysoft.config import RunConfig
from raysoft.errors import RaysoftError
from raysoft.federation.actors import ClientActor
from raysoft.federation.resources import ActorPlan
from raysoft.federation.workload import WorkloadInfo

log = logging.getLogger("raysoft")
ATTEMPTS = 3
ACTOR_FAULTS = (RayActorError, ActorUnavailableError, WorkerCrashedError, ObjectLostError)


@dataclass
class _Running:
    item: int
    actor: int
    deadline: float
    handle: Any


class RayExecutor:
    """Stages on `plan.actors` client actors."""

    def __init__(self, config: RunConfig, plan: ActorPlan) -> None:
        self.config = config
        self.plan = plan
        self.timeout_s = config.actors.timeout_s
        self.pids: list[int] = []
        self._workload: Any = None
        self.actors = [self._spawn() for _ in range(plan.actors)]

    def _spawn(self) -> Any:
        return ClientActor.options(  # type: ignore[attr-defined]
            num_cpus=self.plan.cpus_per_actor, num_gpus=self.plan.gpus_per_actor, max_restarts=0, max_concurrency=1
        ).remote(self.config)

    def start(self) -> WorkloadInfo:
        """One actor prepares the workload; all the others map it from the store."""
        from raysoft.federation.coordinator import with_pack_size

        workload, info_ref = self.actors[0].prepare.options(num_returns=2).remote()
        info = self._get(info_ref, "preparing model and data")
        self._workload = workload
        self.config = with_pack_size(self.config, info)
        adopted = [actor.adopt.remote(self.config, workload) for actor in self.actors]
        self.pids = [self._get(ref, "starting the client actors") for ref in adopted]
        return info

    def fetch_base(self) -> Any:
        """The frozen base from the object store."""
        return self._get(self._workload, "fetching the base model").base

    def put(self, value: Any) -> Any:
        """One object in the store, whatever the number of actors."""
        return ray.put(value)

    def verify(self) -> None:
        """Every actor checks the base it maps."""
        for actor in self.actors:
            self._get(actor.verify.remote(), "checking the base weights")

    def map(
        self, stage: str, down: Any, requests: Sequence[Any], handles: Sequence[Any] | None = None
    ) -> list[tuple[Any, Any]]:
        """Replies and handles in request order; each actor has one request at a time."""
        waiting = list(range(len(requests)))
        attempts = [0] * len(requests)
        idle = list(range(len(self.actors)))
        running: dict[Any, _Running] = {}
        results: dict[int, tuple[Any, Any]] = {}
        while len(results) < len(requests):
            for item in list(waiting):
                slot = self._slot(requests[item], handles[item] if handles else None, idle)
                if slot is None:
                    continue
                waiting.remove(item)
                idle.remove(slot)
                handle = handles[item][1] if handles else None
                reply, made = self.actors[slot].run.options(num_returns=2).remote(stage, down, requests[item], handle)
                running[reply] = _Running(item, slot, time.monotonic() + self.timeout_s, made)
            ready, _ = ray.wait(list(running), num_returns=1, timeout=1.0)
            late = [ref for ref, job in running.items() if time.monotonic() > job.deadline]
            for ref in ready or late:
                job = running.pop(ref)
                home = self._home(requests[job.item], handles[job.item] if handles else None)
                try:
                    value = ray.get(ref, timeout=self.timeout_s if ref in ready else 0)
                    results[job.item] = (value, (home, job.handle))
                except (*ACTOR_FAULTS, GetTimeoutError) as error:
                    attempts[job.item] += 1
                    if self._recover(stage, job, attempts[job.item], error):
                        waiting.append(job.item)
                    else:
                        results[job.item] = (None, None)
                except RayTaskError as error:
                    raise _cause(error) from None
                idle.append(job.actor)
        return [results[item] for item in range(len(requests))]

    def _home(self, request: Any, handle: Any) -> int | None:
        """The actor that is home to the pack's first client, when clients have homes."""
        if handle is not None:
            return handle[0]
        pack = getattr(request, "pack", None)
        if self.plan.clients_per_actor is None or pack is None:
            return None
        return (pack.clients[0] // self.plan.clients_per_actor) % len(self.actors)

    def _slot(self, request: Any, handle: Any, idle: Sequence[int]) -> int | None:
        home = self._home(request, handle)
        if home is None:
            return idle[0] if idle else None
        return home if home in idle else None

    def _recover(self, stage: str, job: _Running, attempt: int, error: Exception) -> bool:
        """Replace the actor. True: run the stage again, which gives the same bytes; False: drop the pack's clients."""
        what = f"{stage} on client actor {job.actor}: {type(error).__name__}"
        policy = self.config.actors.on_failure
        if policy == "abort" or attempt >= ATTEMPTS:
            raise RaysoftError(f"{what} (attempt {attempt} of {ATTEMPTS}); see the Ray logs of this run") from error
        drop = policy == "drop_client" and stage == "train"
        log.warning("%s; starting a new actor and %s", what, "dropping the pack" if drop else "trying again")
        ray.kill(self.actors[job.actor])
        self.actors[job.actor] = self._spawn()
        self.pids[job.actor] = self._get(
            self.actors[job.actor].adopt.remote(self.config, self._workload), "starting a new client actor"
        )
        return not drop

    def _get(self, ref: Any, doing: str) -> Any:
        try:
            return ray.get(ref, timeout=self.timeout_s)
        except GetTimeoutError:
            raise RaysoftError(f"{doing} took longer than actors.timeout_s={self.timeout_s:g} seconds") from None
        except RayTaskError as error:
            raise _cause(error) from None
        except ACTOR_FAULTS as error:
            raise RaysoftError(f"{doing}: a client actor died ({type(error).__name__})") from error


def _cause(error: RayTaskError) -> Exception:
    """The original exception of a remote call, without Ray's wrapping."""
    return error.cause if isinstance(error.cause, RaysoftError) else RaysoftError(str(error))
