"""The grain: what may be left out of an upload, each way at the same bits as whole components."""

from __future__ import annotations

from functools import partial

from raysoft.comparison.statistics import mean_std
from studies.frontiers import draw
from studies.loading import Results, by_seed, metrics_of
from studies.measures import Row, arm_rows, difference_row
from studies.product import Product, sentences
from studies.settings import GRAINS
from studies.sheets import Sheet, cost_columns, metric_columns, numeric, text

BASIS = next(iter(GRAINS))


def read(results: Results) -> Product:
    """A row an arm and share of the bits, with its paired difference to whole components there; a figure a metric."""
    metrics = metrics_of(results.experiment.task)
    name, reference = results.experiment.name, results.experiment.reference
    rows = arm_rows(results, metrics)
    labels = {(one.family, one.point): one.label for one in results.settings}
    for row in rows:
        basis = labels.get((BASIS, row["point"]))
        for metric in metrics:
            row.update(_against(results, row, basis, metric.name))
    columns = [text("Arm", "arm"), numeric("Seeds", "seeds", digits=0)]
    columns += [column for metric in metrics for column in metric_columns(metric, f"{BASIS} at the same share")]
    columns += cost_columns("share_dense32", "kept_fraction", "mean_latency_s", "energy_j")
    figures = {}
    for metric in metrics:
        levels = list(by_seed(results.reference, metric).values())
        points = [row for row in rows if row["arm"] != reference]
        if levels and points:
            figures[f"{name}-{metric.name}"] = partial(draw, points, mean_std(levels)[0], metric, reference)
    note = sentences(
        "Mean ± standard deviation over seeds; differences are paired by seed, with 95 % t intervals.",
        "The number behind an arm is its share of the bits of everything sent.",
    )
    return Product(name, {name: Sheet(tuple(columns), tuple(rows), note)}, figures, {}, results.remark())


def _against(results: Results, row: Row, basis: str | None, metric: str) -> Row:
    """The difference to the basis in place of that to the experiment's reference; none for the basis itself."""
    if basis is None or basis == row["arm"]:
        return {f"{metric}_{key}": None for key in ("difference", "low", "high")}
    wanted = next(one for one in metrics_of(results.experiment.task) if one.name == metric)
    return difference_row(metric, by_seed(results.runs[row["arm"]], wanted), by_seed(results.runs[basis], wanted))
