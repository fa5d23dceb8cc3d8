"""How many trials run side by side, and which share of the machine or cluster each may use."""

from __future__ import annotations

import math
from collections.abc import Sequence

from raysoft.config import RunConfig
from raysoft.distributed.resources import CONTROL_BYTES, PROCESS_BYTES, Machine, trial_bundles
from raysoft.sweep.config import SweepConfig


def share_of(nodes: Sequence[Machine], config: SweepConfig) -> tuple[Machine, ...]:
    """What one trial may plan with: everything, or an equal part of the cores where `max_concurrent` is a number.

    A part lies on as few nodes as can be, the largest first, with the memory and GPUs that go with its cores.
    """
    if config.max_concurrent == "auto":
        return tuple(nodes)
    left: float = max(1, math.floor(sum(node.cpus for node in nodes) / config.max_concurrent))
    parts = []
    for node in sorted(nodes, key=lambda node: -node.cpus):
        taken = min(left, node.cpus)
        if taken > 0:
            part = taken / node.cpus
            parts.append(Machine(taken, int(part * node.memory_bytes), part * node.gpus))
            left -= taken
    return tuple(parts)


def concurrency(nodes: Sequence[Machine], config: SweepConfig, run: RunConfig) -> int | None:
    """Trials side by side: `max_concurrent`, and as many as there are cores, GPUs and memory for; at least one.

    None where the cluster may grow (actors.wait_for_nodes_s) and no number was asked for.
    """
    asked = None if config.max_concurrent == "auto" else config.max_concurrent
    if run.actors.wait_for_nodes_s > 0:
        return asked
    bundles = trial_bundles(run, share_of(nodes, config))
    memory = sum(node.memory_bytes for node in nodes) - CONTROL_BYTES
    have = {"CPU": sum(node.cpus for node in nodes), "GPU": sum(node.gpus for node in nodes)}
    fit = [int(memory // (len(bundles) * PROCESS_BYTES)), *([] if asked is None else [asked])]
    for name, amount in have.items():
        needed = sum(bundle.get(name, 0.0) for bundle in bundles)
        if needed:
            fit.append(int(amount / needed + 1e-9))
    return max(1, min(fit))
