"""Synthetic sweep folders for tests of reports and frames: a results.json whose figures follow simple laws."""

import json

import numpy as np


def axis(label, values, kind="grid"):
    return {"key": f"some.{label}", "label": label, "kind": kind, "values": values}


def write(folder, axes, settings, *, seeds=2, metric="final_accuracy", **more):
    """A results.json whose figures follow simple laws of the settings."""
    points, trials = [], []
    for number, values in enumerate(settings):
        row = dict(zip((one["label"] for one in axes), values, strict=True))
        level = sum(np.log2(value) for value in values if isinstance(value, (int, float)))
        figures = {
            "final_accuracy": 0.7 + 0.01 * level + 0.003 * np.sin(7 * number),
            "mean_latency_s": 0.3 + 0.02 * abs(level),
            "uplink_mb": 2.0 + 0.2 * abs(level) + 0.1 * np.cos(5 * number),
            "kept_fraction": 0.2,
        }
        std = {key: 0.02 * value for key, value in figures.items()} if seeds > 1 else {}
        points.append(
            {"point": number, **row, "done": seeds, "stopped": 0, "failed": 0, "unfinished": 0, **figures, "std": std}
        )
        trials += [
            {
                "trial": f"p{number}-s{seed}",
                "point": number,
                "seed": seed,
                **row,
                "status": "done",
                "reason": None,
                **figures,
            }
            for seed in range(seeds)
        ]
    best = max(points, key=lambda point: point["final_accuracy"]) if points else None
    data = {
        "format": 1,
        "name": folder.name,
        "metric": metric,
        "mode": "max",
        "seeds": list(range(seeds)),
        "axes": axes,
        "best": best,
        "points": points,
        "trials": trials,
        **more,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(data))
    return folder
