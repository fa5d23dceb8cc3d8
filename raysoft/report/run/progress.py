"""Figures over the rounds of one run or several: what was learned, how long a round took, the terms of the bound."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from raysoft.quantities import Quantity, quantity
from raysoft.report import style
from raysoft.report.chart import Chart, line, note
from raysoft.report.run.data import after_base, latency_budget_s, megabytes, running_mean
from raysoft.report.style import Look, panels, plain
from raysoft.rundir.reading import Run
from raysoft.rundir.summary import accuracy_name_in
from raysoft.types import Array

# The terms of the bound and their companions, where a round records them: key, title, unit.
BOUND_TERMS = (
    ("sparsification_error", "Sparsification error", "of the update's energy"),
    ("aggregation_covariance", "Aggregation covariance", "of the ideal energy"),
    ("metrics.cross_term_share", "Cross terms", "share of the energy"),
    ("metrics.applied_ratio", "Applied step length", "ideal = 1"),
    ("metrics.applied_cosine", "Applied direction", "cosine to the ideal"),
    ("metrics.components_never_sent", "Components never sent", "share of all"),
    ("metrics.selection_entropy", "Entropy of selection", "uniform = 1"),
    ("metrics.penalty", "Allocation penalty", "dimensionless"),
)
ALIKE = 1.1  # costs a round that differ less than this between runs make the same picture as the rounds


def accuracy(runs: Sequence[Run]) -> Chart | None:
    """Accuracy in percent and beside it the loss; of several runs also against seconds and megabytes if they differ."""
    of = quantity("accuracy")
    return _progress(runs, of, f"{accuracy_title(runs)} ({of.unit})", loss=True)


def accuracy_title(runs: Sequence[Run]) -> str:
    """What their accuracy is called; the runs of one figure share their task."""
    return accuracy_name_in(runs[0].config).capitalize()


def bits_per_byte(runs: Sequence[Run]) -> Chart | None:
    """Bits per byte of held-out text against the same axes."""
    of = quantity("bits_per_byte")
    return _progress(runs, of, of.heading(), loss=False)


def _progress(runs: Sequence[Run], of: Quantity, label: str, loss: bool) -> Chart | None:
    if not any(np.isfinite(run.column(of.record_key)).any() for run in runs):
        return None
    single = len(runs) == 1
    axis_names = [name for name in ("round", "simulated_s", "uplink_mb") if name == "round" or _tells(runs, name)]
    loss = loss and any(np.isfinite(run.column("loss")).any() for run in runs)
    count = len(axis_names) + loss
    figure, axes = panels(count, 2.35, 2 if count == 4 else 3, extra_in=_legend_height(runs))
    for ax, name in zip(axes, axis_names, strict=False):
        ax.set(xlabel=_round_label(runs[0]) if single else quantity(name).heading(), ylabel=label)
        for number, run in enumerate(runs):
            y = run.column(of.record_key) * of.factor
            ok = np.isfinite(y)
            _line(ax, _spent(run, name)[ok], y[ok], number, len(runs), run.name, steps=name != "round")
        ax.xaxis.set_major_locator(MaxNLocator(5, integer=name == "round"))
        ax.margins(y=0.08)
        ax.sharey(axes[0]) if ax is not axes[0] else None
    if single:
        _base_level(axes[0], runs[0].column(of.record_key) * of.factor)
    if loss:
        _losses(axes[len(axis_names)], runs)
    _legend(figure, axes[0], runs)
    return figure


def _spent(run: Run, name: str) -> Array:
    if name == "uplink_mb":
        return megabytes(run)
    return run.column("round" if name == "round" else "simulated_time_s")


def _tells(runs: Sequence[Run], name: str) -> bool:
    """Whether the runs spend differently: else the axis is the rounds in another unit."""
    rates = [_spent(run, name)[-1] / run.column("round")[-1] for run in runs if run.column("round")[-1] > 0]
    return len(rates) > 1 and min(rates) >= 0 and max(rates) > ALIKE * min(rates)


def _round_label(run: Run) -> str:
    """The axis of rounds of one run, which says what one costs."""
    rounds = run.column("round")[-1]
    if rounds < 1:
        return "Round"
    seconds, mb = (_spent(run, name)[-1] / rounds for name in ("simulated_s", "uplink_mb"))
    return f"Round (mean: {seconds:.3g} s, {mb:.3g} MB up)"


def _base_level(ax: Axes, y: Array) -> None:
    if len(y) < 2 or not np.isfinite(y[0]):
        return
    ax.axhline(y[0], color=style.GREY, linestyle=(0, (1, 2)), linewidth=1.0)
    note(ax, "before fine-tuning", [0], [y[0]])
    ax.annotate(
        "before fine-tuning",
        (1.0, y[0]),
        xycoords=("axes fraction", "data"),
        xytext=(-2, 3),
        textcoords="offset points",
        fontsize=style.SMALL_PT,
        color=style.GREY,
        ha="right",
    )


def _losses(ax: Axes, runs: Sequence[Run]) -> None:
    """Held-out and training loss of one run; of several the held-out loss alone."""
    ax.set(xlabel="Round", ylabel="Loss (nats)")
    for number, run in enumerate(runs):
        rounds, held = run.column("round"), run.column("loss")
        ok = np.isfinite(held)
        if len(runs) > 1:
            _line(ax, rounds[ok], held[ok], number, len(runs), run.name)
            continue
        trained = run.column("train_loss")
        fine = np.isfinite(trained)
        first, second = Look.of(0), Look.of(1)
        line(ax, "held-out", rounds[ok], held[ok], label="held-out", **first.line_style(int(ok.sum())))
        line(ax, "training", rounds[fine], trained[fine], label="training", **second.line_style(int(fine.sum())))
        ax.legend(loc="best")
    ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    ax.margins(y=0.08)


def latency(runs: Sequence[Run]) -> Chart | None:
    """Latency of each round and its running mean against the budget, and the virtual queue below."""
    if not any(_has(run, "round_latency_s") for run in runs):
        return None
    queue = any(np.isfinite(run.column("queue_s")[after_base(run)]).any() for run in runs)
    names = [run.name for run in runs] if len(runs) > 1 else ["each round", "running mean", "latency budget"]
    figure, axes = style.new_figure(
        (3.6 if queue else 2.4) + style.legend_height(names),
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
        look = Look.of(number, len(runs))
        if len(runs) == 1:
            line(
                axes[0],
                "each round",
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
        mean = running_mean(seconds)
        name = "running mean" if len(runs) == 1 else run.name
        line(axes[0], name, rounds, mean, color=look.colour, linestyle=look.line, label=plain(name))
        if queue:
            waiting = run.column("queue_s")[keep]
            styled = {"color": look.colour, "linestyle": look.line, "drawstyle": "steps-post"}
            line(axes[1], run.name, rounds, waiting, **styled)
    _budgets(axes[0], runs)
    axes[0].set_ylabel("Round latency (s)" if len(runs) == 1 else "Running mean of\nround latency (s)")
    axes[0].margins(y=0.12)
    style.log_if_spread(axes[0], np.concatenate([run.column("round_latency_s")[after_base(run)] for run in runs]))
    if queue:
        axes[1].set_ylabel("Virtual queue (s)")
        axes[1].set_ylim(bottom=0)
    axes[-1].set_xlabel("Round")
    axes[-1].xaxis.set_major_locator(MaxNLocator(8, integer=True))
    style.legend_above(figure, axes[0])
    return figure


def _budgets(ax: Axes, runs: Sequence[Run]) -> None:
    budgets = sorted({budget for run in runs if (budget := latency_budget_s(run)) is not None})
    for number, budget in enumerate(budgets[:4]):
        label = "latency budget" if number == 0 else None
        ax.axhline(budget, color=style.BLACK, linestyle=(0, (6, 3)), linewidth=1.2, label=label)
        note(ax, "latency budget", [1], [budget])


def bound_terms(runs: Sequence[Run]) -> Chart | None:
    """The measured terms of the convergence bound and their companions, one small panel each."""
    terms = [term for term in BOUND_TERMS if any(_has(run, term[0]) for run in runs)]
    if not terms:
        return None
    figure, axes = panels(
        len(terms),
        1.65 if style.is_column() else 1.75,
        min(len(terms), 4),
        extra_in=0.2 + _legend_height(runs),
        most_in_column=2,
        sharex=True,
    )
    across = axes[0].get_gridspec().ncols  # type: ignore[union-attr]
    most = 17 if style.is_column() else 23  # characters of a line above a panel
    for ax, (key, title, unit) in zip(axes, terms, strict=True):
        low, high = np.inf, 0.0
        for number, run in enumerate(runs):
            keep = after_base(run) & np.isfinite(run.column(key))
            values = run.column(key)[keep]
            _line(ax, run.column("round")[keep], values, number, len(runs), run.name)
            low, high = min([low, *values]), max([high, *values])
        if low > 0 and high / low > 30:
            ax.set_yscale("log")
        elif low >= 0:
            ax.set_ylim(0, 1.1 * high or 1.0)
        ax.set_title(
            f"{style.wrapped(title, most)}\n{style.wrapped(f'({unit})', most)}", loc="left", fontsize=style.SMALL_PT
        )
        ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    for ax in axes[max(0, len(terms) - across) :]:
        ax.set_xlabel("Round")
        ax.tick_params(labelbottom=True)
    _legend(figure, axes[0], runs)
    return figure


def _has(run: Run, key: str) -> bool:
    """Whether the run measured this after line 0."""
    return bool(np.isfinite(run.column(key)[after_base(run)]).any())


def _line(ax: Axes, x: Array, y: Array, number: int, count: int, label: str, steps: bool = False) -> None:
    """`steps`: against a cost, where a model holds until it is evaluated again."""
    drawn = "steps-post" if steps else "default"
    line(ax, label, x, y, label=plain(label), drawstyle=drawn, **Look.of(number, count).line_style(len(x)))


def _legend_height(runs: Sequence[Run]) -> float:
    return style.legend_height([run.name for run in runs])


def _legend(figure: Chart, ax: Axes, runs: Sequence[Run]) -> None:
    """The names of the runs above the panels; nothing for a single run."""
    if len(runs) > 1:
        style.legend_above(figure, ax)
