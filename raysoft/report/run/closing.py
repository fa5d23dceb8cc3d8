"""The tables of a report: closing figures, radio, settings, and the limits a reader has to know. Plain text only.

The command line prints the same closing rows at the end of a run.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from raysoft.config import registry
from raysoft.quantities import LEARNED, NOT_MEASURED, Quantity, amount, percent, quantity
from raysoft.report.run.data import after_base, latency_budget_s
from raysoft.rundir.folder import PLAN
from raysoft.rundir.reading import Run, planned_rank
from raysoft.rundir.summary import DONE, accuracy_name_in, final_words

Rows = list[tuple[str, str]]


def closing_rows(run: Run) -> Rows:
    """Names and values (with units) of what a run achieved and what it cost; "not measured" where it does not say."""
    summary = run.summary or {}
    name = accuracy_name_in(run.config).capitalize()
    rows: Rows = [(f"{name}, before and after", _change(run, "accuracy"))]
    rows += [
        (f"{quantity(metric).label}, before and after", _change(run, metric))
        for metric in LEARNED[1:]
        if _finite(run.column(quantity(metric).record_key))
    ]
    metrics = summary.get("metrics", {})
    worst, mean = (metrics.get(key) for key in ("worst10_client_accuracy", "client_accuracy_mean"))
    if worst is not None and mean is not None:
        rows.append(("Worst tenth of the clients", f"{percent(worst)} (mean {percent(mean)}; own training samples)"))
    keep = after_base(run)
    seconds = run.column("round_latency_s")[keep]
    if (rank := planned_rank(run.path)) is not None:
        rows.append(("LoRA rank", f"{rank}; {PLAN} says why"))
    return [
        *rows,
        ("Rounds", f"{int(keep.sum())}" + ("" if run.summary else " (not finished)")),
        ("Uplink", _uplink(run)),
        ("Mean round latency", _against_budget(seconds, latency_budget_s(run))),
        ("Simulated time", amount(run.column("simulated_time_s")[-1], "s")),
        ("Energy of all devices", amount(float(np.nansum(run.column("energy_j")[keep])), "J")),
        ("Updates that arrived", _arrived(run)),
        (quantity("wall_time_s").label, _wall_time(run)),
        ("Adapter (SHA-256)", str(summary.get("adapter_sha256") or NOT_MEASURED)),
    ]


def _finite(values: np.ndarray) -> bool:
    return bool(np.isfinite(values).any())


def _change(run: Run, metric: str) -> str:
    """`before → after`, and what the latter is: the summary's mean of the last evaluations, else the last one."""
    of = quantity(metric)
    values = run.column(of.record_key)
    seen = values[np.isfinite(values)]
    if not len(seen):
        return NOT_MEASURED
    name = f"final_{metric}"
    summary = run.summary or {}
    final = summary.get(name, summary.get("metrics", {}).get(name))
    before, last = (_shown_as(of, value) for value in (values[0], seen[-1]))
    if final is None:
        return f"{before} → {last} (the last evaluation)"
    return f"{before} → {_shown_as(of, final)} ({final_words(summary.get('metrics', {}), last)})"


def _shown_as(of: Quantity, value: float) -> str:
    return of.text(float(value)) + of.suffix if math.isfinite(value) else NOT_MEASURED


def _wall_time(run: Run) -> str:
    """Of the whole run where it has ended, else of its rounds."""
    whole = (run.summary or {}).get("wall_time_s")
    if whole is None:
        return f"{amount(float(np.nansum(run.column('wall_time_s'))), 's')} in the rounds"
    return f"{amount(whole, 's')}, with start and loading"


def _uplink(run: Run) -> str:
    """Megabytes on the air, and their share of what dense uploads would have cost, as the summary has it."""
    metrics = (run.summary or {}).get("metrics", {})
    bits = quantity("uplink_bits")
    text = amount(bits.factor * float(np.nansum(run.column("uplink_bits"))), bits.unit)
    shares = {key: metrics.get(f"uplink_share_of_{key}") for key in ("dense32", "dense_same_bits")}
    if shares["dense32"] is not None:
        text += f" = {percent(shares['dense32'])} of the dense 32-bit uplink"
    if shares["dense_same_bits"] not in (None, shares["dense32"]):
        text += f", {percent(shares['dense_same_bits'])} of the dense uplink at the same value bits"
    return text


def _against_budget(seconds: np.ndarray, budget: float | None) -> str:
    if not len(seconds):
        return NOT_MEASURED
    text = amount(float(seconds.mean()), "s")
    if not budget:
        return text
    over = quantity("latency_over_budget").text(float(seconds.mean()) / budget)
    return f"{text} = {over} x the budget of {budget:g} s"


def _arrived(run: Run) -> str:
    keep = after_base(run)
    arrived, dropped = (float(np.nansum(run.column(key)[keep])) for key in ("participants", "dropped"))
    if arrived + dropped == 0:
        return NOT_MEASURED
    reasons: dict[str, float] = {}
    for row in run.records:
        for reason, count in (row.get("drop_reasons") or {}).items():
            reasons[reason] = reasons.get(reason, 0) + count
    why = "; ".join(f"{reason} {count:g}" for reason, count in sorted(reasons.items()))
    return f"{arrived:g} of {arrived + dropped:g}" + (f" ({why})" if why else "")


def radio_rows(run: Run) -> Rows:
    """How the channel and the devices described themselves when the run began; the bare settings of an older run."""
    match run.environment.get("radio"):
        case [*rows] if rows and all(isinstance(row, list) and list(map(type, row)) == [str, str] for row in rows):
            return [(name, value) for name, value in rows]
        case _:
            return [row for row in settings_rows(run) if row[0].partition(".")[0] in ("channel", "device")]


def settings_rows(run: Run) -> Rows:
    """Every setting of the run by its dotted name."""
    return [(name, _shown(value)) for name, value in _flat(run.config)]


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _shown(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return ", ".join(_shown(item) for item in value) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def limits(run: Run) -> list[str]:
    """What the numbers of this run do not say, in sentences."""
    device, channel = (_section(run, name) for name in ("device", "channel"))
    out = list(run.notes)
    summary = run.summary or {}
    if (status := summary.get("status", DONE)) != DONE:
        why = summary.get("metrics", {}).get("error")
        out.append(f"The run ended early ({status})" + (f": {why}" if why else "."))
    out.append("Times, energies and bits on the air are simulated; only the wall time was measured on a clock.")
    for key, what in (("payload_scale", "Every upload counts as"), ("compute_scale", "Every computation counts as")):
        if device.get(key, 1) != 1:
            out.append(f"{what} {device[key]:g} times its size ({key}), so that a small model stands for a large one.")
    if channel.get("csi_error", 0) == 0 and channel.get("name") in registry.CHANNELS:  # another may report anything
        out.append("The server knows the channel gains exactly (csi_error 0).")
    shown = max((_cohort_size(row) for row in run.records), default=0)
    whole = max(((row.get("participants") or 0) + (row.get("dropped") or 0) for row in run.records), default=0)
    if 0 < shown < whole:
        out.append(f"Figures of single clients show {shown} of up to {whole} clients a round, the first by number.")
    return out


def _section(run: Run, name: str) -> dict[str, Any]:
    section = run.config.get(name)
    return section if isinstance(section, dict) else {}


def _cohort_size(row: Mapping[str, Any]) -> int:
    clients = row.get("metrics", {}).get("clients")
    ids = clients.get("id") if isinstance(clients, Mapping) else None
    return len(ids) if isinstance(ids, list) else 0
