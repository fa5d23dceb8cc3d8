"""The numbers a sweep may look at: what a run has shown up to a round, by the names of summary and records."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from raysoft.config import RunConfig
from raysoft.errors import ConfigError
from raysoft.quantities import keys_in, quantity
from raysoft.rundir.checks import is_number
from raysoft.rundir.summary import SUMMARY_KEYS, summarise
from raysoft.types import RoundRecord

_TEXTS = {"adapter_sha256", "config_hash", "identity", "status", "metrics", "drop_reasons", "model"}
_RECORD = [item.name for item in fields(RoundRecord) if item.name not in _TEXTS]
_SUMMARY = [name for name in SUMMARY_KEYS if name not in _TEXTS]
_TEXT_TASKS = keys_in("metrics", text_task=True)
KNOWN = tuple(dict.fromkeys([*_SUMMARY, *_RECORD, *keys_in("metrics", text_task=False), *_TEXT_TASKS]))
PREFIX = "metrics."  # a number that a plug-in adds to its records


def check_metric(name: str) -> str:
    """The name itself, if it can be a metric. Raises ConfigError("metric")."""
    if name in KNOWN or (name.startswith(PREFIX) and len(name) > len(PREFIX)):
        return name
    close = difflib.get_close_matches(name, KNOWN, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else f", e.g. {', '.join(KNOWN[:3])}"
    raise ConfigError(
        "metric", f"unknown metric {name!r:.60}{hint} (a number that a plug-in measures is written {PREFIX}NAME)"
    )


def check_task(name: str, config: RunConfig) -> None:
    """Refuse a metric of text where no text is learned. Raises ConfigError("metric")."""
    if name in _TEXT_TASKS and config.data.task not in ("python-source", "causal-lm"):
        raise ConfigError("metric", f"{name} is measured on text, but data.task is {config.data.task}")


def lower_is_better(name: str) -> bool:
    """What `mode` is where it is not given."""
    return quantity(name).lower_is_better


def reading(name: str, values: Mapping[str, float]) -> float | None:
    """The metric among `values_so_far`; None where it was not measured."""
    return values.get(name.removeprefix(PREFIX))


def values_so_far(rows: Sequence[Mapping[str, Any]], config: RunConfig) -> dict[str, float]:
    """Every number after the last of these records: of the summary as if the run ended here, and of the records.

    A record's key has its last value that is a number, for what is measured in some rounds only.
    """
    summary = summarise(rows, config, {})
    return {**_last(rows), **numbers(summary)}


def numbers(summary: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a summary, those of its `metrics` by their own names."""
    flat = {**summary.get("metrics", {}), **{key: value for key, value in summary.items() if key != "metrics"}}
    return {key: float(value) for key, value in flat.items() if is_number(value)}


def _last(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    out: dict[str, float] = {}
    for row in rows:
        flat = {**row.get("metrics", {}), **{key: row.get(key) for key in _RECORD}}
        out.update({key: float(value) for key, value in flat.items() if is_number(value)})
    return out
