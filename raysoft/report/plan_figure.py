"""The figure of the offline stage: the score's terms by rank, and what fits the latency budget. Reads plan.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from raysoft.report import style
from raysoft.report.chart import Chart
from raysoft.report.page import picture_of
from raysoft.report.style import BLUE, GREEN, GREY, ORANGE, VERMILLION, new_figure, settings

TERMS = (  # field, weight, label, colour, hatch
    ("phi", "rank", "rank: what it cannot hold", BLUE, ""),
    ("sparsification", "sparsification", "sparsification at o*", ORANGE, "///"),
    ("covariance", "covariance", "covariance of averaging", GREEN, "..."),
)


def plan_figure(plan: Mapping[str, Any]) -> Chart:
    """Left: c_r phi + c_s eps + c_c kappa, stacked, a bar a rank. Right: latency at o* and o* itself."""
    rows: Sequence[Mapping[str, Any]] = plan["candidates"]
    place_N = np.arange(len(rows))
    figure, axes = new_figure(3.0, 1, 2)
    _scores(axes[0], plan, rows, place_N)
    _latencies(axes[1], plan, rows, place_N)
    for ax in axes:
        ax.set_xticks(place_N, [str(row["rank"]) for row in rows])
        ax.set_xlabel("LoRA rank")
        ax.set_xlim(-0.6, len(rows) - 0.4)
        ax.grid(visible=False, axis="x")
    return figure


def save_plan_figure(plan: Mapping[str, Any], path: Path) -> None:
    """plan.png; raises OSError where it cannot be written."""
    with settings():
        png = picture_of(plan_figure(plan)).png
    path.write_bytes(png)


def _scores(ax: Axes, plan: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], place_N: Any) -> None:
    top = np.zeros(len(rows))
    for field, weight, label, colour, hatch in TERMS:
        known = [row[field] if row["score"] is not None else None for row in rows]
        height = np.array([0.0 if value is None else plan["weights"][weight] * value for value in known])
        ax.bar(place_N, height, 0.62, bottom=top, color=colour, hatch=hatch, edgecolor="white", label=label)
        top += height
    scored = np.array([row["score"] is not None for row in rows])
    errors = np.array([row["score_error"] or 0.0 for row in rows])
    ax.errorbar(
        place_N[scored], top[scored], errors[scored], fmt="none", ecolor=style.BLACK, capsize=2.5, linewidth=0.9
    )
    highest = float((top + errors).max(initial=0.0)) or 1.0
    for at, row in enumerate(rows):
        if row["rank"] == plan["chosen_rank"]:
            ax.annotate(
                "chosen", (at, top[at] + errors[at]), xytext=(0, 4), textcoords="offset points", ha="center", fontsize=8
            )
        elif row["score"] is None:
            ax.annotate(
                "rejected",
                (at, 0.0),
                xytext=(0, 4),
                textcoords="offset points",
                ha="center",
                fontsize=8,
                color=GREY,
                rotation=90,
                va="bottom",
            )
    ax.set_ylim(0, 1.15 * highest)
    ax.set_ylabel("Score (± one standard error)")
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=1, borderaxespad=0.2)


def _latencies(ax: Axes, plan: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], place_N: Any) -> None:
    """Latency on the left axis, the kept fraction on the right one."""
    known = np.array([row["latency_mean_s"] is not None for row in rows])
    at = place_N[known]
    column = {
        name: np.array([row[name] for row in rows if row["latency_mean_s"] is not None], dtype=np.float64)
        for name in ("latency_mean_s", "latency_error_s", "latency_median_s", "latency_p95_s")
    }
    ax.errorbar(
        at,
        column["latency_mean_s"],
        column["latency_error_s"],
        color=BLUE,
        marker="o",
        capsize=2.5,
        label="latency at o*: mean ± error",
    )
    ax.plot(at, column["latency_p95_s"], color=BLUE, linestyle=":", marker="^", label="95th percentile")
    ax.axhline(plan["latency_budget_s"], color=style.BLACK, linestyle=(0, (6, 3)), linewidth=1.2, label="budget")
    ax.set_ylim(0, 1.1 * max([plan["latency_budget_s"], *column["latency_p95_s"]]))
    ax.set_ylabel("Round latency (s)")
    right = ax.twinx()
    kept = np.array([np.nan if row["kept_fraction"] is None else row["kept_fraction"] for row in rows])
    right.plot(place_N, kept, color=VERMILLION, linestyle="--", marker="s", label="kept fraction o*")
    right.set_ylim(0, 1.05)
    right.set_ylabel("Kept fraction o*")
    right.grid(visible=False)
    right.spines["right"].set_visible(True)
    handles, labels = ax.get_legend_handles_labels()
    more, names = right.get_legend_handles_labels()
    ax.legend(
        handles + more,
        labels + names,
        loc="lower center",
        bbox_to_anchor=(0.5, 1.0),
        ncols=2,
        borderaxespad=0.2,
        columnspacing=1.0,
    )


__all__ = ["plan_figure", "save_plan_figure"]
