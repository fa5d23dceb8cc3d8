"""What the offline stage found, and how it is shown: the table of candidate ranks as text, CSV and JSON.

plan.json   everything      table.csv   a row a rank      plan.png   the figure (report/plan_figure.py)
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from raysoft.allocation.solvers.budget import rounded_up
from raysoft.atomic import PREFIX
from raysoft.errors import ConfigError
from raysoft.quantities import number, with_error
from raysoft.rundir.folder import PLAN, strict, write_atomic
from raysoft.rundir.places import check_made, made, names_in

CHOSEN, FEASIBLE, REJECTED = "chosen", "feasible", "rejected"
TABLE, FIGURE, VALIDATION = "table.csv", "plan.png", "validation.json"


@dataclass(frozen=True)
class Candidate:
    """One row of the table. None: not measured, because the rank was rejected first. Seconds, bits, shares."""

    rank: int
    scale: float  # s in W0 + s B A
    alpha: float
    phi: float
    units: int | None = None  # o*, on the codec's menu
    menu_units: int | None = None
    kept_fraction: float | None = None  # o*, of the component bits
    latency_mean_s: float | None = None  # trimmed mean at o*, or at the least where that does not fit
    latency_error_s: float | None = None  # Monte-Carlo standard error of the mean
    latency_median_s: float | None = None
    latency_p95_s: float | None = None
    senders: float | None = None  # share of participants that the outage rule lets send
    payload_bits: float | None = None  # on the air per client at o*
    bit_floor: float | None = None  # (always sent + control) over the dense 32-bit update
    smallest_budget_s: float | None = None
    sparsification: float | None = None  # eps
    sparsification_error: float | None = None  # standard error over the repetitions
    covariance: float | None = None  # kappa
    covariance_error: float | None = None
    score: float | None = None
    score_error: float | None = None
    verdict: str = REJECTED
    reason: str = ""


@dataclass(frozen=True)
class RankPlan:
    """The outcome of the offline stage; `facts` says how it was measured (JSON data)."""

    candidates: tuple[Candidate, ...]
    chosen_rank: int | None
    budget_s: float
    weights: Mapping[str, float]
    facts: Mapping[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """plan.json: strict JSON data once passed through tracking.strict."""
        return {
            "chosen_rank": self.chosen_rank,
            "latency_budget_s": self.budget_s,
            "smallest_feasible_budget_s": self.smallest_budget()[0],
            "weights": dict(self.weights),
            **self.facts,
            "candidates": [asdict(one) for one in self.candidates],
        }

    def smallest_budget(self) -> tuple[float | None, int | None]:
        """The smallest feasible budget of any candidate rank [s], and that rank; None where no rank has one."""
        found = [(one.smallest_budget_s, one.rank) for one in self.candidates if one.smallest_budget_s is not None]
        finite = [pair for pair in found if math.isfinite(pair[0])]
        return min(finite) if finite else (None, None)

    def rank(self) -> int:
        """The chosen rank. Raises ConfigError where every rank was rejected, by the budget or by the model's shapes."""
        if self.chosen_rank is not None:
            return self.chosen_rank
        first = self.candidates[0]
        if all(one.latency_mean_s is None for one in self.candidates):  # refused before any round was sampled
            raise ConfigError("plan.ranks", f"rank {first.rank}: {first.reason}; give smaller ranks")
        smallest, rank = self.smallest_budget()
        remedy = (
            "no budget can be met with these channels; raise channel.bandwidth_hz or device.tx_power_dbm"
            if smallest is None
            else f"the smallest feasible budget is about {rounded_up(smallest)} s (rank {rank})"
        )
        raise ConfigError(
            "allocator.latency_budget_s",
            f"{self.budget_s:g} s suits no candidate rank ({', '.join(str(one.rank) for one in self.candidates)}); "
            f"rank {first.rank}: {first.reason}; {remedy}",
        )


def plan_json(plan: RankPlan) -> str:
    """plan.json, the same bytes for the same plan."""
    return json.dumps(strict(plan.as_dict()), indent=2, allow_nan=False) + "\n"


def csv_text(plan: RankPlan) -> str:
    """table.csv: every field of every candidate; empty where nothing was measured."""
    out = io.StringIO()
    names = [item.name for item in fields(Candidate)]
    writer = csv.DictWriter(out, names, lineterminator="\n")
    writer.writeheader()
    for one in plan.candidates:
        writer.writerow({name: value for name, value in strict(asdict(one)).items()})
    return out.getvalue()


