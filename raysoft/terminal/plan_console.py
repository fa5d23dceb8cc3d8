"""What `raysoft plan` shows: its progress, the table of ranks, and how well the plan chose."""

from __future__ import annotations

from pathlib import Path

from raysoft.config import RunConfig
from raysoft.planning.table import RankPlan, summary_rows, text_table
from raysoft.rundir.folder import PLAN
from raysoft.terminal import console as display
from raysoft.terminal.comparison_console import BatchDisplay


def show_plan(config: RunConfig, folder: Path) -> RankPlan:
    """Measure, write the plan's folder, and print its table. Raises ConfigError for a folder that is in use."""
    from raysoft.api.plans import planned

    replaced = " (its earlier plan was replaced)" if (folder / PLAN).exists() else ""
    console = display.stdout()
    with display.RunDisplay(console) as shown:
        found = planned(config, folder, shown)
    console.print()
    console.print(text_table(found), highlight=False, markup=False)
    console.print()
    rows = [*summary_rows(found), ("folder", display.relative(folder) + replaced)]
    display.say(console, display.aligned(rows), indent=14)
    return found


def show_validation(config: RunConfig, found: RankPlan, folder: Path, *, seeds: int, runs: Path, workers: int) -> bool:
    """Run every feasible rank, write and print how well the plan chose; whether runs have failed."""
    from raysoft.comparison.plan_validation import validate, validation_rows, write_validation

    console = display.stdout()
    console.print()
    with BatchDisplay(console) as bar:
        checked = validate(config, found, seeds, runs, workers, bar)
    write_validation(folder, checked)
    display.say(console, display.aligned(validation_rows(checked)), indent=14)
    return bool(checked.failed)
