"""The closing figures of a run: summary.json from its records."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from raysoft.config import RunConfig
from raysoft.rundir.checks import is_lost, is_number
from raysoft.rundir.folder import record_row, strict
from raysoft.types import RoundRecord

FINAL_EVALUATIONS = 5
SHORT_WINDOWS = 4  # runs of fewer evaluations than so many times FINAL_EVALUATIONS say little about when
DONE, STOPPED, INTERRUPTED, FAILED = "done", "stopped", "interrupted", "failed"
"""How a run has ended: all rounds; by a callback, properly; by a signal; by a fault. All but DONE can be resumed."""
SUMMARY_KEYS = (
    "final_accuracy",
    "best_accuracy",
    "base_accuracy",
    "rounds",
    "uplink_bits_total",
    "mean_round_latency_s",
    "latency_budget_s",
    "simulated_time_s",
    "energy_j_total",
    "wall_time_s",
    "client_updates_per_s",
    "adapter_sha256",
    "config_hash",
    "identity",
    "status",
    "metrics",
)


def summarise(
    records: Sequence[RoundRecord | Mapping[str, Any]], config: RunConfig, extra: Mapping[str, Any]
) -> dict[str, Any]:
    """The contract keys of summary.json; what a lost round (see runs/resuming.py) belongs to is not known, and null.

    `final_accuracy` is the mean of the last 5 evaluations after the base (of the base itself, if there is no other);
    `metrics.evaluations_in_mean` says over how many it was taken (0: only the base was evaluated). Means over rounds
    leave out line 0. `extra` sets what records cannot know (status, adapter_sha256, wall_time_s, identity, metrics) and
    may replace any other key. For each scalar metric, `metrics` gets `final_NAME`, by the same rule, and `base_NAME`
    where the base has one (running totals, `*_total`, have none).
    Raises ValueError for a key outside the contract.
    """
    unknown = sorted(set(extra) - set(SUMMARY_KEYS))
    if unknown:
        raise ValueError(f"not a key of summary.json: {unknown[0]}")
    rows = [record_row(record) for record in records]
    rounds = [row for row in rows if row["round"] >= 1]
    wall = extra.get("wall_time_s", _total(rows, "wall_time_s"))
    busy = _total(rounds, "wall_time_s")
    trained = _total(rounds, "participants") + _total(rounds, "dropped")  # those that dropped out trained too
    summary: dict[str, Any] = {
        "final_accuracy": _final(rows, "accuracy"),
        "best_accuracy": max((row["accuracy"] for row in rows if row["accuracy"] is not None), default=None),
        "base_accuracy": next((row["accuracy"] for row in rows if row["round"] == 0), None),
        "rounds": len(rounds),
        "uplink_bits_total": int(_total(rounds, "uplink_bits")),
        "mean_round_latency_s": _total(rounds, "round_latency_s") / len(rounds) if rounds else None,
        "latency_budget_s": config.allocator.options().get("latency_budget_s"),
        "simulated_time_s": rows[-1]["simulated_time_s"] if rows else 0.0,
        "energy_j_total": _total(rounds, "energy_j"),
        "wall_time_s": wall,
        "client_updates_per_s": trained / busy if busy > 0 else None,
        "adapter_sha256": None,
        "config_hash": config.config_hash(),
        "identity": None,
        "status": DONE,
    }
    lost = sum(map(is_lost, rows))
    if lost:
        summary |= dict.fromkeys(
            ("best_accuracy", "uplink_bits_total", "mean_round_latency_s", "energy_j_total", "client_updates_per_s")
        )
    summary |= {key: value for key, value in extra.items() if key != "metrics"}
    metrics = _metric_summary(rows) | ({"rounds_lost": lost} if lost else {})
    return strict({**summary, "metrics": {**metrics, **extra.get("metrics", {})}})


def without_columns(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The metrics of a record that a summary reads: columns over clients stay on disk, or they would fill memory."""
    return {name: value for name, value in metrics.items() if isinstance(value, (int, float))}


