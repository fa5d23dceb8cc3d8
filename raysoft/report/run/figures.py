"""The figures of a report: functions from runs to a matplotlib figure, or None where the runs did not measure it.

One run or several: with several, every figure overlays them (colour, dashes and marker per run). Each figure carries a
caption, and an alternative text with its main numbers for readers who do not see it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from raysoft.quantities import Quantity, quantity
from raysoft.report import style
from raysoft.report.run.clients import allocation, by_client, describe, served
from raysoft.report.run.data import after_base, latency_budget_s, megabytes, running_mean
from raysoft.report.style import Look, marks_every, new_figure, plain
from raysoft.rundir.reading import Run
from raysoft.rundir.summary import accuracy_name_in
from raysoft.types import Array

# The terms of the bound and their companions, where a round records them: key, title, unit.
BOUND_TERMS = (
    ("sparsification_error", "Sparsification error", "of the update's energy"),
    ("aggregation_covariance", "Aggregation covariance", "of the ideal energy"),
    ("metrics.cross_term_share", "Cross terms", "share of the energy"),
    ("metrics.applied_ratio", "Applied step length", "ideal = 1"),
    ("metrics.applied_cosine", "Applied step direction", "cosine to the ideal"),
    ("metrics.components_never_sent", "Components never sent", "share of all"),
    ("metrics.selection_entropy", "Entropy of selection", "uniform = 1"),
    ("metrics.penalty", "Allocation penalty", "dimensionless"),
)


@dataclass(frozen=True)
class Drawing:
    """One kind of figure: the file's short name, heading, caption, and the function that draws it."""

    name: str
    title: str
    caption: str
    draw: Callable[[Sequence[Run]], Figure | None]
    describe: Callable[[Sequence[Run]], str]
    expected: bool = True  # False: many runs have no such number, which is nothing to remark on

    def title_for(self, runs: Sequence[Run]) -> str:
        """The heading; accuracy is called what it is for these runs."""
        return accuracy_title(runs) if self.name == "accuracy" else self.title


def accuracy(runs: Sequence[Run]) -> Figure | None:
    """Accuracy in percent against round, simulated seconds and uplink megabytes."""
    of = quantity("accuracy")
    return _progress(runs, of, f"{accuracy_title(runs)} ({of.unit})")


def accuracy_title(runs: Sequence[Run]) -> str:
    """What their accuracy is called; the runs of one figure share their task."""
    return accuracy_name_in(runs[0].config).capitalize()


def bits_per_byte(runs: Sequence[Run]) -> Figure | None:
    """Bits per byte of held-out text against the same three axes."""
    of = quantity("bits_per_byte")
    return _progress(runs, of, of.heading())


def _progress(runs: Sequence[Run], of: Quantity, label: str) -> Figure | None:
    key, factor = of.record_key, of.factor
    if not any(np.isfinite(run.column(key)).any() for run in runs):
        return None
    figure, axes = new_figure(2.5 + _legend_height(runs), 1, 3, sharey=True)
    for number, run in enumerate(runs):
        y = run.column(key) * factor
        ok = np.isfinite(y)
        for ax, x in zip(axes, (run.column("round"), run.column("simulated_time_s"), megabytes(run)), strict=True):
            _line(ax, x[ok], y[ok], number, run.name)
        if len(runs) == 1 and ok[0] and len(y) > 1:
            for ax in axes:
                ax.axhline(y[0], color=style.GREY, linestyle=(0, (1, 2)), linewidth=1.0)
            axes[0].annotate(
                "before fine-tuning",
                (1.0, y[0]),
                xycoords=("axes fraction", "data"),
                xytext=(-2, 3),
                textcoords="offset points",
                fontsize=8,
                color=style.GREY,
                ha="right",
            )
    for ax, axis in zip(axes, ("round", "simulated_s", "uplink_mb"), strict=True):
        ax.set_xlabel(quantity(axis).heading())
        ax.xaxis.set_major_locator(MaxNLocator(5, integer=axis == "round"))
        ax.margins(y=0.08)
    axes[0].set_ylabel(label)
    _legend(figure, axes[0], runs)
    return figure


