"""Random rounds and menus for the tests of allocation: unequal components, unequal starts, good and bad channels."""

import math

import numpy as np

from raysoft.allocation.solvers.inner import Problem
from raysoft.types import Curve


def random_problem(
    seed: int, clients: int, knots: int, efficiency: float = math.inf, spread_s: float = 0.2, band: float | None = None
) -> Problem:
    """Tail energies of components with unequal sizes, sorted by error per bit: convex, segments unequal."""
    rng = np.random.default_rng(seed)
    start = rng.uniform(0.01, 0.01 + spread_s, clients)
    size = rng.uniform(500, 4000, (clients, knots))
    energy = rng.exponential(1, (clients, knots)) * size
    order = np.argsort(-energy / size, axis=1)
    size, energy = (np.take_along_axis(x, order, axis=1) for x in (size, energy))
    bits = 200 + np.cumsum(size, axis=1)
    left = np.maximum(energy.sum(axis=1, keepdims=True) - np.cumsum(energy, axis=1), 0.0)
    weight = rng.uniform(0.5, 1.5, clients)
    weight /= weight.sum()
    penalty = weight[:, None] * left / (weight @ energy.sum(axis=1))
    snr = 10 ** rng.uniform(5.5, 8.5, clients)
    return Problem(start, snr, bits, penalty, band or 2e4 * clients, efficiency)


def linear_problem(seed: int, clients: int, spread_s: float, least: float = 0.05) -> Problem:
    """One segment each: the penalties for which the round time is hardest to choose."""
    rng = np.random.default_rng(seed)
    start = rng.uniform(0.05, 0.05 + spread_s, clients)
    bits = rng.uniform(0.5, 3.0, clients) * 1e6
    weight = rng.uniform(0.5, 2.0, clients)
    return Problem(
        start,
        10 ** rng.uniform(6.3, 8.0, clients),
        np.stack([least * bits, bits], axis=1),
        np.stack([weight * (1 - least), 0 * weight], axis=1),
        1e5 * clients,
    )


def counterexample() -> Problem:
    """Two clients for which V P(tau) + z tau has two local minima (z = 0.8022), though every penalty is linear."""
    bits, weight = np.array([1e6, 2.00547e6]), np.array([1.0, 1.5675])
    return Problem(
        np.array([0.1, 1.6717]),
        np.array([2.36932e6, 4.13125e7]),
        np.stack([0.02 * bits, bits], axis=1),
        np.stack([0.98 * weight, 0 * weight], axis=1),
        160_821.0,
    )


def masked_curve(seed: int, units: int, values: int = 40, fixed: int = 0) -> Curve:
    """Rank components of unequal size plus the exact price of a mask: not quite convex, as real menus are."""
    rng = np.random.default_rng(seed)
    size = rng.integers(values, 3 * values, units) * 32
    energy = rng.exponential(1.0, units) * size
    order = np.argsort(-energy / size)
    mask = [math.ceil(math.log2(math.comb(units, n))) for n in range(units + 1)]
    bits = np.concatenate([[0], np.cumsum(size[order])]) + np.array(mask)
    error = energy.sum() - np.concatenate([[0.0], np.cumsum(energy[order])])
    error[-1] = 0.0
    return Curve(fixed_bits=fixed, bits_J=bits, error_J=error)
