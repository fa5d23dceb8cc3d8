"""CPU time per solve of the allocation solvers, as a table: `python benchmarks/solvers.py [--large]`.

min-max: bandwidth for given payloads. inner: best use of a fixed round time. online: round time, units and bandwidth
(grid + refinement). round: what the allocator `tsfa` takes for one cohort, from reports to plan. Best of some runs on
one thread; `--large` adds the largest cohorts (about a minute).
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import math
import time
from collections.abc import Callable

import numpy as np

from raysoft.allocation.base import AllocationContext
from raysoft.allocation.solvers import solve_minmax
from raysoft.allocation.solvers.inner import Problem, solve_inner
from raysoft.allocation.solvers.online import solve_online
from raysoft.config import Plugin, registry
from raysoft.rng import Rng
from raysoft.types import ChannelState, ClientReport, Curve, Participants
from raysoft.wireless import rayleigh
from raysoft.wireless.link import Link

LINK = Link.from_config(rayleigh.Config())
HZ_PER_CLIENT = 5e4
UNITS_BITS = 4096


def best_of(work: Callable[[], object], budget_s: float = 1.0, most: int = 30) -> float:
    """Shortest of as many runs as fit into the budget (at least two)."""
    times: list[float] = []
    while len(times) < 2 or (sum(times) < budget_s and len(times) < most):
        began = time.process_time()
        work()
        times.append(time.process_time() - began)
    return min(times)


def arrays(clients: int) -> tuple[np.ndarray, np.ndarray]:
    """Upload start [s] and a_k [Hz] of clients between 35 and 250 m, Rayleigh fading."""
    rng = np.random.default_rng(clients)
    loss_db = 128.1 + 37.6 * np.log10(rng.uniform(0.035, 0.25, clients)) + 8.0 * rng.standard_normal(clients)
    gain = 10 ** (-loss_db / 10) * rng.exponential(1.0, clients)
    return rng.uniform(0.04, 0.16, clients), LINK.snr_hz(np.maximum(gain, 1e-13), np.full(clients, 0.1))


def curve(seed: int, units: int) -> Curve:
    """Rank components plus the price of a mask."""
    energy = -np.sort(-(np.random.default_rng(seed).exponential(1.0, units) ** 2))
    mask = [math.ceil(math.log2(math.comb(units, n))) for n in range(units + 1)]
    error = np.maximum(energy.sum() - np.concatenate([[0.0], np.cumsum(energy)]), 0.0)
    return Curve(0, UNITS_BITS * np.arange(units + 1) + np.array(mask), error)


def problem(clients: int, knots: int, efficiency: float) -> Problem:
    """A cohort of menus with `knots` levels each."""
    start, snr = arrays(clients)
    energy = np.random.default_rng(1).exponential(1.0, (clients, knots)) ** 2
    energy = -np.sort(-energy, axis=1)
    bits = UNITS_BITS * np.broadcast_to(np.arange(1, knots + 1.0), (clients, knots))
    left = np.maximum(energy.sum(axis=1, keepdims=True) - np.cumsum(energy, axis=1), 0.0) / clients
    return Problem(start, snr, bits, left, HZ_PER_CLIENT * clients, efficiency)


def allocator_round(clients: int, units: int) -> Callable[[], object]:
    """One call of tsfa.allocate under a queue of one budget."""
    link = Link(HZ_PER_CLIENT * clients, LINK.noise_w_per_hz, LINK.snr_gap, LINK.max_spectral_efficiency, 1e6)
    context = AllocationContext(link, 0.4, 0.05, 1.0)
    allocator = registry.build("allocator", Plugin(name="tsfa", latency_budget_s=0.6), context)
    start, snr = arrays(clients)
    reports = tuple(ClientReport(k, 10, 8, 1.0, 8e7, 0, 0, curve(k, units)) for k in range(clients))
    gain = snr * LINK.snr_gap * LINK.noise_w_per_hz / 0.1
    who = Participants(
        clients_K=np.arange(clients),
        weights_K=np.full(clients, 1.0 / clients),
        compute_s_K=start,
        compute_j_K=np.zeros(clients),
        downlink_s=0.0,
        power_w_K=np.full(clients, 0.1),
        channel=ChannelState(gain, gain),
    )
    state = {"queue_s": np.array(0.6)}
    return lambda: allocator.allocate(reports, who, state, 1, Rng(0))


def shown(seconds: float) -> str:
    """Milliseconds with three digits."""
    return f"{1e3 * seconds:.3g} ms"


def row(clients: int, efficiency: float, large: bool) -> list[str]:
    """Cells of one line of the table; "-" for what is too large."""
    start, snr = arrays(clients)
    bits, band = np.full(clients, 8.0 * UNITS_BITS), HZ_PER_CLIENT * clients
    cells = [shown(best_of(lambda: solve_minmax(start, bits, snr, band, efficiency))), "-", "-", "-", "-"]
    if clients <= 1_000:
        p = problem(clients, 64, efficiency)
        tau = solve_online(p, 1.0, 2.0).tau_s
        cells[1] = shown(best_of(lambda: solve_inner(p, tau)))
        cells[2] = shown(best_of(lambda: solve_online(p, 1.0, 2.0)))
        if efficiency == LINK.max_spectral_efficiency:
            cells[4] = shown(best_of(allocator_round(clients, 64)))
    if clients <= 1_000 or (large and clients <= 100_000):
        q = problem(clients, 16, efficiency)
        cells[3] = shown(best_of(lambda: solve_online(q, 1.0, 2.0)))
    return cells


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--large", action="store_true", help="also 1e5 clients online")
    large = parser.parse_args().large
    line = "{:>8} {:>5}  {:>10} {:>10} {:>11} {:>11} {:>10}"
    print(line.format("clients", "eta", "min-max", "inner x64", "online x64", "online x16", "round x64"))
    for clients in (10, 20, 1_000, 100_000, 1_000_000):
        for efficiency in (LINK.max_spectral_efficiency, math.inf):
            print(line.format(clients, f"{efficiency:g}", *row(clients, efficiency, large)), flush=True)


if __name__ == "__main__":
    main()
