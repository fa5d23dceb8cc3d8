"""What a comparison shows on the terminal: a bar over all rounds with what runs now, closing tables."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from raysoft.comparison.batch import BatchEvents, Job, JobOutcome, head_line, outcome_line, waiting_line
from raysoft.comparison.compare import Comparison, ComparisonPlan, failures
from raysoft.comparison.store import find, key_of, run_name
from raysoft.comparison.tables import arms_table, note, pairs_table, sideways, text_table, time_to_table
from raysoft.terminal.console import aligned, relative, say
from raysoft.terminal.display import Display

WIDEST = 9  # columns of a table that is printed upright


class BatchDisplay(Display, BatchEvents):
    """Events of a batch drawn on a console; a context manager. Without a terminal only the lines are printed."""

    def __init__(self, console: Console) -> None:
        super().__init__(
            console,
            Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TimeElapsedColumn(),
                TextColumn("ETA"),
                TimeRemainingColumn(),
                console=console,
                disable=not console.is_terminal,
                transient=True,
            ),
        )
        self._runs = self._done = self._known = self._rounds = 0
        self._now: dict[int, Job] = {}
        self._seen: dict[int, int] = {}  # rounds of a job that the bar has counted

    def planned(self, total: int, reused: int, rounds: int) -> None:
        """The head of the log, and a bar over the rounds to come."""
        self._runs, self._known, self._rounds = total, reused, rounds
        self._say(head_line(total, reused, rounds))
        self._task = self.progress.add_task("", total=rounds or 1)
        self._draw()

    def begun(self, job: Job) -> None:
        """Name it beside the bar."""
        self._now[id(job)] = job
        self._draw()

    def round(self, job: Job, tick: int) -> None:
        """Move the bar."""
        self._count(job, tick)

    def finished(self, outcome: JobOutcome) -> None:
        """One line."""
        self._done += 1
        self._now.pop(id(outcome.job), None)
        if self._done <= self._known:
            return  # the head of the log has counted them
        self._count(outcome.job, outcome.job.config.rounds)  # also those that a failed run has left out
        self._say(outcome_line(outcome, self._done, self._runs))
        self._draw()

    def waiting(self, runs: int) -> None:
        """Say once that others are at work."""
        self.preparing(0.0, waiting_line(runs))

    def _count(self, job: Job, rounds: int) -> None:
        self.progress.advance(self._task, rounds - self._seen.get(id(job), 0))
        self._seen[id(job)] = rounds

    def _draw(self) -> None:
        if self._task is not None:
            now = ", ".join(f"{job.label} s{job.config.seed}" for job in self._now.values()) or "starting"
            now = now if self._done < self._runs else ""
            text = f"runs {min(self._done, self._runs)} / {self._runs}  {now}"
            self.progress.update(self._task, description=text.replace("[", r"\["))


def print_comparison(console: Console, found: Comparison) -> None:
    """Tables, how to read them, where everything lies, what failed."""
    tables = [arms_table(found.data), pairs_table(found.data), time_to_table(found.data)]
    for table in tables:
        if table.rows:
            console.print()
            text = text_table(sideways(table) if len(table.heading) > WIDEST else table)
            console.print(text, highlight=False, markup=False)
    console.print()
    console.print(note(found.data), highlight=False, markup=False)
    for text in found.notes:
        console.print(text, highlight=False, markup=False)
    rows = [("folder", relative(found.folder)), ("report", relative(found.report))]
    say(console, aligned(rows), indent=14)
    if found.failed:
        total = len(found.failed) + sum(len(arm["runs"]) for arm in found.data["arms"])
        console.print(f"{len(found.failed)} of {total} runs failed:", highlight=False)
        console.print(failures(found.failed), highlight=False, markup=False)


def print_comparison_plan(console: Console, plan: ComparisonPlan) -> None:
    """What a comparison would do, without doing it: each run and whether the store has it."""
    from raysoft.runs.inputs import check_all_inputs

    check_all_inputs({f"arm {job.label!r}": job.config for job in reversed(plan.jobs)}, download=False)
    known = find(plan.store, {key_of(job.config): job.config for job in plan.jobs})
    for job in plan.jobs:
        folder = known.get(key_of(job.config))
        state = f"done: {relative(folder)}" if folder else f"to run: {run_name(job.label, job.config)}"
        console.print(f"{job.label}, seed {job.config.seed}: {state}", highlight=False, markup=False)
    rows = [("reference", plan.reference), ("store", relative(plan.store)), ("folder", relative(plan.folder))]
    say(console, aligned(rows), indent=14)
    console.print("The settings are valid; nothing was run.")
