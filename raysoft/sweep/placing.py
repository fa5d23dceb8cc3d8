"""How many trials run side by side, and which share of the machine or cluster each may use."""

from __future__ import annotations

from raysoft.config import RunConfig
from raysoft.federation.resources import CONTROL_BYTES, PROCESS_BYTES, Machine, trial_bundles
from raysoft.sweep.config import SweepConfig


def share_of(machine: Machine, config: SweepConfig) -> Machine:
    """What one trial may plan with: everything, or an equal part where `max_concurrent` is a number."""
    if config.max_concurrent == "auto":
        return machine
    parts = config.max_concurrent
    return Machine(max(1, machine.cpus // parts), machine.memory_bytes // parts, machine.gpus / parts)


def concurrency(machine: Machine, config: SweepConfig, run: RunConfig) -> int:
    """Trials side by side: `max_concurrent`, and as many as there are cores, GPUs and memory for; at least one."""
    bundles = trial_bundles(run, share_of(machine, config))
    cpus = sum(bundle.get("CPU", 0.0) for bundle in bundles)
    gpus = sum(bundle.get("GPU", 0.0) for bundle in bundles)
    fit = [
        int((machine.memory_bytes - CONTROL_BYTES) // (len(bundles) * PROCESS_BYTES)),
        int(machine.cpus / cpus + 1e-9),
    ]
    if gpus:
        fit.append(int(machine.gpus / gpus + 1e-9))
    if config.max_concurrent != "auto":
        fit.append(config.max_concurrent)
    return max(1, min(fit))
