"""What a run will cost, tried before it runs: model and data are read, one pack trains, the first cohorts are planned.

Nothing is kept, and Ray is not started: all of it happens in this process. What would take long is left out.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from raysoft.config import RunConfig
from raysoft.distributed.resources import CONTROL_BYTES, PROCESS_BYTES, plan_actors
from raysoft.distributed.session import joins_cluster
from raysoft.federation.clock.rounds import deliver
from raysoft.federation.coordinator import Coordinator
from raysoft.federation.evaluation import broadcast_of, client_requests
from raysoft.federation.executor import InlineExecutor, pin_threads
from raysoft.federation.messages import EvaluateRequest
from raysoft.federation.prospect import Prospect, foresee
from raysoft.federation.stages import RoundSteps
from raysoft.federation.workload import Workload, WorkloadInfo, prepare
from raysoft.kernels import portable
from raysoft.models.embedded import PREFIX
from raysoft.types import ClientReport, Pack

LONG_S = 5.0  # a step that takes longer is not repeated, and not done for a whole pack
MOST_BYTES = 2_000_000_000  # of a model's folder or of data: more takes long to read
_FEW_ITEMS = 32


@dataclass(frozen=True)
class Rehearsal:
    """What was found. Seconds are wall time of the run's rounds; bytes are of all its processes together."""

    info: WorkloadInfo
    samples_K: Sequence[int]  # of each client
    prospect: Prospect
    wall_s: float
    memory_bytes: float
    timed_clients: int  # on which both rest: so many clients trained, encoded and summed
    timed_s: float
    at_once: int  # processes side by side in the run


def why_not(config: RunConfig) -> str:
    """Why no rehearsal is made, in half a sentence; "" where one is."""
    if config.model.lora.rank == "plan":
        return "the rank is chosen when the run begins"
    if config.executor == "ray" and joins_cluster():
        return "the run computes on a cluster, whose files and speed this machine does not know"
    if not config.model.name.startswith(PREFIX) and _bytes_of(config.model.name) is None:
        return f"the model {config.model.name!r} would be fetched from the hub"
    if config.data.path is not None and _bytes_of(config.data.path) is None:
        return f"the data {config.data.path!r} would be fetched from the hub"
    for name, place in (("model", config.model.name), ("data", config.data.path)):
        if place is not None and (_bytes_of(place) or 0) > MOST_BYTES:
            return f"to read the {name} takes long"
    return ""


def rehearse(config: RunConfig) -> Rehearsal:
    """Read, train one pack, plan the first cohorts. Raises ConfigError where the run itself would before its rounds."""
    portable.require(config.actors.portable)
    with pin_threads(config.actors.threads):
        executor = InlineExecutor(config, prepare(config))
        run = Coordinator(config, executor)
        info = run.start().info
        before, packs = _resident_bytes(), RoundSteps(run.parts, run.state, 1).select()[1]
        timed = _timed_pack(run, packs[0])
        item_s = _timed_evaluation(run)
        began = time.perf_counter()
        prospect = foresee(run.parts, run.state, timed.reports)
        planning_s = (time.perf_counter() - began) / prospect.rounds
        growth = max(_peak_bytes() - before, 0)
    plan = plan_actors(config) if config.executor == "ray" else None
    at_once = 1 if plan is None else max(1, int(plan.actors * plan.cpus_per_actor / config.actors.threads + 1e-6))
    clients_s = math.ceil(len(packs) / at_once) * timed.pack_s
    partition = info.partition
    return Rehearsal(
        info=info,
        samples_K=[partition.size(one) for one in range(1 if partition.shards is None else partition.clients)],
        prospect=prospect,
        wall_s=_wall_s(run, at_once, clients_s, planning_s, item_s),
        memory_bytes=_memory_bytes(executor.worker.workload, growth, None if plan is None else plan.actors),
        timed_clients=timed.clients,
        timed_s=timed.seconds,
        at_once=at_once,
    )


