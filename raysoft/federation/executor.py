"""Where stages run. `inline`: in this process, no Ray. The Ray executor has the same methods."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from raysoft.config import RunConfig
from raysoft.federation.client import Worker
from raysoft.federation.liveness import Steps
from raysoft.federation.workload import Workload, WorkloadInfo, describe, prepare


class Executor(Protocol):
    """Runs the stages of client.py."""

    def start(self) -> WorkloadInfo:
        """Prepare the workload; raises ConfigError on bad input."""
        ...

    def put(self, value: Any) -> Any:
        """Make a broadcast available to every process once; the result stands for it in `map`."""
        ...

    def map(
        self, stage: str, down: Any, requests: Sequence[Any], handles: Sequence[tuple[Any, ...]] | None = None
    ) -> list[tuple[Any, Any]]:
        """Run a stage for each request (with its handles): replies and new handles in request order.

        `down` is the round's broadcast, as returned by `put`. The reply to a `train` request is None where its
        clients are to be dropped (actors.on_failure: drop_client).
        """
        ...

    def verify(self) -> None:
        """Raise RaysoftError if the shared base weights were written to."""
        ...

    def fetch_base(self) -> Any:
        """The frozen base, for the export of the adapter."""
        ...


def pin_threads(threads: int) -> Any:
    """Set the thread count of every numerical library loaded so far; it rounds sums, so it is part of the result.

    Returns a context manager that restores the counts on exit.
    """
    from threadpoolctl import threadpool_limits

    return threadpool_limits(threads)


class InlineExecutor:
    """Everything in this process, one request after the other."""

    def __init__(self, config: RunConfig, workload: Workload | None = None) -> None:
        self.config = config
        self._workload = workload
        # The same thread count as an actor's, or numpy's products could round differently there.
        pin_threads(config.actors.threads)

    def start(self) -> WorkloadInfo:
        """Prepare the workload in this process."""
        workload = self._workload or prepare(self.config)
        self.worker = Worker(self.config, workload)
        self.worker.build()
        pin_threads(self.config.actors.threads)  # libraries that came with the model
        Steps.one()
        return describe(workload, self.config)

    def put(self, value: Any) -> Any:
        """The value itself."""
        return value

    def map(
        self, stage: str, down: Any, requests: Sequence[Any], handles: Sequence[tuple[Any, ...]] | None = None
    ) -> list[tuple[Any, Any]]:
        """Run one after the other."""
        handles = handles or [()] * len(requests)
        done = []
        for request, made in zip(requests, handles, strict=True):
            done.append(self.worker.run(stage, down, request, *made))
            Steps.one()
        return done

    def verify(self) -> None:
        """Check the base against its checksum."""
        self.worker.verify()

    def fetch_base(self) -> Any:
        """The base itself."""
        return self.worker.workload.base
