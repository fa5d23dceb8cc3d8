"""A population of 1,000,000 registered clients against one of 1,000, at the same cohort of 1,000.

Two processes, each with one run of preset `soft` on virtual clients through the inline executor, take rounds in turns
(A B A B); every round is the whole one, evaluation and record included. Time is CPU time of the process, so that others
on the machine disturb little; the figure is the median of the ratios of neighbouring rounds. Memory is each process's
peak resident set after all rounds and the final evaluation by client.

    python benchmarks/population.py [--rounds 4] [--population 1000000] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import statistics
import time
from multiprocessing.connection import Connection
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

COHORT = 1000
TARGET_RATIO, TARGET_BYTES = 1.2, 2e9
BOUND_S = 600.0


def serve(population: int, pipe: Connection) -> None:
    """A run in a process of its own: a round on every number received, the end on None."""
    from raysoft.config.presets import load_config
    from raysoft.federation.coordinator import Coordinator
    from raysoft.federation.executor import InlineExecutor, pin_threads
    from raysoft.rundir.folder import record_row

    config = load_config(
        "soft",
        [
            "executor=inline",
            "data.partition=virtual",
            f"data.clients={population}",
            "data.samples_per_client=32",
            f"cohort.size={COHORT}",
            "channel.bandwidth_hz=5e7",
            "train.steps=2",
            "train.batch_size=8",
        ],
    )
    with pin_threads(1):
        began = time.process_time()
        coordinator = Coordinator(config, InlineExecutor(config))
        coordinator.start()
        pipe.send(time.process_time() - began)
        while (tick := pipe.recv()) is not None:
            began = time.process_time()
            record_row(coordinator.round(tick))
            pipe.send(time.process_time() - began)
        coordinator.finish()
        pipe.send(1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def answer(pipe: Connection) -> float:
    """What a process sends next; it has BOUND_S seconds for it."""
    if not pipe.poll(BOUND_S):
        raise SystemExit(f"no answer within {BOUND_S:g} seconds")
    return float(pipe.recv())


def main() -> int:
    """Print the table; 1 if a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--population", type=int, default=1_000_000)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    from raysoft.models.embedded import ensure

    ensure("embedded/vit-digits")
    context = multiprocessing.get_context("spawn")
    pipes, processes = {}, []
    for population in (COHORT, args.population):
        pipes[population], theirs = context.Pipe()
        processes.append(context.Process(target=serve, args=(population, theirs), daemon=True))
        processes[-1].start()
    try:
        starts = {population: answer(pipe) for population, pipe in pipes.items()}
        seconds: dict[int, list[float]] = {population: [] for population in pipes}
        for tick in range(1, args.rounds + 2):
            for population, pipe in pipes.items():
                pipe.send(tick)
                seconds[population].append(answer(pipe))
        peak = {}
        for population, pipe in pipes.items():
            pipe.send(None)
            peak[population] = answer(pipe)
    finally:
        for process in processes:
            process.join(10)
            if process.is_alive():
                process.terminate()
    print(
        f"{'population':>12} {'start':>9} {'a round':>9} {'peak memory':>12}   (CPU seconds; {COHORT} clients a round)"
    )
    for population in pipes:
        print(
            f"{population:>12,} {starts[population]:>7.1f} s {statistics.median(seconds[population][1:]):>7.2f} s "
            f"{peak[population] / 1e6:>9.0f} MB"
        )
    small, large = (seconds[population][1:] for population in pipes)  # the first pair warms up
    ratios = [b / a for a, b in zip(small, large, strict=True)]
    ratio, more = statistics.median(ratios), peak[args.population] - peak[COHORT]
    print(f"time of a round: {ratio:.3f} x  [{min(ratios):.3f}, {max(ratios):.3f}]   target {TARGET_RATIO} x")
    print(f"more memory: {more / 1e6:.0f} MB   target {TARGET_BYTES / 1e6:.0f} MB")
    if args.json:
        found = {"ratio": ratio, "ratios": ratios, "more_bytes": more, "peak_bytes": peak, "start_cpu_s": starts}
        args.json.write_text(json.dumps(found, indent=2) + "\n")
    return 0 if ratio <= TARGET_RATIO and more <= TARGET_BYTES else 1


if __name__ == "__main__":
    raise SystemExit(main())
