"""The figures of a report: functions from runs to a figure, or None where the runs did not measure it.

One run or several: with several, figures overlay them (colour and dashes per run) or are left out. Each figure carries
a caption, and an alternative text with its main numbers for readers who do not see it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from raysoft.quantities import quantity
from raysoft.report.chart import Chart
from raysoft.report.run import clients, learned, progress, radio, spending
from raysoft.report.run.data import after_base, latency_budget_s, megabytes
from raysoft.report.run.progress import BOUND_TERMS, accuracy_title
from raysoft.rundir.reading import Run


@dataclass(frozen=True)
class Drawing:
    """One kind of figure: the file's short name, heading, caption, and the function that draws it."""

    name: str
    title: str
    caption: str
    draw: Callable[[Sequence[Run]], Chart | None]
    describe: Callable[[Sequence[Run]], str]
    expected: bool = True  # False: many runs have no such number, which is nothing to remark on

    def title_for(self, runs: Sequence[Run]) -> str:
        """The heading; accuracy is called what it is for these runs."""
        return f"{accuracy_title(runs)} and loss" if self.name == "accuracy" else self.title


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


def _each(text: Callable[[Run], str]) -> Callable[[Sequence[Run]], str]:
    return lambda runs: _per_run(runs, text)


DRAWINGS = (
    Drawing(
        "accuracy",
        "Accuracy",
        "Accuracy of the global model on held-out data, and the loss on these and on the clients' own data. Where runs "
        "are compared that spend differently, also against simulated time and what the clients have sent.",
        progress.accuracy,
        _describe_progress("accuracy"),
    ),
    Drawing(
        "bits_per_byte",
        "Bits per byte",
        "Mean code length of held-out text under the global model (lower is better).",
        progress.bits_per_byte,
        _describe_progress("bits_per_byte"),
        expected=False,
    ),
    Drawing(
        "latency",
        "Latency against budget",
        "Simulated latency of the rounds, its running mean, and the long-term budget. The virtual queue adds up what "
        "the rounds took beyond the budget; it presses the allocator to send less.",
        progress.latency,
        _describe_latency,
    ),
    Drawing(
        "timeline",
        "One round, client by client",
        "The round of median length: what each client did until its update had arrived, and how long it then waited "
        "for the others. Of more than 30 clients, 30 evenly spaced ones.",
        spending.timeline,
        _each(spending.describe),
        expected=False,
    ),
    Drawing(
        "split",
        "Where time, energy and bits go",
        "Seconds of an average client in an average round (waiting: until the slowest has arrived), joules of all "
        "devices and bits on the air over the whole run.",
        spending.split,
        _each(spending.describe),
        expected=False,
    ),
    Drawing(
        "clients",
        "Kept fraction and bandwidth by client",
        "Clients from the weakest to the strongest mean channel gain, in up to 20 groups of neighbours; only rounds in "
        "which a client was allowed to send. The line (of up to 20 clients: the dots) is the mean; eight tenths of the "
        "values lie in the band (in the bars).",
        clients.by_client,
        _each(clients.describe),
    ),
    Drawing(
        "served",
        "Who is served",
        "How often each client's update arrived, was held back by the outage rule, or was lost on the way; and how "
        "much of its update a client sends, against its mean channel gain.",
        clients.served,
        _each(clients.describe),
    ),
    Drawing(
        "cell",
        "Where the clients stand",
        "The cell from above, the antenna in the middle: mean channel gain (path loss and shadowing, and the fading of "
        "the rounds in which the client was invited), and how often a client was told not to send.",
        radio.cell,
        _each(radio.describe_cell),
        expected=False,
    ),
    Drawing(
        "snr",
        "Signal-to-noise ratio",
        "Receive SNR of the uploads, noise figure and interference margin included. Narrow shares hear less noise, "
        "which is how weak clients are served; beyond the largest spectral efficiency more SNR gives no more rate.",
        radio.snr,
        _each(radio.describe_snr),
        expected=False,
    ),
    Drawing(
        "labels",
        "Labels by client",
        "Training samples of each client by class; white: none. Of more than 200 clients, 200 evenly spaced ones.",
        learned.labels,
        _each(learned.describe_labels),
        expected=False,
    ),
    Drawing(
        "client_accuracy",
        "Accuracy by client",
        "Accuracy of the final model on each client's own training samples, from the worst client to the best.",
        learned.client_accuracy,
        _each(learned.describe_accuracy),
        expected=False,
    ),
    Drawing(
        "confusion",
        "Confusion matrix",
        "What the final model takes the samples of each class for, on the evaluation split; a row adds up to 100 %, "
        "and shares below half a percent are left blank.",
        learned.confusion,
        _each(learned.describe_confusion),
        expected=False,
    ),
    Drawing(
        "spectrum",
        "Spectrum of the learned update",
        "Singular values of the learned change of each adapted matrix, relative to the largest, and the share of its "
        "energy in the largest of them. A curve that ends far from zero says that a higher rank would be used; one "
        "that falls early, that a lower rank would do.",
        learned.spectrum,
        _each(learned.describe_spectrum),
        expected=False,
    ),
    Drawing(
        "bound",
        "Terms of the convergence bound",
        "What sparsification loses, what averaging the factors separately adds, and how the applied step compares "
        "with the ideal one.",
        progress.bound_terms,
        _describe_bound,
    ),
)
