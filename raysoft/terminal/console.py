"""What a run shows on the terminal: a progress bar, one quiet line a round, a closing table."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from textwrap import TextWrapper
from typing import Any

from rich.console import Console, Group
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from raysoft.api import listing
from raysoft.api.progress import rank_line, round_line
from raysoft.config import RunConfig, registry
from raysoft.quantities import number, percent, quantity
from raysoft.rundir.folder import PLAN
from raysoft.rundir.reading import planned_rank
from raysoft.rundir.summary import accuracy_name, final_words
from raysoft.runs.events import Events
from raysoft.runs.run import RunResult
from raysoft.sweep.shipped import describe_sweep, shipped_names
from raysoft.types import RoundRecord


class RunDisplay(Events):
    """Events of a run drawn on a console; a context manager. Without a terminal only the lines are printed.

    `changed` is called whenever there is something new in the run's folder.
    """

    def __init__(self, console: Console, changed: Callable[[], None] = lambda: None) -> None:
        self.console = console
        self.changed = changed
        self.progress = progress_bar(console)
        self._task: Any = None
        self._text: str | None = None
        self._accuracy = "accuracy"

    def __enter__(self) -> RunDisplay:
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def preparing(self, fraction: float, text: str) -> None:
        """Progress of what goes on before the first round and after the last."""
        if self._text != text:
            if self._task is not None:
                self.progress.remove_task(self._task)
            # Work of unknown length is a bar that moves by itself.
            self._task = self.progress.add_task(text, total=100 if fraction else None)
            self._text = text
            if not self.console.is_terminal:
                self.console.print(text, highlight=False, markup=False)
        if fraction:
            self.progress.update(self._task, total=100, completed=int(100 * fraction))

    def started(self, config: RunConfig, description: Mapping[str, str]) -> None:
        """The head of the log, and a bar over the rounds."""
        if self._task is not None:
            self.progress.remove_task(self._task)
        for name, text in (*description.items(), ("method", plugins(config))):
            say(self.console, f"{name:>9}: {text}", indent=11)
        self._task = self.progress.add_task("rounds", total=config.rounds)
        self._accuracy = accuracy_name(config.data.task, config.eval.split)

    def rank_chosen(self, rank: int, ranks: Sequence[int]) -> None:
        """One line."""
        say(self.console, rank_line(rank, ranks))

    def round(self, record: RoundRecord) -> None:
        """One line."""
        say(self.console, round_line(record, self._accuracy), indent=11)
        if self._task is not None:
            self.progress.update(self._task, completed=record.round)
        self.changed()

    def checkpoint(self, tick: int, folder: Path) -> None:
        """No line: one a round is enough."""
        self.changed()


def say(console: Console, text: str, indent: int = 0) -> None:
    """Print lines as they are; on a terminal, wrapped between words, with what follows set in by `indent`."""
    if console.is_terminal:
        hang = " " * min(indent, max(console.width - 20, 0))
        wrap = TextWrapper(console.width, subsequent_indent=hang, break_long_words=False, break_on_hyphens=False)
        text = "\n".join(wrap.fill(line) if line.strip() else line for line in text.split("\n"))
    console.print(text, highlight=False, markup=False, soft_wrap=True)


class _Count(MofNCompleteColumn):
    """How many of how many; nothing while it is not known of how many."""

    def render(self, task: Task) -> Text:
        """The column's text."""
        return Text("") if task.total is None else super().render(task)


