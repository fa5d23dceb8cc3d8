"""The order of the study's two pages: headings, tables and figures with factual captions. Nothing here reads a run.

docs/study_record.md is the full record; docs/study.md says in two printed pages what was found.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Table:
    """A table of OUT/tables by name."""

    name: str


@dataclass(frozen=True)
class Figure:
    """A figure of OUT/figures by name, with what it shows."""

    name: str
    caption: str


@dataclass(frozen=True)
class Part:
    """A section of the page."""

    title: str
    blocks: tuple[Table | Figure, ...]


@dataclass(frozen=True)
class Page:
    """A file of docs/ and its sections."""

    file: str
    title: str
    parts: tuple[Part, ...]

    def figures(self) -> list[Figure]:
        """Its figures, in their order."""
        return [block for part in self.parts for block in part.blocks if isinstance(block, Figure)]


DIGITS, TEXT = "digits", "python-source"


def _headline(task: str, metric: str, words: str) -> tuple[Table | Figure, ...]:
    name, dashed = f"headline-{task}", metric.replace("_", "-")
    return (
        Table(name),
        Figure(
            f"{name}-difference-{dashed}",
            f"{task}: paired differences to `ideal` in {words} with 95 % intervals; "
            "filled: non-inferior after Holm's adjustment; dashed: the margin.",
        ),
        Table(f"{name}-costs"),
        Figure(f"{name}-{dashed}-seconds", f"{task}: {words} against simulated seconds, mean over seeds."),
        Figure(f"{name}-{dashed}-mb", f"{task}: {words} against uplink megabytes of all clients, mean over seeds."),
        Figure(
            f"{name}-pareto-{dashed}-mb",
            f"{task}: final {words} against the total uplink, mean ± standard deviation; grey: the Pareto front.",
        ),
        Figure(f"{name}-latency-cdf", f"{task}: distribution of the round latency over all seeds; dashed: budgets."),
        Figure(
            f"{name}-kept-by-gain",
            f"{task}: mean kept fraction of clients against their mean channel gain, in "
            "groups of equal size, for the arms in which it differs.",
        ),
        Figure(
            f"{name}-worst10-clients",
            f"{task}: final accuracy of the worst tenth of the clients against that of all, mean ± standard deviation.",
        ),
        Table(f"{name}-time"),
    )


def _frontier(task: str, metric: str, words: str, band: str) -> tuple[Table | Figure, ...]:
    name = f"frontier-{task}"
    return (
        Figure(
            f"{name}-{metric}",
            f"{task}: final {words} against the share of the dense 32-bit uplink (logarithmic, "
            f"falling); bars: range over seeds; band: within {band} of `ideal`. EF: error feedback.",
        ),
    )


def _sweep(task: str, metrics: tuple[tuple[str, str], ...], time: str) -> tuple[Table | Figure, ...]:
    name = f"sweep-{task}"
    out: list[Table | Figure] = [Table(name)]
    for metric, words in metrics:
        out += [
            Figure(
                f"{name}-{metric}", f"{task}: {words} after {time} against the latency budget; bars: range over seeds."
            ),
            Table(f"{name}-gain-{metric}"),
            Figure(
                f"{name}-{metric}-gain",
                f"{task}: TSFA minus the best other allocator at each budget in {words}, "
                "with 95 % intervals of pooled variance; filled: the interval does not hold 0.",
            ),
        ]
    return tuple(out)


def _offline(task: str, metric: str, words: str) -> tuple[Table | Figure, ...]:
    name = f"offline-{task}"
    return (
        Table(name),
        Figure(f"{name}-{metric}-table", f"{task}: final {words} by LoRA rank and latency budget, mean over seeds."),
        Table(f"{name}-regret-{metric}"),
        Figure(
            f"{name}-{metric}",
            f"{task}: score of the offline stage (constants 1) against final {words}, a point a "
            "rank and budget; τ within budget and seed, averaged.",
        ),
    )


def _bound(task: str) -> tuple[Table | Figure, ...]:
    kinds = {
        "methods": "the arms of the headline comparison",
        "allocations": "allocators at each budget",
        "ranks": "ranks at each budget",
        "budgets": "budgets at each rank",
    }
    figures = [
        Figure(
            f"bound-{task}-{kind}",
            f"{task}: mean Ψ of the runs, constants fitted on the other comparisons, against the final metric: {what}.",
        )
        for kind, what in kinds.items()
    ]
    return (Table(f"bound-{task}"), *figures)


def _options(task: str, metric: str, words: str) -> tuple[Table | Figure, ...]:
    name = f"options-{task}"
    return (
        Table(name),
        Figure(
            f"{name}-{metric}",
            f"{task}: paired differences to `soft` in {words} at about a tenth of the dense "
            "32-bit uplink, 95 % intervals of pooled variance; filled: the interval does not hold 0. EF: error "
            "feedback.",
        ),
    )


def _grain(task: str, metric: str, words: str) -> tuple[Table | Figure, ...]:
    name = f"grain-{task}"
    return (
        Table(f"grain-tuning-{task}"),
        Table(name),
        Figure(
            f"{name}-{metric}",
            f"{task}: final {words} against the share of the dense 32-bit uplink, by what is "
            "left out; bars: range over seeds.",
        ),
    )


ACCURACY, BITS = ("accuracy", "accuracy"), ("bits_per_byte", "bits per byte")
OUTLINE = (  # of the record
    Part("Settings", (Table("experiments"),)),
    Part("Digits: all arms against everything sent", _headline(DIGITS, *ACCURACY)),
    Part("Python source: all arms against everything sent", _headline(TEXT, *BITS)),
    Part(
        "How few bits will do",
        (
            *_frontier(DIGITS, *ACCURACY, "0.5 point"),
            Table(f"frontier-{DIGITS}-smallest"),
            *_frontier(TEXT, "accuracy", "next-byte accuracy", "0.5 point"),
            *_frontier(TEXT, *BITS, "2 %"),
            Table(f"frontier-{TEXT}-smallest"),
            Table(f"frontier-{DIGITS}"),
            Table(f"frontier-{TEXT}"),
        ),
    ),
    Part("Allocators under a latency budget", (*_sweep(DIGITS, (ACCURACY,), "12 s"), *_sweep(TEXT, (BITS,), "19.2 s"))),
    Part(
        "The penalty and the queue over V",
        (
            Table("tradeoff-digits-bounded"),
            Figure(
                "tradeoff-digits-bounded",
                "digits, no round above two budgets: mean penalty (above) and mean "
                "virtual queue (below) in the second half of the rounds against V, mean ± standard deviation over "
                "seeds.",
            ),
            Table("tradeoff-digits"),
            Figure(
                "tradeoff-digits",
                "digits, rounds of any length: mean penalty (above) and mean virtual queue "
                "(below) in the second half of the rounds against V, mean ± standard deviation over seeds.",
            ),
        ),
    ),
    Part("The offline stage", (*_offline(DIGITS, *ACCURACY), *_offline(TEXT, *BITS))),
    Part("The bound as a ranking", (*_bound(DIGITS), *_bound(TEXT))),
    Part("Options beyond the paper", (*_options(DIGITS, *ACCURACY), *_options(TEXT, *BITS))),
    Part("The other optimiser", (Table(f"optimizers-{DIGITS}"), Table(f"optimizers-{TEXT}"))),
    Part("What may be left out", (*_grain(DIGITS, *ACCURACY), *_grain(TEXT, *BITS))),
    Part("With a trained head", (Table(f"head-{DIGITS}"),)),
)


def _of_record(name: str) -> Figure:
    (found,) = [one for one in RECORD.figures() if one.name == name]
    return found


RECORD = Page("study_record.md", "The study: the full record", OUTLINE)
FINDINGS = Page(
    "study.md",
    "The study",
    (
        Part("Questions and answers", (Table("findings-answers"),)),
        Part(
            "Against everything sent",
            (Table(f"findings-{DIGITS}"), Table(f"findings-{TEXT}"), _of_record(f"frontier-{TEXT}-accuracy")),
        ),
        Part("The paper's claims", (Table("findings-claims"),)),
    ),
)
PAGES = (FINDINGS, RECORD)