def accuracy_name(task: str, split: str = "test") -> str:
    """What the accuracy of a task (data.task) is a share of, and on which split (eval.split) where that is not test.

    >>> accuracy_name("digits"), accuracy_name("causal-lm", "validation")
    ('accuracy', 'validation next-token accuracy')
    """
    name = {"causal-lm": "next-token accuracy", "python-source": "next-byte accuracy"}.get(task, "accuracy")
    return name if split == "test" else f"{split} {name}"


def accuracy_name_in(config: Mapping[str, Any]) -> str:
    """The same for the configuration of a run folder, as far as it says."""
    return accuracy_name(_word(config, "data", "task", ""), _word(config, "eval", "split", "test"))


def _word(config: Mapping[str, Any], section: str, key: str, otherwise: str) -> str:
    part = config.get(section)
    return str(part.get(key, otherwise)) if isinstance(part, Mapping) else otherwise


def window_words(evaluations: int | None) -> str:
    """How the cost of reaching an accuracy is read, and how coarse that is where runs have so few evaluations.

    >>> window_words(60).split(": ")[-1]
    'at the 5th evaluation at the earliest.'
    >>> window_words(6).split(": ")[-1]
    'of 6 evaluations there are 2 such means, and a target that was met early counts from the 5th on.'
    """
    text = (
        f"A target is reached where the mean of {FINAL_EVALUATIONS} evaluations in a row first reaches it: at the "
        f"{FINAL_EVALUATIONS}th evaluation at the earliest."
    )
    if evaluations is None or not FINAL_EVALUATIONS <= evaluations < SHORT_WINDOWS * FINAL_EVALUATIONS:
        return text
    count = evaluations - FINAL_EVALUATIONS + 1
    means = "is one such mean" if count == 1 else f"are {count} such means"
    return (
        f"{text} That is coarse for runs as short as these: of {evaluations} evaluations there {means}, and a target "
        f"that was met early counts from the {FINAL_EVALUATIONS}th on."
    )


def final_words(metrics: Mapping[str, Any], last: str) -> str:
    """What the final value of a summary is, given its metrics; `last`: the value of the saved adapter, as a text.

    >>> final_words({"evaluations_in_mean": 5, "last_accuracy": 0.86}, "86.0 %")
    'mean of the last 5 evaluations; the saved adapter: 86.0 %'
    >>> final_words({"evaluations_in_mean": 1, "last_accuracy": None}, "-")
    'the only evaluation; the saved adapter was not evaluated'
    """
    count = metrics.get("evaluations_in_mean", FINAL_EVALUATIONS)
    few = {0: "the base; no round was evaluated", 1: "the only evaluation"}
    words = few.get(count, f"mean of the last {count} evaluations")
    if count and "last_accuracy" in metrics and metrics["last_accuracy"] is None:
        return f"{words}; the saved adapter was not evaluated"
    return words if count in few else f"{words}; the saved adapter: {last}"


def _total(rows: Iterable[Mapping[str, Any]], key: str) -> float:
    return math.fsum(row[key] for row in rows if row[key] is not None)


def _final(rows: Sequence[Mapping[str, Any]], key: str) -> float | None:
    """Mean of the last evaluations after the base, or the base's value where there is none."""
    seen = [row[key] for row in rows if row.get(key) is not None and row["round"] >= 1]
    seen = seen or [row[key] for row in rows if row.get(key) is not None]
    last = seen[-FINAL_EVALUATIONS:]
    return math.fsum(last) / len(last) if last else None


def _metric_summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    flat = [
        {"round": row["round"], "loss": row["loss"], **{k: v for k, v in row["metrics"].items() if is_number(v)}}
        for row in rows
    ]
    names = dict.fromkeys(key for row in flat for key in row if key != "round" and not key.endswith("_total"))
    seen = sum(row["accuracy"] is not None and row["round"] >= 1 for row in rows)
    out: dict[str, float | None] = {"evaluations_in_mean": min(seen, FINAL_EVALUATIONS)}
    for name in names:
        base = next((row.get(name) for row in flat if row["round"] == 0), None)
        if base is not None:
            out[f"base_{name}"] = base
        out[f"final_{name}"] = _final(flat, name)
    return out