@dataclass(frozen=True)
class _Timed:
    reports: tuple[ClientReport, ...]
    clients: int
    seconds: float
    pack_s: float  # of a whole pack


def _timed_pack(run: Coordinator, pack: Pack) -> _Timed:
    """Train, encode and fold: a client alone first, which also loads what libraries load late; then the pack."""
    alone = Pack(pack.tick, pack.clients[:1])
    seconds, reports = _timed_clients(run, alone)
    if seconds > LONG_S:
        return _Timed(reports, 1, seconds, seconds * len(pack.clients))
    clients = len(pack.clients) if seconds * len(pack.clients) <= 4 * LONG_S else 1
    seconds, reports = _timed_clients(run, pack if clients > 1 else alone)
    return _Timed(reports, clients, seconds, seconds * len(pack.clients) / clients)


def _timed_clients(run: Coordinator, pack: Pack) -> tuple[float, tuple[ClientReport, ...]]:
    began = time.perf_counter()
    step = RoundSteps(run.parts, run.state, pack.tick)
    down = step.broadcast()
    trained = step.train([pack], down, cohort=len(pack.clients))
    who, plan = step.allocate(trained.reports)
    encoded = step.encode(trained, plan, down)
    step.fold(trained, encoded, deliver(run.parts, plan, who, encoded.sent, pack.tick), down)
    return time.perf_counter() - began, trained.reports


def _timed_evaluation(run: Coordinator) -> float:
    """Seconds an item: of a few items, then of a batch where that is quick (few items do not fill the machine)."""
    parts, items = run.parts, min(run.parts.info.eval_items, run.config.eval.batch_size)
    down = parts.executor.put(broadcast_of(parts.method.model(run.state.server)))

    def seconds_of(count: int) -> float:
        began = time.perf_counter()
        parts.executor.map("evaluate", down, [EvaluateRequest(0, count)])
        return (time.perf_counter() - began) / count

    few = seconds_of(min(items, _FEW_ITEMS))
    return seconds_of(items) if few * items <= LONG_S else few


def _wall_s(run: Coordinator, at_once: int, clients_s: float, planning_s: float, item_s: float) -> float:
    """Of all rounds, in which the clients take `clients_s` and allocation `planning_s`, and of the evaluations."""
    config, info = run.config, run.parts.info
    evaluations = config.rounds // config.eval.every + 1
    items = evaluations * info.eval_items
    if config.metrics.clients:
        requests = client_requests(config, info.partition)
        limit = config.metrics.client_samples
        items += sum(min(info.partition.size(client), limit) for one in requests for client in one.clients)
    return config.rounds * (clients_s + planning_s) + items * item_s / at_once


def _memory_bytes(workload: Workload, growth: float, actors: int | None) -> float:
    """Inline (None) the most of this process; else what training and evaluation added an actor, model and data once."""
    if actors is None:
        return _peak_bytes()
    shared = float(sum(value.nbytes for value in workload.base.weights.values()))
    for split in (workload.data.train, workload.data.validation, workload.data.test, workload.data.proxy):
        shared += sum(value.nbytes for value in split.inputs.values()) + split.labels.nbytes
    return CONTROL_BYTES + shared + actors * (PROCESS_BYTES + growth)


def _resident_bytes() -> float:
    import psutil

    return float(psutil.Process().memory_info().rss)


def _peak_bytes() -> float:
    """The most that this process has held so far; what it holds, where the system does not say."""
    try:
        import resource
    except ImportError:
        return _resident_bytes()
    unit = 1 if sys.platform == "darwin" else 1024
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)


def _bytes_of(place: str) -> int | None:
    """Of a file, or of all files in a folder; None where there is none of this name."""
    try:
        path = Path(place).expanduser()
        if path.is_file():
            return path.stat().st_size
        return sum(one.stat().st_size for one in path.rglob("*") if one.is_file()) if path.is_dir() else None
    except (OSError, RuntimeError, ValueError):
        return None
