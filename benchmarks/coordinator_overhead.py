"""What the coordinator itself spends on a client update, with 1,000 clients a round.

Preset `soft` on virtual clients, everything that a client does (train, encode, sum, evaluate) excluded:

* inline: CPU time of a round in which no stage runs, by step.
* Ray: CPU time of the coordinator's whole process (its Ray threads included) and of the driver that writes the record,
  which together is what the target is about; Ray's daemons (raylet, GCS) apart, since they also move data.
* bytes that reach the coordinator a pack, against the updates of its clients.

CPU time, so that other processes on the machine disturb little. Medians over rounds; the first round is left out.

    python benchmarks/coordinator_overhead.py [--clients 1000] [--rounds 4] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

from _processes import cpu_seconds

from raysoft.config import RunConfig
from raysoft.config.presets import load_config
from raysoft.distributed.session import ray_session
from raysoft.federation.clock import rounds as round_module
from raysoft.federation.coordinator import Coordinator
from raysoft.federation.executor import InlineExecutor
from raysoft.models.embedded import ensure
from raysoft.rundir.folder import RunFolder
from raysoft.types import RoundRecord

TARGET_MS = 1.0
DAEMONS = ("raylet", "gcs_server")


def settings(clients: int, executor: str) -> RunConfig:
    """Short training of many clients; the band grows with the cohort."""
    return load_config(
        "soft",
        [
            f"executor={executor}",
            "data.partition=virtual",
            f"data.clients={clients}",
            "data.samples_per_client=16",
            f"cohort.size={clients}",
            f"channel.bandwidth_hz={5e4 * clients}",
            "train.steps=1",
            "train.batch_size=4",
            "eval.every=1000000",
            "metrics.clients=false",
            "tracking.tensorboard=false",
        ],
    )


class Stopwatch:
    """CPU seconds of this thread inside of some calls."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = {}

    def around(self, name: str, call: Any) -> Any:
        """The same call, timed."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            began = time.thread_time()
            try:
                return call(*args, **kwargs)
            finally:
                self.spent[name] = self.spent.get(name, 0.0) + time.thread_time() - began

        return timed


def inline(clients: int, rounds: int) -> tuple[dict[str, float], dict[str, int]]:
    """Milliseconds of the coordinator by step (medians), and bytes a pack."""
    config = settings(clients, "inline")
    coordinator = Coordinator(config, InlineExecutor(config))
    coordinator.start()
    watch, executor, travelled = Stopwatch(), coordinator.executor, {}
    stages, allocator = executor.map, coordinator.parts.allocator

    def weighed(stage: str, *args: Any) -> Any:
        done = watch.around("stages", stages)(stage, *args)
        began = time.thread_time()
        if stage not in travelled:
            travelled[stage] = sum(len(pickle.dumps(reply, 5)) for reply, _ in done)
        watch.spent["stages"] += time.thread_time() - began
        return done

    executor.map = weighed  # type: ignore[method-assign]
    object.__setattr__(allocator, "allocate", watch.around("allocate", allocator.allocate))
    round_module.record_of, plain = watch.around("record", round_module.record_of), round_module.record_of  # type: ignore[attr-defined]
    rows = []
    try:
        for tick in range(1, rounds + 2):
            watch.spent.clear()
            began = time.thread_time()
            coordinator.round(tick)
            whole = time.thread_time() - began - watch.spent.pop("stages")
            rest = whole - sum(watch.spent.values())
            rows.append(
                {
                    "allocate": watch.spent["allocate"],
                    "record": watch.spent["record"],
                    "everything else": rest,
                    "coordinator": whole,
                }
            )
    finally:
        round_module.record_of = plain  # type: ignore[attr-defined]
    packs = -(-clients // coordinator.parts.pack_size)
    arrived = {stage: size // packs for stage, size in travelled.items()}
    raw = 4 * coordinator.parts.info.space.num_values() * clients // packs
    return _medians(rows[1:]), {**arrived, "updates": raw}


def on_ray(clients: int, rounds: int) -> dict[str, float]:
    """Milliseconds of the coordinator's process, the driver and Ray's daemons a round (medians)."""
    rows = []
    with (
        tempfile.TemporaryDirectory() as folder,
        RunFolder(Path(folder) / "run") as out,
        ray_session(settings(clients, "ray")) as session,
    ):
        session.start()
        for tick in range(1, rounds + 2):
            before, began, at = cpu_seconds(), time.process_time(), time.perf_counter()
            record: RoundRecord = session.round(tick)
            out.append(record)
            driver, wall = time.process_time() - began, time.perf_counter() - at
            after = cpu_seconds()
            spent = {name: after[name] - before.get(name, 0.0) for name in after}
            coordinator = next(value for name, value in spent.items() if "CoordinatorActor" in name)
            rows.append(
                {
                    "coordinator and driver": coordinator + driver,
                    "driver": driver,
                    "daemons": sum(spent.get(name, 0.0) for name in DAEMONS),
                    "client actors": sum(value for name, value in spent.items() if "ClientActor" in name),
                    "wall": wall,
                }
            )
    return _medians(rows[1:])


def _medians(rows: list[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.median(row[name] for row in rows) for name in rows[0]}


def main() -> int:
    """Print the tables; 1 if the target is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    ensure("embedded/vit-digits")
    ours, arrived = inline(args.clients, args.rounds)
    remote = on_ray(args.clients, args.rounds)
    print(f"CPU milliseconds a client update, {args.clients} clients a round (medians of {args.rounds} rounds)")
    for name, seconds in ours.items():
        print(f"  inline, {name:<26} {1e3 * seconds / args.clients:7.3f}")
    for name in ("coordinator and driver", "driver", "daemons", "client actors"):
        print(f"  Ray, {name:<29} {1e3 * remote[name] / args.clients:7.3f}")
    print(f"bytes to the coordinator a pack of clients whose updates are {arrived.pop('updates'):,}:")
    print("  " + ", ".join(f"{stage} {size:,}" for stage, size in arrived.items()))
    worst = 1e3 * max(ours["coordinator"], remote["coordinator and driver"]) / args.clients
    print(f"coordinator: {worst:.2f} ms a client update   target {TARGET_MS} ms")
    if args.json:
        args.json.write_text(json.dumps({"inline_s": ours, "ray_s": remote, "bytes": arrived}, indent=2) + "\n")
    return 0 if worst <= TARGET_MS else 1


if __name__ == "__main__":
    raise SystemExit(main())