def latency(runs: Sequence[Run]) -> Figure | None:
    """Latency of each round and its running mean against the budget, and the virtual queue below."""
    if not any(_has(run, "round_latency_s") for run in runs):
        return None
    queue = any(np.isfinite(run.column("queue_s")[after_base(run)]).any() for run in runs)
    figure, axes = new_figure(
        (3.9 if queue else 2.6) + _legend_height(runs),
        2 if queue else 1,
        1,
        sharex=True,
        height_ratios=(3, 2) if queue else None,
    )
    for number, run in enumerate(runs):
        keep = after_base(run)
        rounds, seconds = run.column("round")[keep], run.column("round_latency_s")[keep]
        if not len(rounds):
            continue
        look = Look.of(number)
        if len(runs) == 1:
            axes[0].plot(
                rounds,
                seconds,
                linestyle="none",
                marker="o",
                markersize=2.8,
                markerfacecolor="white",
                markeredgecolor=style.GREY,
                markeredgewidth=0.8,
                label="each round",
            )
        _line(axes[0], rounds, running_mean(seconds), number, "running mean" if len(runs) == 1 else run.name)
        if queue:
            axes[1].plot(
                rounds, run.column("queue_s")[keep], color=look.colour, linestyle=look.line, drawstyle="steps-post"
            )
    _budgets(axes[0], runs)
    axes[0].set_ylabel("Round latency (s)" if len(runs) == 1 else "Running mean of\nround latency (s)")
    axes[0].margins(y=0.12)
    style.log_if_spread(axes[0], np.concatenate([run.column("round_latency_s")[after_base(run)] for run in runs]))
    if queue:
        axes[1].set_ylabel("Virtual queue (s)")
        axes[1].set_ylim(bottom=0)
    axes[-1].set_xlabel("Round")
    axes[-1].xaxis.set_major_locator(MaxNLocator(8, integer=True))
    _legend(figure, axes[0], runs, always=True)
    return figure


def _budgets(ax: Axes, runs: Sequence[Run]) -> None:
    budgets = sorted({budget for run in runs if (budget := latency_budget_s(run)) is not None})
    for number, budget in enumerate(budgets[:4]):
        label = "latency budget" if number == 0 else None
        ax.axhline(budget, color=style.BLACK, linestyle=(0, (6, 3)), linewidth=1.2, label=label)


