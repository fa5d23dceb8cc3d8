"""Synthetic comparison folders for the tests of their report: run folders and a comparison.json.

The arms' final accuracies differ by known amounts from the reference, seed by seed.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from raysoft.rundir.reading import read_run
from tests.run_folders import BUDGET_S, make_run

NAMES = (
    "ideal",
    "soft",
    "soft-plus",
    "topk 4 bit",
    "randomk",
    "random-components",
    "svd",
    "equal",
    "minmax",
    "greedy",
    "fedit-8bit",
    "fedit-4bit",
    "head-only",
)


def make_comparison(
    folder: Path,
    arms: int = 3,
    seeds: int = 3,
    *,
    rounds: int = 12,
    text: bool = False,
    labels: Sequence[str] = NAMES,
    **changes: Any,
) -> Path:
    """Write `arms` x `seeds` runs and the comparison.json that compares them; `changes` replace its top-level keys."""
    rows = [_arm(folder, labels[a], a, seeds, rounds, text) for a in range(arms)]
    tree: dict[str, Any] = {
        "format": 1,
        "name": folder.name,
        "store": "runs",
        "reference": labels[0],
        "margin": 0.01,
        "equal": None,
        "arms": rows,
        "pairs": _pairs(rows, text),
        "time_to": _time_to(rows),
    }
    write(folder, tree | changes)
    return folder


def write(folder: Path, tree: Mapping[str, Any]) -> None:
    """comparison.json, as strict JSON."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "comparison.json").write_text(json.dumps(tree, allow_nan=False), encoding="utf-8")


def read(folder: Path) -> dict[str, Any]:
    """comparison.json as plain data, to be changed and written again."""
    return json.loads((folder / "comparison.json").read_text(encoding="utf-8"))


def _arm(folder: Path, label: str, number: int, seeds: int, rounds: int, text: bool) -> dict[str, Any]:
    runs = []
    for seed in range(seeds):
        path = folder / "runs" / f"arm{number}-s{seed}"
        # 40 clients: the same cohorts for each arm of a seed; another number of rounds for each arm
        make_run(path, seed=100 * number + seed, clients=40, cohort=10, rounds=rounds + number % 3, text=text)
        run = read_run(path)
        assert run.summary is not None
        gain = run.summary["final_accuracy"] - run.summary["base_accuracy"] - 0.012 * number * (1 + 0.2 * seed)
        final = run.summary["base_accuracy"] + gain
        share = 1.0 / (1 + 0.9 * number)
        runs.append(
            {
                "seed": seed,
                "folder": f"runs/{path.name}",
                "final_accuracy": final,
                "final_bits_per_byte": run.summary["metrics"].get("final_bits_per_byte"),
                "equal_accuracy": None,
                "equal_bits_per_byte": None,
                "uplink_mb": 40.0 * share,
                "share_dense32": share,
                "share_dense_same_bits": share,
                "mean_latency_s": BUDGET_S * (0.5 + 3 * share),
                "latency_over_budget": 0.5 + 3 * share,
                "simulated_s": run.summary["simulated_time_s"],
                "energy_j": 8.0 * share + 0.3 * seed,
                "recovered_gap": gain / 0.55,
                "worst10_client_accuracy": final - 0.2 - 0.01 * number,
                "kept_fraction": share,
            }
        )
    keys = [key for key in runs[0] if key not in ("seed", "folder")]
    known = {key: [run[key] for run in runs if run[key] is not None] for key in keys}
    return {
        "label": label,
        "target": label,
        "overrides": [],
        "runs": runs,
        "mean": {key: statistics.fmean(values) if values else None for key, values in known.items()},
        "std": {key: statistics.stdev(values) if len(values) > 1 else None for key, values in known.items()},
    }


def _pairs(rows: Sequence[Mapping[str, Any]], text: bool) -> list[dict[str, Any]]:
    out = []
    for metric in ("accuracy", "bits_per_byte") if text else ("accuracy",):
        key = f"final_{metric}"
        for row in rows[1:]:
            apart = [run[key] - base[key] for run, base in zip(row["runs"], rows[0]["runs"], strict=True)]
            mean, several = statistics.fmean(apart), len(apart) > 1
            half = 2 * statistics.stdev(apart) / len(apart) ** 0.5 if several else 0.0
            good = mean - half > -0.01 if metric == "accuracy" else mean + half < 0.05
            out.append(
                {
                    "arm": row["label"],
                    "metric": metric,
                    "seeds": len(apart),
                    "difference": mean,
                    "low": mean - half if several else None,
                    "high": mean + half if several else None,
                    "p_noninferior": 0.01 if several else None,
                    "p_holm": 0.02 if several else None,
                    "noninferior": good if several else None,
                    "equivalent": good if several else None,
                }
            )
    return out


def _time_to(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    out = []
    for number, row in enumerate(rows):
        for place, target in enumerate(("50 %", "90 %", "95 %")):
            never = place == 2 and number % 4 == 3
            spent = (1 + place) * (1 + 0.3 * number)
            out.append(
                {
                    "arm": row["label"],
                    "target": target,
                    "value": 0.6 + 0.1 * place,
                    "rounds": None if never else 4 * spent,
                    "seconds": None if never else spent,
                    "mb": None if never else 12 * spent / (1 + number),
                    "joules": None if never else 2 * spent,
                    "seeds_reached": 0 if never else len(row["runs"]) - place % 2,
                }
            )
    return out
