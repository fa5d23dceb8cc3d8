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
_SLACK = 1e-9  # a quotient may come out just below the whole number that it is
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
    cores = _wanted_cores(config, nodes)
    room = [_Room.of(node, config.actors.gpus, drivers=at == 0) for at, node in enumerate(nodes)]
    count = _number_of_actors(config, nodes, room, cores)
    _check_gpus(config, nodes, room, count)
    _check_memory(config, nodes, room, count)
    node_cpus = [node.cpus for node in nodes]
    spread = _spread(count, node_cpus, [one.most for one in room])
    each = min(config.actors.threads, cores / count, _smallest_share(spread, node_cpus))
    return ActorPlan(
        actors=count,
        clients_per_actor=_clients_per_actor(config),
        cpus_per_actor=_thousandths(each, slack=_SLACK),
        gpus_per_actor=config.actors.gpus,
        total_cpus=cores,
    )


@dataclass(frozen=True)
class _Room:
    """How many actors one node can hold, whatever its number of cores, which may be shared."""

    by_gpu: float  # infinite where no GPU is asked for
    most: float  # by memory and by GPU; none where there is no core to share

    @classmethod
    def of(cls, node: Machine, gpus_per_actor: float, drivers: bool) -> _Room:
        """Of a node; the driver's also holds Ray's own processes and the coordinator."""
        left_bytes = node.memory_bytes - (CONTROL_BYTES if drivers else 0)
        by_memory = max(0, left_bytes // PROCESS_BYTES)
        by_gpu = math.floor(node.gpus / gpus_per_actor + _SLACK) if gpus_per_actor else math.inf
        return cls(by_gpu, min(by_memory, by_gpu) if node.cpus > 0 else 0)


def _where(nodes: Sequence[Machine]) -> str:
    return f" on {len(nodes)} nodes" if len(nodes) > 1 else ""


def _clients_per_actor(config: RunConfig) -> int | None:
    """None: any actor trains any pack."""
    asked = config.actors.clients_per_actor
    return None if asked == "auto" else asked


def _wanted_cores(config: RunConfig, nodes: Sequence[Machine]) -> int:
    """Cores for all actors together. Raises ResourceError where there are not so many."""
    there, where = math.floor(sum(node.cpus for node in nodes)), _where(nodes)
    asked = config.actors.cpus
    cores = there if asked == "auto" else asked
    if cores > there:
        raise ResourceError(
            f"actors.cpus: {cores} cores asked for, {there} available{where}; set actors.cpus={there} or less"
        )
    if there < 1:
        raise ResourceError(f"actors.cpus: no core for an actor{where}; {NO_CORES}")
    return cores


def _number_of_actors(config: RunConfig, nodes: Sequence[Machine], room: Sequence[_Room], cores: int) -> int:
    """As many as the clients need where each has its home, else as many as can work side by side and fit."""
    actors, per_actor = config.actors, _clients_per_actor(config)
    if per_actor is not None:
        return math.ceil(config.data.clients / per_actor)
    # An actor uses `threads` cores; a node with fewer still holds one actor, which then is slower.
    by_cpu = [max(1, node.cpus // actors.threads) if node.cpus > 0 else 0 for node in nodes]
    fit = sum(min(one.most, number) for one, number in zip(room, by_cpu, strict=True))
    by_wish = math.inf if actors.cpus == "auto" else cores // actors.threads
    # Never fewer than one: what does not fit is refused by the checks of GPUs and memory.
    return int(max(1, min(by_wish, _packs(config), fit)))


def _check_gpus(config: RunConfig, nodes: Sequence[Machine], room: Sequence[_Room], count: int) -> None:
    if count <= sum(one.by_gpu for one in room):
        return
    each, there, where = config.actors.gpus, sum(node.gpus for node in nodes), _where(nodes)
    asked = f"actors.gpus: {count} actors x {each:g} = {count * each:g} GPUs"
    if not there:
        raise ResourceError(
            f"{asked}, but no GPU is available{where or ' on this machine'}; set actors.gpus=0 (the default) to "
            "compute on cores"
        )
    node_gpus = [node.gpus for node in nodes]
    spread = _spread(count, node_gpus, most=[math.inf] * len(nodes))
    fits = _thousandths(_smallest_share(spread, node_gpus))
    raise ResourceError(f"{asked}, but {there:g} available{where}; set actors.gpus={fits:g} or less")


def _check_memory(config: RunConfig, nodes: Sequence[Machine], room: Sequence[_Room], count: int) -> None:
    fit = int(sum(one.most for one in room))
    if count <= fit:
        return
    need, there = CONTROL_BYTES + count * PROCESS_BYTES, sum(node.memory_bytes for node in nodes)
    if fit and config.actors.clients_per_actor != "auto":
        advice = f"set actors.clients_per_actor={math.ceil(config.data.clients / fit)} or auto"
    else:
        advice = "set executor=inline"
    raise ResourceError(
        f"actors.clients_per_actor: {count} actors x {PROCESS_BYTES / 1e9:.1f} GB + {CONTROL_BYTES / 1e9:.1f} GB "
        f"= {need / 1e9:.1f} GB, but {there / 1e9:.1f} GB is available{_where(nodes)}; {advice}"
    )


def plan_for_growth(config: RunConfig) -> ActorPlan:
    """What a run asks of a cluster that may grow: as many actors as can work side by side, each with its own cores."""
    actors, per_actor = config.actors, _clients_per_actor(config)
    each = float(actors.threads)
    if per_actor is not None:
        count = math.ceil(config.data.clients / per_actor)
        each = 1.0 if actors.cpus == "auto" else min(each, actors.cpus / count)
    elif actors.cpus == "auto":
        count = _packs(config)
    else:
        count = max(1, min(_packs(config), actors.cpus // actors.threads))
    return ActorPlan(
        actors=count,
        clients_per_actor=per_actor,
        cpus_per_actor=_thousandths(each),
        gpus_per_actor=actors.gpus,
        total_cpus=math.ceil(count * each),
    )


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


def _smallest_share(given: Sequence[int], amounts: Sequence[float]) -> float:
    """What one actor has on the node where actors have the least."""
    return min((amount / n for n, amount in zip(given, amounts, strict=True) if n), default=0.0)


def _thousandths(amount: float, slack: float = 0.0) -> float:
    """Rounded down: Ray counts in steps of 1/10000, and shares that are rounded up do not fit together."""
    return math.floor(1000 * amount + slack) / 1000


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
    if actors.wait_for_nodes_s == 0:  # else a node that is large enough may come
        _check_largest("actors.threads", actors.threads, [node.cpus for node in nodes], NO_CORES)
        no_gpus = "set actors.gpus=0, or start nodes with GPUs"
        _check_largest("actors.gpus", actors.gpus, [node.gpus for node in nodes], no_gpus)
    return [{"CPU": float(actors.threads), **({"GPU": actors.gpus} if actors.gpus else {})}]


def _check_largest(name: str, wanted: float, amounts: Sequence[float], without: str) -> None:
    """Whether some node has as much as one process wants; `without`: the advice where no node has any."""
    most = max(amounts, default=0)
    if wanted <= most:
        return
    if not most:
        raise ResourceError(f"{name}: {wanted:g} asked for, none is available to a trial; {without}")
    raise ResourceError(
        f"{name}: {wanted:g} asked for, {most:g} on the largest node of a trial; set {name}={most:g} or less"
    )


def _packs(config: RunConfig) -> int:
    """Packs of a round, or at most that many; more actors would idle. Two also share the evaluation."""
    pack = config.actors.pack_size
    if pack == "auto":
        pack = embedded_pack_size(config.cohort.size) if config.model.name.startswith(EMBEDDED) else 1
    return max(2, math.ceil(config.cohort.size / pack))
