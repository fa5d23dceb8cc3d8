"""What rounds.jsonl and summary.json may hold, for whoever reads a folder that a person or a crash has touched."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from raysoft.quantities import keys_in

MOST = 1e200  # no run writes a larger number (five bounded settings multiply to 1e166), and sums of them stay finite
_TEXTS = frozenset({"adapter_sha256", "config_hash", "status"})


def is_number(value: Any) -> bool:
    """A JSON number that can be drawn."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= MOST


def row_problem(row: Any) -> str | None:
    """Why a line of rounds.jsonl is no round record, or None. A key may be missing or null."""
    if not isinstance(row, dict) or not _is_whole(row.get("round")) or not isinstance(row.get("metrics", {}), dict):
        return "is not a round record"
    for key in ("participants", "dropped"):
        if row.get(key) is not None and not _is_whole(row[key]):
            return f"{key} must be a count, got {row[key]!r:.40}"
    metrics = row.get("metrics", {})
    for key in _ROW_NUMBERS:
        value = metrics.get(key.removeprefix(_IN_METRICS)) if key.startswith(_IN_METRICS) else row.get(key)
        if value is not None and not is_number(value):
            return f"{key} must be a number, got {value!r:.40}"
    reasons = row.get("drop_reasons")
    if reasons is not None and not (isinstance(reasons, dict) and all(_is_whole(count) for count in reasons.values())):
        return f"drop_reasons must map names to counts, got {reasons!r:.40}"
    clients = metrics.get("clients")
    ids = clients.get("id") if isinstance(clients, Mapping) else None
    if isinstance(ids, list) and not all(_is_whole(item) for item in ids):
        return "metrics.clients.id must hold client numbers"
    return None


def is_lost(row: Mapping[str, Any]) -> bool:
    """Whether a record says no more than that it is lost."""
    return row.get("metrics", {}).get("lost") is True


def summary_problem(summary: Mapping[str, Any]) -> str | None:
    """Why a summary cannot be read, or None. A key may be missing or null."""
    metrics = summary.get("metrics")
    if "metrics" in summary and not isinstance(metrics, dict):
        return f"metrics must be an object, got {metrics!r:.40}"
    for key, value in [*summary.items(), *((f"metrics.{name}", value) for name, value in (metrics or {}).items())]:
        if key == "metrics" or value is None:
            continue
        if key in _TEXTS or key == "metrics.error":
            if not isinstance(value, str):
                return f"{key} must be text, got {value!r:.40}"
        elif key in _NUMBERS and not is_number(value):
            return f"{key} must be a number, got {value!r:.40}"
    return None


_IN_METRICS = "metrics."
_METRICS = tuple(f"{_IN_METRICS}{key}" for key in keys_in("metrics"))
_NUMBERS = frozenset({*keys_in("summary"), *_METRICS})
_ROW_NUMBERS = (*keys_in("record"), *_METRICS)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53
