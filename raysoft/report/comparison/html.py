"""The report of a comparison: figures and one HTML page from comparison.json and the run folders it names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from raysoft.errors import RaysoftError
from raysoft.quantities import NOTHING, number, quantity
from raysoft.report import page
from raysoft.report.comparison import captions
from raysoft.report.comparison.captions import EQUAL_UNITS, plural
from raysoft.report.comparison.data import Trace, trace
from raysoft.report.comparison.file import ARM_KEYS, ComparisonFile, Pair, read_comparison
from raysoft.report.comparison.panels import Panel, parts
from raysoft.report.page import PageSection, Picture
from raysoft.report.run.closing import radio_rows
from raysoft.report.run.html import NO_WISH, footer, limits_of, settings_of
from raysoft.report.wish import FORMATS, Wish
from raysoft.rundir.folder import FIGURES, REPORT, write_atomic
from raysoft.rundir.reading import Run, read_run
from raysoft.rundir.summary import FINAL_EVALUATIONS

DPI = 300  # of figures half as wide as a page


@dataclass
class Loaded:
    """What could be read of the runs: traces by label, one whole run an arm (for settings), and remarks."""

    traces: dict[str, list[Trace]] = field(default_factory=dict)
    example: dict[str, Run] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def write_comparison_report(folder: Path | str, wish: Wish = NO_WISH) -> Path:
    """Draw a comparison folder and return its `report.html`; the files of the figures in `figures/` beside it.

    A run folder that is missing or damaged is left out of the curves and named under "Limits".
    Raises RaysoftError where `folder` holds no readable comparison.json, or cannot be written.
    """
    folder = Path(folder)
    file = read_comparison(folder)
    loaded = load_runs(folder, file)
    found = parts(file, loaded.traces)
    drawings = {name: draw for part in found for name, draw in part.drawings.items()}
    example = next(iter(loaded.example.values()), None)
    formats, width = wish.settled({} if example is None else example.config, "column")
    pictures = page.draw(drawings, DPI, formats, width)
    target = folder / REPORT
    try:
        old = [path.stem for kind in FORMATS for path in (folder / FIGURES).glob(f"*.{kind}")]
        page.write_pictures(folder / FIGURES, pictures, old)
        write_atomic(target, render(file, found, pictures, loaded))
    except OSError as error:
        raise RaysoftError(f"{error.filename or target}: cannot be written: {error.strerror}") from None
    return target


def load_runs(folder: Path, file: ComparisonFile) -> Loaded:
    """Read every run once and keep what the figures need; only one run an arm stays in memory."""
    out = Loaded()
    for arm in file.arms:
        out.traces[arm.label] = []
        for row in arm.runs:
            try:
                run = read_run(folder / row.folder)
            except RaysoftError as error:
                out.notes.append(f"{arm.label}, seed {row.seed}: not in the curves: {error}.")
                continue
            out.traces[arm.label].append(trace(run, row.seed))
            out.example.setdefault(arm.label, run)
    return out


def render(file: ComparisonFile, found: Sequence[Panel], pictures: Mapping[str, Picture], loaded: Loaded) -> str:
    """The HTML text of a comparison."""
    sections = [PageSection("result", "Result", arms_table(file))]
    if file.pairs:
        sections.append(PageSection("pairs", f"Against {file.reference}", pairs_table(file)))
    for part in found:
        shown = [name for name in part.drawings if name in pictures]
        if shown:
            images = "".join(page.image(pictures[name], f"{part.title}. {part.caption}") for name in shown)
            files = page.downloads(FIGURES, pictures, shown)
            content = page.figure(images, part.caption, "panels", files)
            sections.append(PageSection(f"figure-{part.name}", part.title, content))
    runs, titles = list(loaded.example.values()), list(loaded.example)
    remarks = [*file.notes, *(limits_of(runs, titles) if runs else ()), *loaded.notes]
    if file.time_to and not any(row.seeds_reached for row in file.time_to):
        remarks.append(
            f"No figure of the cost to a part of the gain of {file.reference}: no run reached one in the mean of "
            f"{FINAL_EVALUATIONS} evaluations in a row, which takes as many."
        )
    below = []
    if remarks:
        sections.append(PageSection("limits", "Limits", page.notes(remarks)))
    if runs:
        sections.append(PageSection("radio", "Radio", page.table([radio_rows(run) for run in runs], titles, "Arm")))
        below.append(settings_of(runs, titles))
    return page.render_page(file.name, _subtitle(file), sections, footer(runs), below)


def _subtitle(file: ComparisonFile) -> str:
    counts = sorted({len(arm.runs) for arm in file.arms})
    seeds = plural(counts[-1], "seed") if len(counts) == 1 else f"{counts[0]} to {counts[-1]} seeds"
    text = f"{plural(len(file.arms), 'arm')}, {seeds} each with common random numbers; reference: {file.reference}"
    text += f"; read at equal {EQUAL_UNITS[file.equal]}" if file.equal else ""
    return text + ". Times, energies and bits are simulated. One look an arm in every figure."


def arms_table(file: ComparisonFile) -> str:
    """One line an arm, mean ± standard deviation over seeds; columns that no arm has are left out."""
    known = (quantity(key) for key in ARM_KEYS)
    used = [one for one in known if any(arm.mean.get(one.key) is not None for arm in file.arms)]
    words = {"equal": EQUAL_UNITS.get(file.equal or "", "")}
    head = [one.heading(**words) for one in used]
    lines = [[arm.label, *(one.cell(arm.mean.get(one.key), arm.std.get(one.key)) for one in used)] for arm in file.arms]
    meanings = [one.meaning for one in used if one.meaning]
    return page.grid(["Arm", *head], lines, "arms") + (page.notes(meanings) if meanings else "")


def pairs_table(file: ComparisonFile) -> str:
    """One line an arm and metric: difference, interval, p-values, verdicts."""
    head = ["Arm", "Difference in", "Seeds", "Difference", "95 % interval", "p (non-inferior)", "p (Holm)"]
    head += ["Non-inferior", "Equivalent"]
    return page.grid(head, [_pair(pair) for pair in file.pairs if pair.arm != file.reference], "arms")


def _pair(pair: Pair) -> list[str]:
    metric = quantity(pair.metric)
    digits = metric.digits + 1

    def signed(value: float) -> str:
        return number(value, metric.factor, digits, signed=True)

    interval = NOTHING if pair.low is None or pair.high is None else f"{signed(pair.low)} to {signed(pair.high)}"
    difference = NOTHING if pair.difference is None else signed(pair.difference)
    return [
        pair.arm,
        captions.difference_in(pair.metric),
        str(pair.seeds),
        difference,
        interval,
        _p(pair.p_noninferior),
        _p(pair.p_holm),
        _verdict(pair.noninferior),
        _verdict(pair.equivalent),
    ]


def _p(value: float | None) -> str:
    if value is None:
        return NOTHING
    return "< 0.001" if value < 1e-3 else f"{value:.3f}"


def _verdict(value: bool | None) -> str:
    return NOTHING if value is None else "yes" if value else "not shown"