def bound_terms(runs: Sequence[Run]) -> Figure | None:
    """The measured terms of the convergence bound and their companions, one small panel each."""
    terms = [term for term in BOUND_TERMS if any(_has(run, term[0]) for run in runs)]
    if not terms:
        return None
    columns = min(len(terms), 4)
    rows = -(-len(terms) // columns)
    figure, axes = new_figure(0.3 + 1.8 * rows + _legend_height(runs), rows, columns, sharex=True)
    for ax, (key, title, unit) in zip(axes, terms, strict=False):
        low, high = np.inf, 0.0
        for number, run in enumerate(runs):
            keep = after_base(run) & np.isfinite(run.column(key))
            values = run.column(key)[keep]
            _line(ax, run.column("round")[keep], values, number, run.name)
            low, high = min([low, *values]), max([high, *values])
        if low > 0 and high / low > 30:
            ax.set_yscale("log")
        elif low >= 0:
            ax.set_ylim(0, 1.1 * high or 1.0)
        ax.set_title(f"{title}\n({unit})", loc="left")
        ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    for ax in axes[len(terms) :]:
        ax.set_visible(False)
    for ax in axes[max(0, len(terms) - columns) : len(terms)]:
        ax.set_xlabel("Round")
        ax.tick_params(labelbottom=True)
    _legend(figure, axes[0], runs)
    return figure


# ---------------------------------------------------------------------------------------------------------- helpers


def _has(run: Run, key: str) -> bool:
    """Whether the run measured this after line 0."""
    return bool(np.isfinite(run.column(key)[after_base(run)]).any())


def _line(ax: Axes, x: Array, y: Array, number: int, label: str) -> None:
    look = Look.of(number)
    ax.plot(
        x,
        y,
        color=look.colour,
        linestyle=look.line,
        marker=look.marker,
        markevery=marks_every(len(x), number),
        label=plain(label),
    )


def _legend_height(runs: Sequence[Run]) -> float:
    return style.legend_height([run.name for run in runs])


def _legend(figure: Figure, ax: Axes, runs: Sequence[Run], always: bool = False) -> None:
    """The names of the runs above the panels; nothing for a single run unless `always`."""
    if len(runs) > 1 or always:
        style.legend_above(figure, ax)


# --------------------------------------------------------------------------------------------- alternative texts


def _per_run(runs: Sequence[Run], text: Callable[[Run], str]) -> str:
    return " ".join(f"{run.name}: {text(run)}" for run in runs)


def _describe_progress(metric: str) -> Callable[[Sequence[Run]], str]:
    of = quantity(metric)

    def describe(runs: Sequence[Run]) -> str:
        def one(run: Run) -> str:
            y = run.column(of.record_key)
            ok = np.flatnonzero(np.isfinite(y))
            if not len(ok):
                return "not measured."
            first, last = (of.text(y[at]) + of.suffix for at in (ok[0], ok[-1]))
            return (
                f"from {first} to {last} at the last evaluation, after {run.column('round')[ok[-1]]:.0f} rounds, "
                f"{run.column('simulated_time_s')[ok[-1]]:.3g} simulated seconds and {megabytes(run)[ok[-1]]:.3g} MB."
            )

        return _per_run(runs, one)

    return describe


def _describe_latency(runs: Sequence[Run]) -> str:
    def one(run: Run) -> str:
        seconds = run.column("round_latency_s")[after_base(run)]
        if not len(seconds):
            return "no rounds."
        budget = latency_budget_s(run)
        against = f"budget {budget:.4g} s" if budget is not None else "no budget"
        return f"mean round latency {seconds.mean():.4g} s, largest {seconds.max():.4g} s, {against}."

    return _per_run(runs, one)


def _describe_bound(runs: Sequence[Run]) -> str:
    def one(run: Run) -> str:
        parts = []
        for key, title, _ in BOUND_TERMS:
            values = run.column(key)[after_base(run)]
            values = values[np.isfinite(values)]
            if len(values):
                parts.append(f"{title.lower()} {values[0]:.3g} to {values[-1]:.3g}")
        return "; ".join(parts) + "." if parts else "not measured."

    return _per_run(runs, one)


def _describe_clients(runs: Sequence[Run]) -> str:
    return _per_run(runs, describe)


DRAWINGS = (
    Drawing(
        "accuracy",
        "Accuracy",
        "Accuracy of the global model on held-out data against the round, the simulated time, and what the clients "
        "have sent.",
        accuracy,
        _describe_progress("accuracy"),
    ),
    Drawing(
        "bits_per_byte",
        "Bits per byte",
        "Mean code length of held-out text under the global model (lower is better).",
        bits_per_byte,
        _describe_progress("bits_per_byte"),
        expected=False,
    ),
    Drawing(
        "latency",
        "Latency against budget",
        "Simulated latency of the rounds, its running mean, and the long-term budget. The virtual queue adds up what "
        "the rounds took beyond the budget; it presses the allocator to send less.",
        latency,
        _describe_latency,
    ),
    Drawing(
        "clients",
        "Kept fraction and bandwidth by client",
        "Clients from the weakest to the strongest mean channel gain; only rounds in which a client was allowed to "
        "send. Dots are means, lines span the smallest to the largest value (averaged over groups of clients where "
        "there are more than 100).",
        by_client,
        _describe_clients,
    ),
    Drawing(
        "allocation",
        "Kept fraction and bandwidth by round",
        "Each column is a round, each row a place in the order of the cohort's channel gains in that round. White: "
        "told not to send.",
        allocation,
        _describe_clients,
    ),
    Drawing(
        "bound",
        "Terms of the convergence bound",
        "What sparsification loses, what averaging the factors separately adds, and how the applied step compares "
        "with the ideal one.",
        bound_terms,
        _describe_bound,
    ),
    Drawing(
        "served",
        "Who is served",
        "How often each client's update arrived, was held back by the outage rule, or was lost on the way; and how "
        "much of its update a client sends, against its mean channel gain.",
        served,
        _describe_clients,
    ),
)
