"""best.yaml: the best point of a sweep as a run of its own, ready for the final test.

Its runs may have been short, computed in their trials, and judged on the validation split; the final test has the
rounds and the executor of the sweep's base, and the test split. Nothing else is changed.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from raysoft.config import RunConfig
from raysoft.config.presets import load_config, load_tree, with_overrides
from raysoft.config.registry import resolve
from raysoft.rundir.folder import name_of
from raysoft.runs.standing import to_yaml
from raysoft.sweep.points import Sweep

BEST = "best.yaml"
MOST_POINTS = 200  # that are asked for their split


def final_test(folder: Path) -> str:
    """The command of the final test."""
    place = str(folder / BEST)
    return f"raysoft run {shlex.quote(place) if place.isprintable() else BEST} --name {_name(folder)}"


def choosing_split(sweep: Sweep) -> str:
    """The split that decides which point is the best one: `test`, `validation`, or both where that is varied."""
    varied = any(key.split(".")[0] == "eval" for key in sweep.config.space)
    points = (sweep.first(), *(sweep.points[:MOST_POINTS] if varied else ()))
    return " and ".join(dict.fromkeys(sweep.run_config(values, sweep.seeds[0]).eval.split for values in points))


def chosen_on_test(sweep: Sweep) -> str | None:
    """What to be careful about where a sweep has chosen on the test split by something measured there; else None."""
    measured = any(word in sweep.config.metric for word in ("accuracy", "loss", "bits_per_byte"))
    if not measured or sweep.config.metric.endswith("train_loss") or "test" not in choosing_split(sweep).split():
        return None
    return (
        f"{sweep.config.metric} was measured on the test split, and the best point was chosen by it: on that split it "
        "looks better than it is. Choose with eval.split=validation; the final test is then the first look."
    )


def best_yaml(sweep: Sweep, folder: Path, best: Mapping[str, Any], trial: Path) -> str:
    """The text of the file. `best`: the row of the point; `trial`: the configuration of one of its finished runs."""
    chosen = load_config(str(trial))
    config = _for_the_test(sweep, chosen)
    words = ", ".join(f"{label} {best[label]}" for label in sweep.labels.values())
    metric = sweep.config.metric
    lines = [
        f"The best point of a sweep, ready for its final test: {final_test(folder)}",
        f"{words}; {metric} in the sweep: {best[metric]:.4g}",
        f"eval.split: test; the sweep chose on the {chosen.eval.split} split"
        + ("; with eval.split=validation this test would be the first" if chosen.eval.split == "test" else ""),
    ]
    if config.rounds != chosen.rounds:
        lines.append(
            f"rounds: {config.rounds}, those of {Path(sweep.config.base).name}; the sweep's had {chosen.rounds}"
        )
    return "".join(f"# {line}\n" for line in lines if line.isprintable()) + to_yaml(config)


def _for_the_test(sweep: Sweep, chosen: RunConfig) -> RunConfig:
    base = load_tree(sweep.config.base)
    asked = with_overrides(base, sweep.config.overrides)
    full = base.get("rounds", RunConfig.model_fields["rounds"].default)
    rounds = chosen.rounds if "rounds" in sweep.config.space else max(chosen.rounds, full)
    executor = asked.get("executor", RunConfig.model_fields["executor"].default)
    tree = chosen.model_dump(mode="json")
    return resolve(with_overrides(tree, [{"rounds": rounds, "executor": executor, "eval.split": "test"}]))


def _name(folder: Path) -> str:
    """Of the run: that of the sweep with -best behind it, within what a name may have."""
    return f"{name_of(folder.resolve().name)[:59]}-best"
