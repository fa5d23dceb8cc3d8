"""Captions of a comparison's figures: what is seen, in words with the numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from raysoft.quantities import number, quantity
from raysoft.report.comparison.data import MeanCurve, Trace, pareto_front
from raysoft.report.comparison.figures import Point
from raysoft.report.comparison.file import ComparisonFile, Pair
from raysoft.report.row_figures import Sample
from raysoft.report.style import COLOURS
from raysoft.rundir.summary import FINAL_EVALUATIONS, window_words

EQUAL_UNITS = {"bits": "uplink bits", "seconds": "simulated seconds", "joules": "joules"}
MOST_NAMED = 6


def listed(items: Sequence[str]) -> str:
    """Items in a sentence; of many, the first and how many more there are."""
    if len(items) > MOST_NAMED + 1:
        return ", ".join(items[:MOST_NAMED]) + f" and {len(items) - MOST_NAMED} more"
    return " and ".join([", ".join(items[:-1]), items[-1]] if len(items) > 1 else items)


def plural(count: int, noun: str) -> str:
    """`1 seed`, `2 seeds`."""
    return f"{count} {noun}" + ("" if count == 1 else "s")


def progress(lines: Sequence[MeanCurve], metric: str, apart: bool = False) -> str:
    """First panel's lines: from where to where, and how many seeds the bands are over.

    `apart`: in some panel the seeds of an arm end at different costs.
    """
    of = quantity(metric)
    text = f"{of.label} {'of held-out text' if of.text_task else 'on held-out data'}"
    seeds = sorted({line.seeds for line in lines})
    spread = "one seed, so no spread is drawn"
    if seeds[-1] > 1:
        count = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
        spread = f"mean over {count} seeds, bands are ± one standard deviation"
    better = " (lower is better)" if of.lower_is_better else ""
    order = sorted(lines, key=lambda line: line.mean_P[-1], reverse=not of.lower_is_better)
    ends = [f"{line.label} {number(line.mean_P[-1], 1.0, of.digits)}{of.suffix}" for line in order]
    if len(lines) > len(COLOURS):
        spread += "; a panel an arm, the others in grey behind it"
    return (
        f"{text}{better} against the round and against what was spent until then; {spread}. A model holds until the "
        "next evaluation, and a line ends where the first of its seeds ends"
        + ("; the mark with a bar is the mean of where they all end. " if apart else ". ")
        + "At the last evaluation alone (the tables "
        f"have means of the last {FINAL_EVALUATIONS}): {listed(ends)}."
    )


def differences(file: ComparisonFile, pairs: Sequence[Pair], margin: float | None) -> str:
    """Which arms are shown to be non-inferior, which are not."""
    text = (
        f"Difference of each arm to {file.reference}, seed by seed, with its 95 % t-interval where there are two seeds "
    )
    text += "or more. Filled dots: shown to be non-inferior (at 5 %, after Holm) at the margin"
    text += "" if margin is None else f" of {margin:.3g}" + _points(pairs[0].metric, margin)
    if file.equal is not None:
        text += f"; every arm is read at equal {EQUAL_UNITS[file.equal]}"
    good = [pair.arm for pair in pairs if pair.noninferior]
    open_ = [pair.arm for pair in pairs if pair.noninferior is False]
    unknown = [pair.arm for pair in pairs if pair.noninferior is None]
    text += ". "
    if good:
        text += f"Non-inferior: {listed(good)}. "
    if open_:
        text += f"Not shown: {listed(open_)}. "
    if unknown:
        text += f"Too few seeds to test: {listed(unknown)}. "
    return text.strip()


def difference_in(metric: str) -> str:
    """What two arms differ in: `accuracy (points)`."""
    of = quantity(metric)
    return f"{of.label.lower()} ({of.difference_unit()})" if of.unit else of.label.lower()


def _points(metric: str, value: float) -> str:
    return "" if quantity(metric).unit != "%" else " point" if value == 1 else " points"


def fronts(points_by_cost: Mapping[str, Sequence[Point]], metric: str) -> str:
    """Which arms are on each front."""
    lower = quantity(metric).lower_is_better
    text = (
        "Mean over seeds, bars are ± one standard deviation; the step line is the Pareto front: no arm is both cheaper "
    )
    text += "and better than one on it. On the front: "
    parts = []
    for cost, points in points_by_cost.items():
        front = [points[i] for i in pareto_front([p.x for p in points], [p.y for p in points], lower)]
        parts.append(f"by {cost[0].lower()}{cost[1:]}: {listed([f'{p.label} ({p.x:.3g}, {p.y:.3g})' for p in front])}")
    return text + "; ".join(parts) + "."


def reach(file: ComparisonFile) -> str:
    """How long the fastest and the reference took to the hardest target, and who never reached it."""
    targets = list(dict.fromkeys(row.target for row in file.time_to))
    hardest = targets[-1]
    rows = [row for row in file.time_to if row.target == hardest]
    reached = sorted((row for row in rows if row.seconds is not None), key=lambda row: row.seconds or 0.0)
    text = (
        f"What each arm spent until it reached {listed(targets)} of the gain of {file.reference} over the base; arms "
        "in the order of the hardest target, missing marks were never reached. "
        f"{window_words(file.fewest_evaluations)} "
    )
    if reached:
        ends = [
            f"{row.arm} {row.seconds:.3g} s" + (f" and {row.mb:.3g} MB" if row.mb is not None else "")
            for row in reached
        ]
        text += f"To {hardest}: {listed(ends)}. "
    never = [row.arm for row in rows if row.seconds is None]
    partly = {arm.label: len(arm.runs) for arm in file.arms}
    some = [
        f"{row.arm} ({row.seeds_reached} of {partly[row.arm]})"
        for row in reached
        if row.seeds_reached < partly[row.arm]
    ]
    if some:
        text += f"Reached by some seeds only, mean over those: {listed(some)}. "
    if never:
        text += f"Never reached {hardest}: {listed(never)}. "
    return text.strip()


def latencies(traces: Mapping[str, Sequence[Trace]], budgets: Sequence[float]) -> str:
    """Median, mean and 95th percentile of each arm against the budgets."""
    text = "Share of the rounds of all seeds that took at most this long. "
    if budgets:
        text += f"Dashed: latency budget of {listed([f'{b:g} s' for b in budgets])}, which binds the mean over rounds. "
    rows = []
    for label, seeds in traces.items():
        values = np.concatenate([item.latency_s_R for item in seeds]) if seeds else np.empty(0)
        if len(values):
            late = np.quantile(values, 0.95)
            rows.append(f"{label} {np.median(values):.3g} s (mean {values.mean():.3g}, 95th percentile {late:.3g})")
    return text + f"Median: {listed(rows)}."


def recovered(file: ComparisonFile, samples: Sequence[Sample]) -> str:
    """Mean and range of the recovered gap of each arm."""
    text = (
        f"Share of the gain of {file.reference} over the base that an arm reaches; a circle is a seed, a bar the mean, "
        f"the grey line {file.reference} itself (100 %). "
    )
    order = sorted((s for s in samples if len(s.values)), key=lambda s: -float(np.mean(s.values)))
    rows = [f"{s.label} {np.mean(s.values):.3g} % ({min(s.values):.3g} to {max(s.values):.3g})" for s in order]
    return text + f"Mean (range): {listed(rows)}."


def fairness(points: Sequence[Point]) -> str:
    """How far the worst tenth lies below the mean."""
    rows = [f"{p.label} {p.y:.3g} % against {p.x:.3g} %" for p in sorted(points, key=lambda p: -p.y)]
    return (
        "Mean accuracy over the worst tenth of the clients (on their own training samples) against the accuracy on "
        f"held-out data; bars are ± one standard deviation over seeds. {listed(rows)}."
    )


def kept(lines: Sequence[MeanCurve]) -> str:
    """Kept fraction of the weakest and strongest group of each arm."""
    rows = [f"{line.label} from {line.mean_P[0]:.2g} to {line.mean_P[-1]:.2g}" for line in lines]
    return (
        "Mean kept fraction of each client (a dot; of all seeds) against its mean channel gain, in the rounds in which "
        "it was allowed to send; of many clients also the mean of groups of equal size. From the weakest to the "
        f"strongest group: {listed(rows)}."
    )
