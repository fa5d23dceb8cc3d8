"""How many processes a run gets, and whether they fit: decided before Ray starts, with the arithmetic shown."""

from __future__ import annotations

import math
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from raysoft.config import RunConfig
from raysoft.errors import ResourceError
from raysoft.federation.workload import EMBEDDED_PACK_SIZE

PROCESS_BYTES = 400_000_000  # an actor with torch, transformers and peft imported, measured 0.30-0.38 GB
CONTROL_BYTES = 600_000_000  # Ray's own processes and the coordinator


@dataclass(frozen=True)
class Machine:
    """What there is to share out: on this machine, or in the whole cluster."""

    cpus: int
    memory_bytes: int
    gpus: float = 0.0

    @classmethod
    def here(cls, count_gpus: bool) -> Machine:
        """This machine as it is now. Counting GPUs asks the driver, so it is done only where they matter."""
        return cls(available_cpus(), available_bytes(), available_gpus() if count_gpus else 0)


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


def available_gpus() -> int:
    """NVIDIA GPUs this process may use, without importing torch."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([name for name in visible.split(",") if name.strip() not in ("", "-1")])
    if shutil.which("nvidia-smi") is None:
        return 0
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return 0
    return sum(line.startswith("GPU ") for line in listed.splitlines())


def plan_actors(config: RunConfig, machine: Machine | None = None) -> ActorPlan:
    """Size the actors for a machine (default: this one); raises ResourceError with a setting that fits."""
    actors = config.actors
    machine = machine or Machine.here(count_gpus=actors.gpus > 0)
    want = machine.cpus if actors.cpus == "auto" else actors.cpus
    if want > machine.cpus:
        raise ResourceError(
            f"actors.cpus: {want} cores asked for, {machine.cpus} available; set actors.cpus={machine.cpus} or less"
        )
    fit = max(0, (machine.memory_bytes - CONTROL_BYTES) // PROCESS_BYTES)
    most_gpu = math.floor(machine.gpus / actors.gpus + 1e-9) if actors.gpus else math.inf
    per_actor = None if actors.clients_per_actor == "auto" else actors.clients_per_actor
    if per_actor is None:
        # Never fewer than one: what does not fit is refused below.
        count = int(max(1, min(want // actors.threads, _packs(config), fit, most_gpu)))
    else:
        count = math.ceil(config.data.clients / per_actor)
    if count > most_gpu:
        raise ResourceError(
            f"actors.gpus: {count} actors x {actors.gpus:g} = {count * actors.gpus:g} GPUs, but {machine.gpus:g} "
            f"available; set actors.gpus={math.floor(1000 * machine.gpus / count) / 1000:g} or less"
        )
    if count > fit:
        raise ResourceError(_too_little_memory(config, count, fit, machine.memory_bytes))
    return ActorPlan(
        actors=count,
        clients_per_actor=per_actor,
        cpus_per_actor=min(1.0, math.floor(1000 * want / count) / 1000),
        gpus_per_actor=actors.gpus,
        total_cpus=want,
    )


def _packs(config: RunConfig) -> int:
    """Packs of a round, or at most that many; more actors would idle. Two also share the evaluation."""
    pack = config.actors.pack_size
    if pack == "auto":
        pack = EMBEDDED_PACK_SIZE if config.model.name.startswith("embedded/") else 1
    return max(2, math.ceil(config.cohort.size / pack))


def _too_little_memory(config: RunConfig, count: int, fit: int, memory_bytes: int) -> str:
    need = CONTROL_BYTES + count * PROCESS_BYTES
    if fit and config.actors.clients_per_actor != "auto":
        advice = f"set actors.clients_per_actor={math.ceil(config.data.clients / fit)} or auto"
    else:
        advice = "set executor=inline"
    return (
        f"actors.clients_per_actor: {count} actors x {PROCESS_BYTES / 1e9:.1f} GB + {CONTROL_BYTES / 1e9:.1f} GB "
        f"= {need / 1e9:.1f} GB, but {memory_bytes / 1e9:.1f} GB is available; {advice}"
    )
