"""What a sweep shows on the terminal: a bar over trials, one line a finished one, a closing table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from raysoft.comparison.tables import Table, text_table
from raysoft.quantities import Quantity, quantity
from raysoft.sweep.best import choosing_split, chosen_on_test, final_test
from raysoft.sweep.driver import SweepEvents, SweepResult, check_sweep_inputs
from raysoft.sweep.points import Sweep, short_value
from raysoft.sweep.results import DONE, FAILED, STOPPED, tied
from raysoft.terminal.console import aligned, progress_bar, relative, say
from raysoft.terminal.display import Display

MOST = 12  # points of the closing table
_FIGURES = (
    "final_accuracy",
    "final_bits_per_byte",
    "mean_latency_s",
    "latency_over_budget",
    "uplink_mb",
    "kept_fraction",
)


class SweepDisplay(Display, SweepEvents):
    """Events of a sweep drawn on a console; a context manager. Without a terminal only the lines are printed."""

    def __init__(self, console: Console) -> None:
        super().__init__(console, progress_bar(console))
        self._total = self._ended = 0
        self._now: dict[str, int] = {}

    def planned(self, total: int, done: int, at_once: int | None) -> None:
        """The head of the log, and a bar over all trials."""
        self._total, self._ended = total, done
        before = f", {done} of them done before" if done else ""
        self._say(f"{total} trials{before}; {at_once or 'as many as nodes come'} side by side")
        self._task = self.progress.add_task("trials", total=total, completed=done)

    def round(self, trial: str, tick: int) -> None:
        """Name it beside the bar."""
        self._now[trial] = tick
        self._draw()

    def finished(self, trial: str, status: str, text: str) -> None:
        """One line."""
        self._ended += 1
        self._now.pop(trial, None)
        what = {DONE: text, STOPPED: text, FAILED: f"FAILED: {text}"}[status]
        self._say(f"[{self._ended}/{self._total}] {trial}: {what}")
        self._draw()

    def _draw(self) -> None:
        if self._task is not None:
            now = ", ".join(f"{name.partition('-')[0]} round {tick}" for name, tick in self._now.items())
            text = f"trials  {now[:60]}".replace("[", r"\[")
            self.progress.update(self._task, completed=self._ended, description=text)


def print_sweep(console: Console, found: SweepResult) -> None:
    """The best points, what ended early, where everything lies."""
    results, sweep = found.results, found.sweep
    console.print()
    console.print(text_table(points_table(sweep, results.points)), highlight=False, markup=False)
    hidden = len(results.points) - MOST
    if hidden > 0:
        console.print(f"and {hidden} more points in points.csv")
    console.print()
    counts = {name: sum(row["status"] == name for row in results.rows) for name in (DONE, STOPPED, FAILED)}
    rows = [("trials", ", ".join(f"{count} {name}" for name, count in counts.items() if count))]
    if results.best is not None:
        others = tied(results.points, results.best, sweep.config.metric)
        rows.append(("best", best_text(sweep, results.best) + tie_text(others)))
        rows.append(("final test", final_test(Path(relative(found.folder)))))
    rows += [("folder", relative(found.folder)), ("report", relative(found.report))]
    say(console, aligned(rows), indent=14)
    if results.best is not None and (careful := chosen_on_test(sweep)) is not None:
        console.print(f"careful: {careful}", highlight=False, markup=False)
    failed = [row for row in results.rows if row["status"] == FAILED]
    for row in failed[:10]:
        console.print(f"failed: {row['trial']}: {row['reason']}", highlight=False, markup=False)


def tie_text(others: int) -> str:
    """What is said of a best point that is not alone: it is the first of equals, and chosen by nothing else."""
    return f" (tied with {others} other{'s' if others > 1 else ''}: the first of them)" if others else ""


def best_text(sweep: Sweep, best: Mapping[str, Any]) -> str:
    """The settings of a point and its metric."""
    words = ", ".join(f"{label} {short_value(best[label])}" for label in sweep.labels.values())
    spread = best["std"].get(sweep.config.metric)
    more = "" if spread is None else f" ± {spread:.4g}"
    return f"{words}: {sweep.config.metric} {best[sweep.config.metric]:.4g}{more}"


def points_table(sweep: Sweep, points: Sequence[Mapping[str, Any]]) -> Table:
    """The best points first, mean ± standard deviation over their seeds."""
    metric = sweep.config.metric
    sign = -1.0 if sweep.mode == "max" else 1.0
    order = sorted(points, key=lambda point: (point[metric] is None, sign * (point[metric] or 0.0)))[:MOST]
    figures = [key for key in _FIGURES if key != metric and any(point[key] is not None for point in order)]
    names = {key: quantity(key).narrow_heading() for key in figures}
    heading = ("point", *sweep.labels.values(), "seeds", metric, *names.values())
    rows = [
        (
            str(point["point"]),
            *(short_value(point[label]) for label in sweep.labels.values()),
            _seeds(point),
            _spread(Quantity(metric, metric, (), digits=4), point),  # as it is in the files
            *(_spread(quantity(key), point) for key in figures),
        )
        for point in order
    ]
    return Table(heading, tuple(rows))


def _seeds(point: Mapping[str, Any]) -> str:
    parts = [f"{point[name]} {name}" for name in (STOPPED, FAILED) if point[name]]
    return ", ".join([str(point[DONE]), *parts]) if point[DONE] or not parts else ", ".join(parts)


def _spread(of: Quantity, point: Mapping[str, Any]) -> str:
    return of.spread(point[of.key], point["std"].get(of.key))


def print_sweep_plan(console: Console, sweep: Sweep, folder: Any) -> None:
    """What a sweep would do, without doing it."""
    check_sweep_inputs(sweep, download=False)
    for trial in sweep.trials()[:200]:
        console.print(trial.name, highlight=False, markup=False)
    config = sweep.config
    rows = [
        ("folder", relative(folder)),
        ("trials", f"{sweep.count}, {len(sweep.seeds)} seed(s) a point, up to {sweep.rounds()} rounds each"),
        (
            "looks for",
            f"{'largest' if sweep.mode == 'max' else 'smallest'} {config.metric}, on the {choosing_split(sweep)} split",
        ),
        ("scheduler", f"{config.scheduler.name}, search {config.search}, executor {config.executor}"),
    ]
    say(console, aligned(rows), indent=14)
    console.print("Every point is valid; nothing was run.")