def text_table(plan: RankPlan) -> str:
    """The table for a terminal, a line a rank."""
    rows = [("rank", "s", "phi", "kept", "latency (s)", "median", "p95", "eps", "kappa", "score", "verdict")]
    for one in plan.candidates:
        rows.append(
            (
                str(one.rank),
                f"{one.scale:.3g}",
                f"{one.phi:.4f}",
                number(one.kept_fraction),
                with_error(one.latency_mean_s, one.latency_error_s),
                number(one.latency_median_s),
                number(one.latency_p95_s),
                with_error(one.sparsification, one.sparsification_error),
                with_error(one.covariance, one.covariance_error, 4),
                with_error(one.score, one.score_error),
                f"{one.verdict}: {one.reason}" if one.reason else one.verdict,
            )
        )
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    return "\n".join(
        "  ".join([*(cell.rjust(width) for cell, width in zip(row[:-1], widths, strict=False)), row[-1]])
        for row in rows
    )


def summary_rows(plan: RankPlan) -> list[tuple[str, str]]:
    """What a reader wants besides the table: names and texts, one a line."""
    rows: list[tuple[str, str]] = []
    chosen = next((one for one in plan.candidates if one.rank == plan.chosen_rank), None)
    if chosen is not None:
        rows.append(
            ("chosen rank", f"{chosen.rank} (alpha {chosen.alpha:g}, s = {chosen.scale:g}){_close(plan, chosen)}")
        )
        rows.append(
            (
                "bit floor",
                f"{number(chosen.bit_floor, 100.0, 2)} % of the dense 32-bit update: what is always sent, and control",
            )
        )
    smallest, rank = plan.smallest_budget()
    shown = "none: no budget can be met with these channels" if smallest is None else f"{rounded_up(smallest)} s"
    own = None if chosen is None else chosen.smallest_budget_s
    of_chosen = "" if own is None else f"; {rounded_up(own)} s at the chosen rank"
    rows.append(
        (
            "budget",
            f"{plan.budget_s:g} s; the smallest feasible one is {shown}"
            + ("" if smallest is None else f" (rank {rank})")
            + of_chosen,
        )
    )
    weights, facts = plan.weights, plan.facts
    rows.append(
        (
            "score",
            f"{weights['rank']:g} phi + {weights['sparsification']:g} eps + {weights['covariance']:g} kappa "
            "(± one standard error)",
        )
    )
    full, pilot = facts["full_pilot"], facts["federated_pilot"]
    rows.append(
        (
            "measured on",
            f"{facts['proxy_samples']} proxy samples: {full['steps']} full-gradient steps (loss "
            f"{full['loss_before']:.3g} -> {full['loss_after']:.3g}), {pilot['repetitions']} x {pilot['rounds']} "
            f"rounds of {pilot['clients']} simulated clients; {facts['sampled_rounds']} sampled rounds for the latency",
        )
    )
    return rows


def _close(plan: RankPlan, chosen: Candidate) -> str:
    """A remark where another rank cannot be told apart from the chosen one."""
    assert chosen.score is not None
    near = [
        one.rank
        for one in plan.candidates
        if one is not chosen
        and one.score is not None
        and one.score - chosen.score <= 2.0 * math.hypot(one.score_error or 0.0, chosen.score_error or 0.0)
    ]
    return f"; within two standard errors of it: rank {', '.join(map(str, near))}" if near else ""


def write_plan(folder: Path, plan: RankPlan, draw: bool = True) -> None:
    """plan.json, table.csv and plan.png in `folder`, which may hold an earlier plan and its validation.

    Raises ConfigError("--out") where the folder holds anything that no plan has written.
    """
    check_folder(folder)
    made(folder, "--out")
    (folder / VALIDATION).unlink(missing_ok=True)  # it spoke of an earlier plan
    write_atomic(folder / PLAN, plan_json(plan))
    write_atomic(folder / TABLE, csv_text(plan))
    if draw:
        from raysoft.report.plan_figure import save_plan_figure

        save_plan_figure(strict(plan.as_dict()), folder / FIGURE)


OWN = frozenset({PLAN, TABLE, FIGURE, VALIDATION})


def ranks_of(text: str) -> list[int]:
    """The candidates of --ranks, e.g. 1,2,4 (their bounds are those of plan.ranks). Raises ConfigError.

    >>> ranks_of("1,2,4")
    [1, 2, 4]
    """
    if not re.fullmatch(r"\s*[0-9]{1,9}\s*(,\s*[0-9]{1,9}\s*)*", text):
        raise ConfigError("--ranks", f"must be whole numbers with commas between them, e.g. 1,2,4, got {text!r:.80}")
    return [int(word) for word in text.split(",")]


def check_folder(folder: Path) -> None:
    """Raises ConfigError("--out") where a plan must not be written."""
    strange = [name for name in names_in(folder, "--out") if name not in OWN and not name.startswith(PREFIX)]
    if strange:
        raise ConfigError(
            "--out", f"{folder} holds {strange[0]!r}, which no plan has written; choose another folder with --out"
        )
    check_made(folder, "--out")