def progress_bar(console: Console) -> Progress:
    """A bar with its count and times, gone when it ends; nothing where there is no terminal."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        _Count(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
        transient=True,
    )


def plugins(config: RunConfig) -> str:
    """The five plug-ins of a run, e.g. `soft + rank_components + tsfa + fdma + rayleigh`."""
    return " + ".join(
        section.label for section in (config.method, config.codec, config.allocator, config.uplink, config.channel)
    )


def closing_table(result: RunResult, place: Path | str | None = None) -> str:
    """The figures a reader wants first, one a line; `place`: where the run's folder is in the end, if not there."""
    place = place or result.folder
    summary, metrics = result.summary, result.summary["metrics"]
    rows = [(accuracy_name(result.task, result.split), _accuracy(summary, metrics))]
    if "final_bits_per_byte" in metrics:
        before, after = metrics.get("base_bits_per_byte"), metrics["final_bits_per_byte"]
        rows.append(("bits per byte", f"{_number(before)} -> {_number(after)}"))
    if "worst10_client_accuracy" in metrics:
        rows.append(("clients", _clients(metrics)))
    if (rank := planned_rank(result.folder)) is not None:
        rows.append(("rank", f"{rank}: {_inside(place, PLAN)}"))
    rows.append(("uplink", _uplink(summary, metrics)))
    budget = summary["latency_budget_s"]
    latency = _number(summary["mean_round_latency_s"], " s")
    if budget and summary["mean_round_latency_s"] is not None:
        over = quantity("latency_over_budget").text(summary["mean_round_latency_s"] / budget)
        latency += f", {over} x the budget of {budget:g} s"
    rows += [
        ("mean latency", latency),
        ("energy", _energy(summary)),
        ("wall time", _wall_time(summary)),
        ("adapter", _inside(place, "adapter")),
    ]
    if result.report is not None:
        rows.append(("report", _inside(place, result.report.name)))
    rows += [(name, _elsewhere(note, result.folder, place)) for name, note in result.notes.items()]
    return aligned(rows)


def _wall_time(summary: Mapping[str, Any]) -> str:
    rate = summary["client_updates_per_s"]
    return f"{quantity('wall_time_s').text(summary['wall_time_s'])} s with start and loading" + (
        "" if rate is None else f"; {rate:.1f} client updates/s in the rounds"
    )


def _energy(summary: Mapping[str, Any]) -> str:
    spent = quantity("energy_j_total").text(summary["energy_j_total"])
    unit = "" if summary["energy_j_total"] is None else " J"
    return f"{spent}{unit} over {quantity('simulated_time_s').text(summary['simulated_time_s'])} simulated s"


def _accuracy(summary: Mapping[str, Any], metrics: Mapping[str, Any]) -> str:
    """Before and after, and what "after" is: round 0, the untouched base, has no part in it."""
    before, after = _number(summary["base_accuracy"]), _number(summary["final_accuracy"])
    change = before if metrics.get("evaluations_in_mean") == 0 else f"{before} -> {after}"
    return f"{change} ({final_words(metrics, _number(metrics.get('last_accuracy')))})"


def _elsewhere(note: str, folder: Path, place: Path | str) -> str:
    """A tracker's line about a folder that has moved to a store when the reader sees it."""
    moved = note.replace(str(folder.resolve()), str(place))
    return note if isinstance(place, Path) or moved == note else f"{moved} (once that folder is on this machine)"


def _clients(metrics: Mapping[str, Any]) -> str:
    """How the saved adapter does on the clients' own training samples."""
    worst, mean = (_number(metrics.get(key)) for key in ("worst10_client_accuracy", "client_accuracy_mean"))
    text = f"worst tenth of the clients {worst} (mean {mean})"
    if "worst10_client_bits_per_byte" in metrics:
        text += f", {_number(metrics['worst10_client_bits_per_byte'])} bits per byte"
    return text + ", on their own training samples"


def _uplink(summary: Mapping[str, Any], metrics: Mapping[str, Any]) -> str:
    if summary["uplink_bits_total"] is None:
        return f"not known: the records of {metrics.get('rounds_lost', 0)} rounds are lost"
    text = f"{quantity('uplink_bits_total').text(summary['uplink_bits_total'])} MB"
    share = metrics.get("uplink_share_of_dense32")
    if share is not None:
        text += f", {percent(share)} of the dense 32-bit uplink"
    same = metrics.get("uplink_share_of_dense_same_bits")
    if same is not None and same != share:
        text += f", {percent(same)} of the dense uplink at the same value bits"
    return text


