"""How many processes a run gets, and whether they fit: decided before Ray starts, with the arithmetic shown."""

from __future__ import annotations

import heapq
import math
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from raysoft.config import RunConfig
from raysoft.config.identity import EMBEDDED
from raysoft.errors import ResourceError
from raysoft.federation.workload import embedded_pack_size

PROCESS_BYTES = 400_000_000  # an actor with torch, transformers and peft imported, measured 0.30-0.38 GB
CONTROL_BYTES = 600_000_000  # Ray's own processes and the coordinator
NO_CORES = "start worker nodes, or set actors.wait_for_nodes_s=600 where an autoscaler adds them"


@dataclass(frozen=True)
class Machine:
    """What there is to share out on this machine, or on one node of a cluster."""

    cpus: float
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

    def bundle(self) -> dict[str, float]:
        """What one actor reserves on its node of a cluster."""
        gpus = {"GPU": self.gpus_per_actor} if self.gpus_per_actor else {}
        return {"CPU": self.cpus_per_actor, **gpus, "memory": PROCESS_BYTES}


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
    return plan_on_nodes(config, [machine or Machine.here(count_gpus=config.actors.gpus > 0)])


def plan_on_nodes(config: RunConfig, nodes: Sequence[Machine]) -> ActorPlan:
    """Size the actors for the nodes of a cluster, the driver's first: an actor has its cores on one node.

    Raises ResourceError with a setting that fits.
    """
    actors = config.actors
    cpus, gpus = math.floor(sum(node.cpus for node in nodes)), sum(node.gpus for node in nodes)
    where = f" on {len(nodes)} nodes" if len(nodes) > 1 else ""
    want = cpus if actors.cpus == "auto" else actors.cpus
    if want > cpus:
        raise ResourceError(
            f"actors.cpus: {want} cores asked for, {cpus} available{where}; set actors.cpus={cpus} or less"
        )
    if cpus < 1:
        raise ResourceError(f"actors.cpus: no core for an actor{where}; {NO_CORES}")
    by_memory = [max(0, (node.memory_bytes - (0 if at else CONTROL_BYTES)) // PROCESS_BYTES) for at, node in
                 enumerate(nodes)]  # fmt: skip
    by_gpu = [math.floor(node.gpus / actors.gpus + 1e-9) if actors.gpus else math.inf for node in nodes]
    most = [min(pair) if node.cpus > 0 else 0 for node, *pair in zip(nodes, by_memory, by_gpu, strict=True)]
    per_actor = None if actors.clients_per_actor == "auto" else actors.clients_per_actor
    if per_actor is None:
        by_cpu = [max(1, node.cpus // actors.threads) if node.cpus > 0 else 0 for node in nodes]
        fit = sum(min(pair) for pair in zip(most, by_cpu, strict=True))
        in_all = math.inf if actors.cpus == "auto" else want // actors.threads
        # Never fewer than one: what does not fit is refused below.
        count = int(max(1, min(in_all, _packs(config), fit)))
    else:
        count = math.ceil(config.data.clients / per_actor)
    if count > sum(by_gpu):
        if not gpus:
            raise ResourceError(
                f"actors.gpus: {count} actors x {actors.gpus:g} = {count * actors.gpus:g} GPUs, but no GPU is "
                f"available{where or ' on this machine'}; set actors.gpus=0 (the default) to compute on cores"
            )
        share = _share(_spread(count, [node.gpus for node in nodes], [math.inf] * len(nodes)), nodes, "gpus")
        raise ResourceError(
            f"actors.gpus: {count} actors x {actors.gpus:g} = {count * actors.gpus:g} GPUs, but {gpus:g} "
            f"available{where}; set actors.gpus={math.floor(1000 * share) / 1000:g} or less"
        )
    if count > sum(most):
        memory = sum(node.memory_bytes for node in nodes)
        raise ResourceError(_too_little_memory(config, count, int(sum(most)), memory, where))
    spread = _spread(count, [node.cpus for node in nodes], most)
    share = min(actors.threads, want / count, _share(spread, nodes, "cpus"))
    return ActorPlan(
        actors=count,
        clients_per_actor=per_actor,
        cpus_per_actor=math.floor(1000 * share + 1e-9) / 1000,
        gpus_per_actor=actors.gpus,
        total_cpus=want,
    )


def plan_for_growth(config: RunConfig) -> ActorPlan:
    """What a run asks of a cluster that may grow: as many actors as can work side by side, each with its own cores."""
    actors = config.actors
    per_actor = None if actors.clients_per_actor == "auto" else actors.clients_per_actor
    if per_actor is not None:
        count = math.ceil(config.data.clients / per_actor)
        share = 1.0 if actors.cpus == "auto" else min(float(actors.threads), actors.cpus / count)
    else:
        count = _packs(config) if actors.cpus == "auto" else max(1, min(_packs(config), actors.cpus // actors.threads))
        share = float(actors.threads)
    return ActorPlan(count, per_actor, math.floor(1000 * share) / 1000, actors.gpus, math.ceil(count * share))


def _spread(count: int, amounts: Sequence[float], most: Sequence[float]) -> list[int]:
    """Numbers of actors on each node, so that the smallest share of an amount is as large as can be (D'Hondt).

    >>> _spread(4, [8, 4, 0], [9, 9, 9])
    [3, 1, 0]
    """
    given = [0] * len(amounts)
    heap = [(-amount, at) for at, amount in enumerate(amounts) if amount > 0 and most[at] > 0]
    heapq.heapify(heap)
    for _ in range(count):
        if not heap:
            break
        _, at = heapq.heappop(heap)
        given[at] += 1
        if given[at] < most[at]:
            heapq.heappush(heap, (-amounts[at] / (given[at] + 1), at))
    return given


def _share(given: Sequence[int], nodes: Sequence[Machine], what: str) -> float:
    return min((getattr(node, what) / n for n, node in zip(given, nodes, strict=True) if n), default=0.0)


def trial_plan(config: RunConfig, nodes: Sequence[Machine]) -> ActorPlan | None:
    """The client actors of a trial of a sweep (None: it computes in its own process). Raises ResourceError."""
    if config.executor != "ray":
        return None
    return plan_for_growth(config) if config.actors.wait_for_nodes_s > 0 else plan_on_nodes(config, nodes)


def trial_bundles(config: RunConfig, nodes: Sequence[Machine]) -> list[dict[str, float]]:
    """What a trial of a sweep asks Ray for: its own process first, which coordinates, then one bundle a client actor.

    A coordinator asks for nothing, as in a run; a trial without actors for its threads and `actors.gpus`. `nodes` is
    the trial's share of the machine or cluster. Raises ResourceError where that is too small.
    """
    actors, plan = config.actors, trial_plan(config, nodes)
    if plan is not None:
        return [{}, *([plan.bundle()] * plan.actors)]
    for name, wanted, most in (
        ("actors.threads", actors.threads, max((node.cpus for node in nodes), default=0)),
        ("actors.gpus", actors.gpus, max((node.gpus for node in nodes), default=0)),
    ):
        if wanted > most and actors.wait_for_nodes_s == 0:
            if not most:
                advice = NO_CORES if name == "actors.threads" else "set actors.gpus=0, or start nodes with GPUs"
                raise ResourceError(f"{name}: {wanted:g} asked for, none is available to a trial; {advice}")
            raise ResourceError(
                f"{name}: {wanted:g} asked for, {most:g} on the largest node of a trial; set {name}={most:g} or less"
            )
    return [{"CPU": float(actors.threads), **({"GPU": actors.gpus} if actors.gpus else {})}]


def _packs(config: RunConfig) -> int:
    """Packs of a round, or at most that many; more actors would idle. Two also share the evaluation."""
    pack = config.actors.pack_size
    if pack == "auto":
        pack = embedded_pack_size(config.cohort.size) if config.model.name.startswith(EMBEDDED) else 1
    return max(2, math.ceil(config.cohort.size / pack))


def _too_little_memory(config: RunConfig, count: int, fit: int, memory_bytes: int, where: str) -> str:
    need = CONTROL_BYTES + count * PROCESS_BYTES
    if fit and config.actors.clients_per_actor != "auto":
        advice = f"set actors.clients_per_actor={math.ceil(config.data.clients / fit)} or auto"
    else:
        advice = "set executor=inline"
    return (
        f"actors.clients_per_actor: {count} actors x {PROCESS_BYTES / 1e9:.1f} GB + {CONTROL_BYTES / 1e9:.1f} GB "
        f"= {need / 1e9:.1f} GB, but {memory_bytes / 1e9:.1f} GB is available{where}; {advice}"
    )
