"""The coordinator's actor: a thin shell over federation/coordinator.py, loaded once the client actors are asked for."""

from __future__ import annotations

from typing import Any

import ray

from raysoft.config import RunConfig
from raysoft.distributed.executor import RayExecutor
from raysoft.distributed.placement import Reservation
from raysoft.distributed.user_files import Contents, placed
from raysoft.federation.executor import pin_threads
from raysoft.federation.liveness import Steps


@ray.remote(concurrency_groups={"watch": 1})  # type: ignore[call-overload]
class CoordinatorActor:
    """Runs the loop, the allocator and the aggregation; owns the client actors."""

    def __init__(self, config: RunConfig, room: Reservation, files: Contents) -> None:
        placed(files)
        self.executor = RayExecutor(config, room)
        from raysoft.federation.coordinator import Coordinator

        pin_threads(config.actors.threads)
        self.coordinator = Coordinator(config, self.executor)

    def call(self, method: str, *args: Any) -> tuple[Any, list[str]]:
        """A method of Coordinator, and what happened to actors meanwhile."""
        return getattr(self.coordinator, method)(*args), self.executor.take_notices()

    @ray.method(concurrency_group="watch")  # a thread of its own: it answers while `call` works
    def beat(self) -> int:
        """A sign of life: how many answers of actors there have been so far."""
        return Steps.done
