"""Figures of the data and of what was made of it: labels, accuracy by client, confusion, spectrum of the update."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from raysoft.report import style
from raysoft.report.chart import Chart, line, note
from raysoft.report.run.progress import accuracy_title
from raysoft.report.style import Look, plain, wrapped
from raysoft.rundir.reading import Run
from raysoft.types import Array

MOST_CLIENTS = 200  # of more, as many are shown, evenly spaced in the order of the figure
MOST_NUMBERS = 12  # classes of a confusion matrix with its numbers written in


def labels(runs: Sequence[Run]) -> Chart | None:
    """How many training samples of each class a client holds: a column a client, sorted by its commonest class."""
    found = label_counts(runs[0]) if len(runs) == 1 else None
    if found is None:
        return None
    ids, classes, counts_KC = found
    order = client_order(counts_KC)
    if len(order) > MOST_CLIENTS:
        order = order[np.linspace(0, len(order) - 1, MOST_CLIENTS).round().astype(int)]
    cells = counts_KC[order].T
    ratios = (1, max(2.0, 0.16 * len(classes) / 0.5))
    figure, axes = style.new_figure(0.95 + 0.5 + 0.16 * max(len(classes), 5), 2, 1, sharex=True, height_ratios=ratios)
    places = np.arange(len(order))
    names = [f"client {number}" for number in ids[order].tolist()]
    axes[0].bar(places, cells.sum(axis=0), width=1.0, color=style.BLUE)
    axes[0].set_ylabel("Samples")
    note(axes[0], "samples", names, cells.sum(axis=0), x_name="client")
    axes[0].grid(visible=False, axis="x")
    axes[0].yaxis.set_major_locator(MaxNLocator(2, integer=True))
    image = axes[1].imshow(cells, aspect="auto", cmap=style.COUNT_MAP, interpolation="nearest", vmin=0)
    for name, row in zip(classes, cells, strict=True):
        note(
            axes[1], name, names, [name] * len(names), x_name="client", y_name="class", value_name="samples", value=row
        )
    axes[1].set_yticks(range(len(classes)), [wrapped(name, 16) for name in classes])
    axes[1].set(xlabel="Clients, by their commonest class", ylabel="Class")
    axes[1].set_xticks([])
    axes[1].tick_params(length=0)
    axes[1].grid(visible=False)
    bar = figure.colorbar(image, ax=axes, pad=0.02, aspect=30)
    bar.set_label("Samples of the class")
    bar.outline.set_visible(False)
    bar.ax.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    return figure


def client_order(counts_KC: Array) -> Array:
    """Clients by their commonest class, within it by the share that it has."""
    share = counts_KC.max(axis=1) / np.maximum(counts_KC.sum(axis=1), 1)
    return np.lexsort((np.arange(len(counts_KC)), -share, counts_KC.argmax(axis=1)))


def client_accuracy(runs: Sequence[Run]) -> Chart | None:
    """Accuracy of the final model on each client's own samples, from the worst client to the best."""
    found = [(n, run, values) for n, run in enumerate(runs) if (values := accuracies(run)) is not None]
    if not found:
        return None
    names = [run.name for _, run, _ in found] if len(runs) > 1 else []
    figure, (ax,) = style.new_figure(2.3 + style.legend_height(names))
    ax.set(xlabel="Clients, worst to best (%)", ylabel=f"{accuracy_title(runs)} on\nown samples (%)")
    for number, run, values in found:
        y = 100 * np.sort(values)
        x = (np.arange(len(y)) + 0.5) / len(y) * 100
        look = Look.of(number, len(runs))
        line(ax, run.name, x, y, label=plain(run.name), **look.line_style(len(y)))
        if len(runs) > 1:
            continue
        worst = y[: -(-len(y) // 10)]
        # Below their levels and to the right, where the sorted values lie above.
        for name, level, x_text in (("mean", y.mean(), 98.0), ("worst tenth", worst.mean(), 60.0)):
            ax.axhline(level, color=style.GREY, linewidth=1.0, linestyle=(0, (1, 2)))
            note(ax, name, [0.0], [float(level)])
            ax.annotate(
                f"{name} {level:.1f} %", (x_text, level), xytext=(0, -3), textcoords="offset points", color=style.GREY,
                fontsize=style.SMALL_PT, ha="right", va="top",
            )  # fmt: skip
    ax.set_xlim(0, 100)
    ax.margins(y=0.1)
    if len(found) > 1:
        style.legend_above(figure, ax)
    return figure


def confusion(runs: Sequence[Run]) -> Chart | None:
    """What share of each class is taken for which, on the evaluation split; the numbers are written in if they fit."""
    found = confusion_counts(runs[0]) if len(runs) == 1 else None
    if found is None:
        return None
    classes, counts_CC = found
    share_CC = 100 * counts_CC / np.maximum(counts_CC.sum(axis=1, keepdims=True), 1)
    written = len(classes) <= MOST_NUMBERS
    cell_in = 0.245 if written else 0.14
    figure, (ax,) = style.new_figure(0.75 + cell_in * max(len(classes), 6), width=style.COLUMN_IN)
    image = ax.imshow(share_CC, cmap=style.COUNT_MAP, vmin=0, vmax=100, aspect="auto", interpolation="nearest")
    for row, name in enumerate(classes):
        note(
            ax, f"of {int(counts_CC[row].sum())} samples", classes, [name] * len(classes), x_name="predicted class",
            y_name="true class", value_name="share of the true class (%)", value=share_CC[row],
        )  # fmt: skip
        for column in range(len(classes) if written else 0):
            share = share_CC[row, column]
            if share >= 0.5:
                ink = "white" if share > 60 else "black"
                ax.text(column, row, f"{share:.0f}", ha="center", va="center", fontsize=style.SMALL_PT, color=ink)
    ticks = [wrapped(name, 12) for name in classes]
    turned = max(len(name) for name in classes) > 2
    ax.set_xticks(range(len(classes)), ticks, rotation=90 if turned else 0)
    ax.set_yticks(range(len(classes)), ticks)
    ax.set(xlabel="Predicted class", ylabel="True class")
    ax.tick_params(length=0)
    ax.grid(visible=False)
    ax.spines[:].set_visible(False)
    bar = figure.colorbar(image, ax=ax, pad=0.02)
    bar.set_label("Share of the true class (%)")
    bar.outline.set_visible(False)
    return figure


def spectrum(runs: Sequence[Run]) -> Chart | None:
    """Singular values of the learned update, module by module, and how much of its energy the largest ones have."""
    found = [(n, run, values) for n, run in enumerate(runs) if (values := singular_values(run)) is not None]
    if not found:
        return None
    names = [run.name for _, run, _ in found] if len(runs) > 1 else ["one module", "median of the modules"]
    figure, axes = style.panels(2, 2.3, 2, extra_in=style.legend_height(names))
    axes[0].set(xlabel="Singular value", ylabel="Relative to the largest")
    axes[1].set(xlabel="Singular values kept", ylabel="Energy of the update (%)")
    for number, run, by_module in found:
        relative, energy = _scaled(by_module)
        for ax, values in zip(axes, (relative, energy), strict=True):
            _module_lines(ax, values, run, number, len(runs))
    axes[0].set_ylim(0, 1.05)
    axes[1].set_ylim(0, 104)
    for ax in axes:
        ax.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    style.legend_above(figure, axes[0])
    return figure


def _scaled(by_module: Mapping[str, Array]) -> tuple[dict[str, Array], dict[str, Array]]:
    """Relative to the largest, and the running share of the energy in percent; modules that did not move left out."""
    moved = {name: values for name, values in by_module.items() if values[0] > 0}
    relative = {name: values / values[0] for name, values in moved.items()}
    return relative, {name: 100 * np.cumsum(v**2) / np.sum(v**2) for name, v in moved.items()}


def _module_lines(ax: Axes, values: Mapping[str, Array], run: Run, number: int, count: int) -> None:
    rank = max(len(one) for one in values.values())
    table = np.full((len(values), rank), np.nan)
    for row, (module, one) in enumerate(values.items()):
        table[row, : len(one)] = one
        if count == 1:
            label = "one module" if row == 0 else None
            line(ax, module, np.arange(1, len(one) + 1), one, color=style.SKY, linewidth=0.8, label=label)
    look = Look.of(number, count)
    name = "median of the modules" if count == 1 else run.name
    line(ax, name, np.arange(1, rank + 1), np.nanmedian(table, axis=0), label=plain(name), **look.line_style(rank))


# ------------------------------------------------------------------------------------------------------ what they show


def label_counts(run: Run) -> tuple[Array, list[str], Array] | None:
    """Ids [K], names of the classes, and training samples [K, C]; None where the run does not tell."""
    clients = _clients(run)
    classes = _classes(run)
    table = _table(clients.get("labels"))
    ids = _vector(clients.get("id"))
    if ids is None or table is None or table.shape != (len(ids), len(classes)):
        return None
    return ids.astype(np.int64), classes, table


def accuracies(run: Run) -> Array | None:
    """Accuracy of each evaluated client that has a scored sample, 0 to 1; None where the run does not tell."""
    values = _vector(_clients(run).get("accuracy"))
    if values is None:
        return None
    values = values[np.isfinite(values)]
    return values if len(values) > 1 else None


def confusion_counts(run: Run) -> tuple[list[str], Array] | None:
    """Names of the classes and counts [true, predicted]; None where the run does not tell."""
    classes, table = _classes(run), _table(run.evaluation.get("confusion"))
    if table is None or table.shape != (len(classes), len(classes)):
        return None
    return classes, table


def singular_values(run: Run) -> dict[str, Array] | None:
    """Of B A of every adapted module, falling; None where the run left no adapter of low rank."""
    path = run.path / "adapter" / "adapter_model.safetensors"
    if not path.is_file():
        return None
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        tensors = load_file(path)
    except (SafetensorError, OSError, TypeError):  # TypeError: bfloat16
        return None
    found = {}
    for name, a_RI in tensors.items():
        b_OR = tensors.get(name.replace(".lora_A.", ".lora_B."))
        if ".lora_A." in name and b_OR is not None and a_RI.ndim == b_OR.ndim == 2:
            r_B, r_A = (_triangle(one) for one in (b_OR, a_RI.T))
            values = np.linalg.svd(r_B @ r_A.T, compute_uv=False)
            found[name.partition(".lora_A.")[0].removeprefix("base_model.model.")] = values
    return found if any(values[0] > 0 for values in found.values()) else None


def _triangle(matrix: Array) -> Array:
    """R of Q R = matrix: B A = Q_B R_B R_A^T Q_A^T has the singular values of the small R_B R_A^T."""
    return np.asarray(np.linalg.qr(matrix.astype(np.float64), mode="r"))


def _clients(run: Run) -> Mapping[str, Any]:
    clients = run.evaluation.get("clients")
    return clients if isinstance(clients, Mapping) else {}


def _classes(run: Run) -> list[str]:
    value = run.evaluation.get("classes")
    return value if isinstance(value, list) and all(isinstance(name, str) for name in value) else []


def _vector(value: Any) -> Array | None:
    found = _array(value)
    return found if found is not None and found.ndim == 1 and len(found) else None


def _table(value: Any) -> Array | None:
    found = _array(value)
    return found if found is not None and found.ndim == 2 and found.size and np.isfinite(found).all() else None


def _array(value: Any) -> Array | None:
    """A list of numbers (null: NaN), or of such lists of equal length."""
    try:
        return np.array(value, dtype=np.float64) if isinstance(value, list) else None
    except (TypeError, ValueError):
        return None


def describe_labels(run: Run) -> str:
    """Label skew in one number."""
    found = label_counts(run)
    if found is None:
        return "not measured."
    _, classes, counts_KC = found
    share = counts_KC.max(axis=1) / np.maximum(counts_KC.sum(axis=1), 1)
    sizes_K = counts_KC.sum(axis=1)
    return (
        f"{len(counts_KC)} clients, {len(classes)} classes; the commonest class of a client has "
        f"{100 * np.median(share):.3g} % of its samples in the median; {int(sizes_K.min())} to {int(sizes_K.max())} "
        "samples."
    )


def describe_accuracy(run: Run) -> str:
    """Mean, worst and best client."""
    values = accuracies(run)
    if values is None:
        return "not measured."
    return f"mean {100 * values.mean():.3g} %, from {100 * values.min():.3g} to {100 * values.max():.3g} %."


def describe_confusion(run: Run) -> str:
    """Overall accuracy, and the commonest mistake."""
    found = confusion_counts(run)
    if found is None:
        return "not measured."
    classes, counts_CC = found
    wrong = counts_CC * (1 - np.eye(len(classes)))
    right = 100 * np.trace(counts_CC) / max(counts_CC.sum(), 1)
    true, taken = np.unravel_index(int(wrong.argmax()), wrong.shape)
    text = f"{right:.3g} % of {int(counts_CC.sum())} samples right"
    if wrong.any():
        text += f"; the commonest mistake: {classes[true]} taken for {classes[taken]}, {int(wrong.max())} times"
    return text + "."


def describe_spectrum(run: Run) -> str:
    """How many directions hold most of the update."""
    found = singular_values(run)
    if found is None:
        return "no adapter."
    _, energy = _scaled(found)
    needed = [int(np.searchsorted(values, 90.0 - 1e-9)) + 1 for values in energy.values()]
    rank = max(len(values) for values in energy.values())
    many = f"{np.median(needed):g} of {rank} singular values"
    return f"{many} hold 90 % of the energy in the median of {len(needed)} modules."
