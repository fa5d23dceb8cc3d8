"""Gauges through Ray's own metrics: each Ray node serves them at its metrics port, as ray_raysoft_*, to Prometheus."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from raysoft.errors import RaysoftError
from raysoft.quantities import TABLE
from raysoft.rundir.checks import is_number
from raysoft.runs.trackers.base import Beginning, Row

GAUGES = {one.key: one.gauge for one in TABLE if one.gauge is not None}


class Prometheus:
    """One gauge a quantity, with the run's name as its tag. Needs a process that has joined a Ray cluster."""

    name = "Prometheus"

    def __init__(self) -> None:
        self._gauges: dict[str, Any] = {}
        self._tags: dict[str, str] = {}
        self._totals = {"uplink_bits": 0.0, "energy_j": 0.0}
        self._last_round = 0  # the base counts for nothing

    def start(self, begin: Beginning) -> None:
        """Register the gauges."""
        import ray
        from ray.util.metrics import Gauge

        if not ray.is_initialized():
            raise RaysoftError("tracking.prometheus needs Ray; set executor=ray, or tracking.prometheus=false")
        self._tags = {"run": begin.name}
        self._gauges = {key: Gauge(f"raysoft_{key}", text, tag_keys=("run",)) for key, text in GAUGES.items()}
        for row in begin.earlier:
            self._add(row)

    def round(self, row: Row) -> None:
        """Set every gauge that the round has a number for; the others keep their last one."""
        self._add(row)
        for key, value in self._values(row).items():
            if is_number(value):
                self._gauges[key].set(float(value), tags=self._tags)

    def finish(self, summary: Mapping[str, Any], within_s: float) -> None:
        """Nothing: the gauges end with this process."""

    def drop(self) -> None:
        """Nothing."""

    def _add(self, row: Row) -> None:
        if row["round"] > self._last_round:
            self._last_round = row["round"]
            for key in self._totals:
                self._totals[key] += row[key] or 0

    def _values(self, row: Row) -> dict[str, Any]:
        trained = (row["participants"] or 0) + (
            row["dropped"] or 0
        )  # as in the summary: those that dropped out trained too
        busy_s = row["wall_time_s"]
        totals = {f"{key}_total": value for key, value in self._totals.items()}
        rate = trained / busy_s if row["round"] >= 1 and busy_s else None
        return {**{key: row.get(key) for key in GAUGES}, **totals, "client_updates_per_s": rate}
