"""The Ray actors: thin shells over client.py and coordinator.py."""

from __future__ import annotations

import os
from typing import Any

import ray

from raysoft.config import RunConfig
from raysoft.errors import RaysoftError
from raysoft.federation.client import Worker
from raysoft.federation.coordinator import Coordinator, Started
from raysoft.federation.resources import ActorPlan
from raysoft.federation.workload import WorkloadInfo, describe, prepare
from raysoft.types import RoundRecord


def _pin_threads(threads: int) -> None:
    """The thread count is part of the result (rounding of sums), so it is set here and not left to Ray."""
    from threadpoolctl import threadpool_limits

    threadpool_limits(threads)


@ray.remote
class ClientActor:
    """Home of clients: runs stages on the shared base. Disposable; it keeps nothing that cannot be recomputed."""

    def __init__(self, config: RunConfig) -> None:
        import raysoft.models.packed_lora  # noqa: F401 - seconds of imports, while another actor prepares the data

        _pin_threads(config.actors.threads)
        self.config = config

    def prepare(self) -> tuple[Any, WorkloadInfo]:
        """Load model and data once for the whole run (returned as two objects)."""
        workload = prepare(self.config)
        return workload, describe(workload, self.config)

    def adopt(self, config: RunConfig, workload: Any) -> int:
        """Take the shared workload (numpy views into the object store); returns the process id."""
        self.worker = Worker(config, workload)
        self.worker.trainer  # noqa: B018 - built now, on all actors at once
        return os.getpid()

    def run(self, stage: str, down: Any, request: Any, handle: Any = None) -> tuple[Any, Any]:
        """One stage (returned as two objects: the reply, and the handle that stays in the store)."""
        return self.worker.run(stage, down, request, handle)

    def verify(self) -> None:
        """Check the shared base against its checksum."""
        from raysoft.models.base import verify

        verify(self.worker.workload.base)

    def node(self) -> str:
        """The node this actor lives on."""
        return ray.get_runtime_context().get_node_id()


@ray.remote
class CoordinatorActor:
    """Runs the loop, the allocator and the aggregation; owns the client actors."""

    def __init__(self, config: RunConfig, plan: ActorPlan) -> None:
        from raysoft.federation.ray_executor import RayExecutor

        _pin_threads(config.actors.threads)
        self.executor = RayExecutor(config, plan)
        self.coordinator = Coordinator(config, self.executor)

    def start(self) -> Started:
        """See Coordinator.start."""
        return self.coordinator.start()

    def baseline(self) -> RoundRecord:
        """See Coordinator.baseline."""
        return self.coordinator.baseline()

    def round(self, tick: int) -> RoundRecord:
        """See Coordinator.round."""
        return self.coordinator.round(tick)

    def finish(self) -> Any:
        """See Coordinator.finish."""
        return self.coordinator.finish()

    def fetch_base(self) -> Any:
        """The frozen base, for the export of the adapter."""
        return self.executor.fetch_base()

    def actor_pids(self) -> list[int]:
        """Process ids of the client actors."""
        return self.executor.pids


__all__ = ["ClientActor", "CoordinatorActor", "RaysoftError"]
