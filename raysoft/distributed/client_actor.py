"""The actor of clients: a thin shell over federation/client.py.

What it needs is imported inside, so that actors are asked for before anybody's seconds of imports begin.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import ray

from raysoft.config import RunConfig
from raysoft.distributed.user_files import Contents, placed
from raysoft.federation.executor import pin_threads
from raysoft.kernels import portable

if TYPE_CHECKING:
    from raysoft.federation.workload import WorkloadInfo


@ray.remote
class ClientActor:
    """Home of clients: runs stages on the shared base. Disposable; it keeps nothing that cannot be recomputed."""

    def __init__(self, config: RunConfig) -> None:
        portable.require(config.actors.portable)
        import raysoft.federation.client
        import raysoft.models.trainers.packed_lora  # noqa: F401 - seconds of imports, while another actor prepares the data

        pin_threads(config.actors.threads)
        self.config = config

    def prepare(self) -> tuple[Any, WorkloadInfo]:
        """Load model and data once for the whole run (returned as two objects)."""
        from raysoft.federation.workload import describe, prepare

        workload = prepare(self.config)
        return workload, describe(workload, self.config)

    def adopt(self, config: RunConfig, workload: Any, files: Contents) -> None:
        """Take the shared workload (numpy views into the object store) and build the model around it.

        files: what plug-ins read, which may not lie on this node.
        """
        from raysoft.federation.client import Worker

        placed(files)
        self.worker = Worker(config, workload)
        self.worker.build()

    def ready(self) -> None:
        """Answers once everything asked before is done."""

    def run(self, stage: str, down: Any, requests: Sequence[Any], counts: Sequence[int], *handles: Any) -> Any:
        """One stage on several requests: an object with all replies, then the handles, which stay in the store.

        counts: how many of `handles` belong to each request. (Ray replaces references by values in plain arguments.)
        """
        ends = list(accumulate(counts))
        done = [
            self.worker.run(stage, down, request, *handles[end - count : end])
            for request, count, end in zip(requests, counts, ends, strict=True)
        ]
        return [reply for reply, _ in done], *(handle for _, handle in done)

    def verify(self) -> None:
        """Check the shared base against its checksum."""
        self.worker.verify()
