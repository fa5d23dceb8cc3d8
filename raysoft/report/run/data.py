"""From records to what a figure shows: pure numpy reductions of a run, so that they can be tested without drawing.

Shapes: T records, N client-rounds (every member of every cohort), C clients that were ever invited.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from raysoft.rundir.reading import Run
from raysoft.types import Array

COLUMNS = (
    "kept_fraction",
    "bandwidth_hz",
    "latency_s",
    "gain_db",
    "energy_j",
    "compute_s",
    "control_bits",
    "downlink_s",
)
DELIVERED = "ok"
OUTAGE = "outage"


@dataclass(frozen=True)
class ClientRounds:
    """Every client of every cohort, in order of round, then as recorded. NaN where nothing was measured."""

    round_N: Array
    id_N: Array
    status_N: Array  # str: "ok", "outage", or why the update was lost
    kept_fraction_N: Array
    bandwidth_hz_N: Array
    latency_s_N: Array
    gain_db_N: Array
    energy_j_N: Array
    compute_s_N: Array
    control_bits_N: Array
    downlink_s_N: Array  # NaN where the downlink takes no time

    def __len__(self) -> int:
        return len(self.id_N)

    @property
    def served_N(self) -> Array:
        """True where the client was allowed to send, whether or not it arrived."""
        return self.status_N != OUTAGE


@dataclass(frozen=True)
class ClientTable:
    """Per client, from the weakest mean gain (dB) to the strongest."""

    id_C: Array
    gain_db_C: Array
    invited_C: Array
    delivered_C: Array
    outage_C: Array
    lost_C: Array
    kept_mean_C: Array  # over the rounds in which it was allowed to send; NaN if never
    kept_low_C: Array
    kept_high_C: Array
    bandwidth_mean_hz_C: Array
    bandwidth_low_hz_C: Array
    bandwidth_high_hz_C: Array


def client_rounds(run: Run) -> ClientRounds | None:
    """All usable `metrics.clients` of a run; None where no round has any."""
    parts: list[dict[str, Array]] = []
    for row in run.records:
        part = _cohort(row["round"], row.get("metrics", {}).get("clients"))
        if part is not None:
            parts.append(part)
    if not parts:
        return None
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return ClientRounds(joined["round"], joined["id"], joined["status"], *(joined[name] for name in COLUMNS))


def _cohort(number: int, clients: Any) -> dict[str, Array] | None:
    """One round's cohort as arrays, or None where it cannot be read; a missing column becomes NaN."""
    ids = clients.get("id") if isinstance(clients, Mapping) else None
    if not isinstance(ids, list) or not ids or not all(isinstance(item, int) for item in ids):
        return None
    size = len(ids)
    status = clients.get("status")
    known = isinstance(status, list) and len(status) == size
    out = {
        "round": np.full(size, number, dtype=np.int64),
        "id": np.array(ids, dtype=np.int64),
        "status": np.array([str(item) or DELIVERED for item in status] if known else [DELIVERED] * size, dtype=object),
    }
    for name in COLUMNS:
        values = clients.get(name)
        usable = isinstance(values, list) and len(values) == size
        out[name] = np.array([_number(v) for v in values] if usable else [np.nan] * size, dtype=np.float64)
    return out


def _number(value: Any) -> float:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else np.nan


def client_table(rounds: ClientRounds) -> ClientTable:
    """Per-client counts, means and ranges; clients without a measured gain come first, ordered by id."""
    ids, position_N = np.unique(rounds.id_N, return_inverse=True)
    count = len(ids)

    def total(weight_N: Array) -> Array:
        return np.bincount(position_N, weights=weight_N.astype(np.float64), minlength=count)

    delivered, outage = rounds.status_N == DELIVERED, rounds.status_N == OUTAGE
    gain, _, _ = _grouped(rounds.gain_db_N, position_N, count)
    kept = _grouped(np.where(rounds.served_N, rounds.kept_fraction_N, np.nan), position_N, count)
    band = _grouped(np.where(rounds.served_N, rounds.bandwidth_hz_N, np.nan), position_N, count)
    order = np.lexsort((ids, np.where(np.isnan(gain), -np.inf, gain)))
    columns = (
        ids,
        gain,
        total(np.ones(len(rounds))),
        total(delivered),
        total(outage),
        total(~delivered & ~outage),
        *kept,
        *band,
    )
    return ClientTable(*(column[order] for column in columns))


def _grouped(value_N: Array, position_N: Array, count: int) -> tuple[Array, Array, Array]:
    """Mean, minimum and maximum of the finite values of each group; NaN where a group has none."""
    ok = np.isfinite(value_N)
    number = np.bincount(position_N[ok], minlength=count)
    total = np.bincount(position_N[ok], weights=value_N[ok], minlength=count)
    low, high = np.full(count, np.inf), np.full(count, -np.inf)
    np.minimum.at(low, position_N[ok], value_N[ok])
    np.maximum.at(high, position_N[ok], value_N[ok])
    empty = number == 0
    mean = np.where(empty, np.nan, total / np.maximum(number, 1))
    return mean, np.where(empty, np.nan, low), np.where(empty, np.nan, high)


def binned(value_C: Array, bins: int) -> Array:
    """Means of `bins` nearly equal runs of consecutive values, NaN ignored; fewer values are returned as they are."""
    if len(value_C) <= bins:
        return value_C.astype(np.float64)
    edges = np.linspace(0, len(value_C), bins + 1).round().astype(int)
    return np.array([_nanmean(value_C[a:b]) for a, b in pairwise(edges)])


def _nanmean(values: Array) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else np.nan


@dataclass(frozen=True)
class Band:
    """A value over G groups of clients: their place in percent, the mean, and the 10th and 90th percentile."""

    place_G: Array
    mean_G: Array
    low_G: Array
    high_G: Array

    def scaled(self, factor: float) -> Band:
        """The same in another unit."""
        return Band(self.place_G, factor * self.mean_G, factor * self.low_G, factor * self.high_G)


def by_rank(rounds: ClientRounds, table: ClientTable, value_N: Array, groups: int) -> Band:
    """A value in the rounds in which clients were allowed to send, by groups of neighbours in the order of `table`.

    Of fewer clients than `groups` each is a group; a group without a value is NaN.
    """
    rank = {int(client): place for place, client in enumerate(table.id_C)}
    rank_N = np.array([rank[int(client)] for client in rounds.id_N])
    count = min(groups, len(table.id_C))
    group_N = rank_N * count // len(table.id_C)
    ok = rounds.served_N & np.isfinite(value_N)
    parts = [value_N[ok & (group_N == group)] for group in range(count)]
    columns = np.array([[p.mean(), *np.quantile(p, (0.1, 0.9))] if len(p) else [np.nan] * 3 for p in parts])
    return Band((np.arange(count) + 0.5) / count * 100, columns[:, 0], columns[:, 1], columns[:, 2])


def running_mean(value_T: Array) -> Array:
    """Mean of all values up to each position."""
    return np.cumsum(value_T) / np.arange(1, len(value_T) + 1)


def megabytes(run: Run) -> Array:
    """[T] uplink megabytes (10^6 bytes) sent up to and including each record."""
    return np.cumsum(np.nan_to_num(run.column("uplink_bits"))) / 8e6


def after_base(run: Run) -> Array:
    """[T] True for records of real rounds, False for line 0."""
    return run.column("round") >= 1


def latency_budget_s(run: Run) -> float | None:
    """The latency budget of the run's allocator, if it has one."""
    section = run.config.get("allocator")
    value = section.get("latency_budget_s") if isinstance(section, dict) else None
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
