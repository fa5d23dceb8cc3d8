"""How many processes a run gets, and whether they fit: decided before Ray starts, with the arithmetic shown."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path

from raysoft.config import RunConfig
from raysoft.errors import ResourceError

PROCESS_BYTES = 400_000_000  # an actor with torch, transformers and peft imported, measured 0.30-0.38 GB
CONTROL_BYTES = 600_000_000  # Ray's own processes and the coordinator


@dataclass(frozen=True)
class ActorPlan:
    """Number of client actors and what each one asks Ray for."""

    actors: int
    clients_per_actor: int | None  # None: any actor trains any pack
    cpus_per_actor: float
    gpus_per_actor: float
    total_cpus: int


def available_cpus() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def available_bytes() -> int:
    """Memory that can be used now: the machine's, or the container's limit where that is smaller."""
    import psutil

    free = psutil.virtual_memory().available
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    try:
        text = limit.read_text().strip()
        return free if text == "max" else min(free, int(text) - int(used.read_text()))
    except (OSError, ValueError):
        return free


def plan_actors(config: RunConfig, cpus: int | None = None, memory_bytes: int | None = None) -> ActorPlan:
    """Size the actors for this machine; raises ResourceError with a setting that fits."""
    actors = config.actors
    have = available_cpus() if cpus is None else cpus
    want = have if actors.cpus == "auto" else actors.cpus
    if want > have:
        raise ResourceError(f"actors.cpus: {want} cores asked for, {have} available; set actors.cpus={have} or less")
    if actors.clients_per_actor == "auto":
        # More actors than packs in a round would idle.
        pack = config.cohort.size if actors.pack_size == "auto" else actors.pack_size
        packs = max(2, math.ceil(config.cohort.size / pack))
        count, per_actor = max(1, min(want // actors.threads or 1, packs)), None
    else:
        per_actor = actors.clients_per_actor
        count = math.ceil(config.data.clients / per_actor)
    budget = available_bytes() if memory_bytes is None else memory_bytes
    need = CONTROL_BYTES + count * PROCESS_BYTES
    if need > budget:
        fit = max(0, (budget - CONTROL_BYTES) // PROCESS_BYTES)
        advice = (
            f"set actors.clients_per_actor={math.ceil(config.data.clients / fit)} or auto"
            if fit
            else "set executor=inline"
        )
        raise ResourceError(
            f"actors.clients_per_actor: {count} actors x {PROCESS_BYTES / 1e9:.1f} GB + {CONTROL_BYTES / 1e9:.1f} GB "
            f"= {need / 1e9:.1f} GB, but {budget / 1e9:.1f} GB is available; {advice}"
        )
    return ActorPlan(
        actors=count,
        clients_per_actor=per_actor,
        cpus_per_actor=min(1.0, math.floor(1000 * want / count) / 1000),
        gpus_per_actor=actors.gpus,
        total_cpus=want,
    )
