"""The report of a comparison: figures and one HTML page from comparison.json and the run folders it names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from raysoft.errors import RaysoftError
from raysoft.report import page
from raysoft.report.closing import NOT_MEASURED, radio_rows
from raysoft.report.comparison_captions import EQUAL_UNITS, plural
from raysoft.report.comparison_data import Trace, trace
from raysoft.report.comparison_file import ComparisonFile, Pair, read_comparison
from raysoft.report.comparison_panels import Part, parts
from raysoft.report.html import footer, limits_of, settings_of
from raysoft.report.page import Section
from raysoft.tracking import FIGURES, REPORT, Run, read_run, write_atomic

DPI = 300  # of figures half as wide as a page
_ARM_ROWS: tuple[tuple[str, str, float, str], ...] = (
    ("Final accuracy", "final_accuracy", 100.0, " %"),
    ("Bits per byte", "final_bits_per_byte", 1.0, ""),
    ("Accuracy at equal {equal}", "equal_accuracy", 100.0, " %"),
    ("Bits per byte at equal {equal}", "equal_bits_per_byte", 1.0, ""),
    ("Recovered gap", "recovered_gap", 100.0, " %"),
    ("Worst tenth of the clients", "worst10_client_accuracy", 100.0, " %"),
    ("Uplink", "uplink_mb", 1.0, " MB"),
    ("Share of dense 32-bit uplink", "share_dense32", 100.0, " %"),
    ("Share of dense at same bits", "share_dense_same_bits", 100.0, " %"),
    ("Kept fraction", "kept_fraction", 100.0, " %"),
    ("Mean round latency", "mean_latency_s", 1.0, " s"),
    ("Latency over budget", "latency_over_budget", 100.0, " %"),
    ("Simulated time", "simulated_s", 1.0, " s"),
    ("Energy of all devices", "energy_j", 1.0, " J"),
)


@dataclass
class Loaded:
    """What could be read of the runs: traces by label, one whole run an arm (for settings), and remarks."""

    traces: dict[str, list[Trace]] = field(default_factory=dict)
    example: dict[str, Run] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def write_comparison_report(folder: Path | str) -> Path:
    """Draw a comparison folder and return its `report.html`; `figures/*.png` beside it.

    A run folder that is missing or damaged is left out of the curves and named under "Limits".
    Raises RaysoftError where `folder` holds no readable comparison.json, or cannot be written.
    """
    folder = Path(folder)
    file = read_comparison(folder)
    loaded = load_runs(folder, file)
    found = parts(file, loaded.traces)
    drawings = {name: draw for part in found for name, draw in part.drawings.items()}
    pictures = page.draw(drawings, DPI)
    target = folder / REPORT
    try:
        old = [path.stem for path in (folder / FIGURES).glob("*.png")]
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


def render(file: ComparisonFile, found: Sequence[Part], pictures: Mapping[str, bytes], loaded: Loaded) -> str:
    """The HTML text of a comparison."""
    sections = [Section("result", "Result", arms_table(file))]
    if file.pairs:
        sections.append(Section("pairs", f"Against {file.reference}", pairs_table(file)))
    for part in found:
        shown = [name for name in part.drawings if name in pictures]
        if shown:
            images = "".join(page.image(pictures[name], f"{part.title}. {part.caption}") for name in shown)
            sections.append(Section(f"figure-{part.name}", part.title, page.figure(images, part.caption, "panels")))
    runs, titles = list(loaded.example.values()), list(loaded.example)
    remarks = [*limits_of(runs, titles), *loaded.notes] if runs else loaded.notes
    below = []
    if remarks:
        sections.append(Section("limits", "Limits", page.notes(remarks)))
    if runs:
        sections.append(Section("radio", "Radio", page.table([radio_rows(run) for run in runs], titles, "Arm")))
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
    rows = [
        (title.format(equal=EQUAL_UNITS.get(file.equal or "", "")), key, scale, unit)
        for title, key, scale, unit in _ARM_ROWS
        if any(getattr(arm.mean, key) is not None for arm in file.arms)
    ]
    lines = [
        [
            arm.label,
            *(_spread(getattr(arm.mean, key), getattr(arm.std, key), scale, unit) for _, key, scale, unit in rows),
        ]
        for arm in file.arms
    ]
    return page.grid(["Arm", *(title for title, *_ in rows)], lines, "arms")


def _spread(mean: float | None, std: float | None, scale: float, unit: str) -> str:
    """`86.1 ± 0.8 %`; both with as many digits as the spread deserves."""
    if mean is None:
        return NOT_MEASURED
    if std is None or std == 0:
        return f"{scale * mean:.4g}{unit}"
    digits = _digits(scale * std)
    return f"{scale * mean:.{digits}f} ± {scale * std:.{digits}f}{unit}"


def _digits(std: float) -> int:
    """Decimals that show two figures of a spread."""
    digits = 0
    while digits < 6 and std * 10**digits < 9.5:
        digits += 1
    return digits


def pairs_table(file: ComparisonFile) -> str:
    """One line an arm and metric: difference, interval, p-values, verdicts."""
    head = [
        "Arm",
        "Metric",
        "Seeds",
        "Difference",
        "95 % interval",
        "p (non-inferior)",
        "p (Holm)",
        "Non-inferior",
        "Equivalent",
    ]
    return page.grid(head, [_pair(pair) for pair in file.pairs if pair.arm != file.reference], "arms")


def _pair(pair: Pair) -> list[str]:
    scale, unit = (100.0, " points") if pair.metric == "accuracy" else (1.0, "")
    inside = (
        "one seed" if pair.low is None or pair.high is None else f"{scale * pair.low:+.2f} to {scale * pair.high:+.2f}"
    )
    if pair.metric == "bits_per_byte" and pair.low is not None and pair.high is not None:
        inside = f"{pair.low:+.4f} to {pair.high:+.4f}"
    number = NOT_MEASURED if pair.difference is None else (
        f"{scale * pair.difference:+.2f}{unit}" if pair.metric == "accuracy" else f"{pair.difference:+.4f}"
    )  # fmt: skip
    return [
        pair.arm, pair.metric.replace("_", " "), str(pair.seeds), number, inside,
        _p(pair.p_noninferior), _p(pair.p_holm), _verdict(pair.noninferior), _verdict(pair.equivalent),
    ]  # fmt: skip


def _p(value: float | None) -> str:
    if value is None:
        return "–"
    return "< 0.001" if value < 1e-3 else f"{value:.3f}"


def _verdict(value: bool | None) -> str:
    return "–" if value is None else "yes" if value else "not shown"