def _number(value: float | None, unit: str = "") -> str:
    return number(value) + (unit if value is not None else "")


def aligned(rows: Sequence[tuple[str, str]]) -> str:
    """Names to the right, texts to the left of one column; long texts are left to the terminal."""
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:>{width}}  {text}" for name, text in rows)


def names_table() -> Group:
    """Every preset, every sweep that comes along, and every plug-in with its idea and source."""
    presets, sweeps = _table("preset", "what it is"), _table("sweep", "what it is (raysoft tune NAME)")
    plug_ins = Table(box=None, pad_edge=False)
    for name in shipped_names():
        sweeps.add_row(name, Text(describe_sweep(name)))
    for column in ("kind", "name"):
        plug_ins.add_column(column, no_wrap=True)
    plug_ins.add_column("what it is", ratio=3)
    plug_ins.add_column("source", ratio=2)
    for entry in listing.entries():
        if entry["kind"] == listing.PRESET:
            presets.add_row(entry["name"], Text(entry["idea"]))
        else:
            plug_ins.add_row(entry["kind"], entry["name"], Text(entry["idea"]), Text(entry["source"]))
    return Group(presets, "", sweeps, "", plug_ins)


def matrix(width: int) -> Group:
    """A grid for every two kinds of plug-ins, then every refusal with its reason; `width`: columns of the terminal."""
    asked, reasons = listing.Compatibility(), _table("refused", "because")
    shown: list[Table | str] = []
    everything = []
    for kinds in combinations(listing.KINDS, 2):
        refused = listing.refusals(asked, kinds)
        for (one, two), error in refused.items():
            reasons.add_row(f"{kinds[0]} {one} + {kinds[1]} {two}", Text(str(error)))
        if "channel" in kinds and not refused:
            everything.append(" x ".join(kinds))
        else:
            for grid in _grids(kinds, refused, width):
                shown += [grid, ""]
    lines = [f"Without exception: {', '.join(everything)}.", ""] if everything else []
    return Group(*shown, *map(Text, lines), reasons, "", *map(Text, listing.notes()))


def _table(name: str, text: str) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column(name, no_wrap=True)
    table.add_column(text)
    return table


def _grids(kinds: Sequence[str], refused: Collection[tuple[str, str]], width: int) -> Iterator[Table]:
    """The kind with more names across where they fit, else down; in several grids where neither fits."""
    down, across = sorted(kinds, key=lambda kind: len(registry.names(kind)))
    if len(_columns(down, across, width)) > 1:
        down, across = across, down
    for names in _columns(down, across, width):
        grid = Table(box=None, pad_edge=False)
        grid.add_column(f"{down} x {across}", no_wrap=True)
        for name in names:
            grid.add_column(name, no_wrap=True)
        for row in registry.names(down):
            pairs = [(row, name) if down == kinds[0] else (name, row) for name in names]
            grid.add_row(row, *("no" if pair in refused else "yes" for pair in pairs))
        yield grid


def _columns(down: str, across: str, width: int) -> list[list[str]]:
    """The names that stand across, as many in each grid as fit beside those that stand down."""
    grids: list[list[str]] = [[]]
    for name in registry.names(across):
        if grids[-1] and _label(down, across) + sum(len(one) + 2 for one in (*grids[-1], name)) > width:
            grids.append([])
        grids[-1].append(name)
    return grids


def _label(down: str, across: str) -> int:
    return max(len(f"{down} x {across}"), *(len(name) for name in registry.names(down)))


class _Console(Console):
    """Rich itself would leave with SystemExit in the middle of a run, which would not know why."""

    def on_broken_pipe(self) -> None:
        """Nobody reads on. Raises BrokenPipeError."""
        raise BrokenPipeError


def stdout() -> Console:
    """The console of results and logs."""
    return _Console(file=sys.stdout, soft_wrap=True)


def _inside(place: Path | str, name: str) -> str:
    return relative(place / name) if isinstance(place, Path) else f"{place}/{name}"


def relative(path: Path) -> str:
    """A path as a person would type it."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)
