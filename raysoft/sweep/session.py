"""The coordinator of a trial: in the trial's own process, with its client actors in the trial's placement group."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import ray

from raysoft.config import RunConfig
from raysoft.distributed.executor import RayExecutor
from raysoft.distributed.placement import Reservation
from raysoft.distributed.resources import Machine, trial_plan
from raysoft.federation.coordinator import Coordinator
from raysoft.federation.executor import InlineExecutor, pin_threads
from raysoft.runs.run import Sessions


def trial_sessions(share: Sequence[Machine]) -> Sessions:
    """What runs.run.run takes for `session`; `share` is what the trial's resources were planned with."""

    @contextmanager
    def session(config: RunConfig) -> Iterator[Coordinator]:
        plan = trial_plan(config, share)
        with pin_threads(config.actors.threads):
            if plan is None:
                yield Coordinator(config, InlineExecutor(config))
                return
            executor = RayExecutor(config, Reservation(plan))  # its actors inherit the group of this process
            try:
                yield Coordinator(config, executor)
            finally:
                for actor in executor.crew.actors:  # the process may be used for the next trial
                    ray.kill(actor)

    return session
