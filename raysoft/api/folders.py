"""Any folder that raysoft has written, opened as what it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from raysoft.api.settings import Place, place_text
from raysoft.errors import RaysoftError

if TYPE_CHECKING:
    from raysoft.api.comparisons import ComparisonResult
    from raysoft.api.plans import Plan
    from raysoft.api.result import Result
    from raysoft.api.sweeps import SweepResult


def open(folder: Place) -> Result | ComparisonResult | SweepResult | Plan:
    """A run, comparison, sweep or plan from its folder (of a run also a URI), whoever made it.

    A run that still goes on is what is there so far; open it again for more. Raises RaysoftError where the folder is
    not there, is none of these, or cannot be read.
    """
    from raysoft.api.comparisons import ComparisonResult
    from raysoft.api.plans import Plan
    from raysoft.api.result import Result
    from raysoft.api.sweeps import SweepResult
    from raysoft.report.comparison.file import COMPARISON_JSON, is_comparison
    from raysoft.report.sweep.file import RESULTS_JSON, is_sweep
    from raysoft.rundir.destination import expanded
    from raysoft.rundir.folder import CONFIG, PLAN
    from raysoft.rundir.remote import is_uri
    from raysoft.sweep.folder import SWEEP

    text = place_text(folder, "DIR")
    if is_uri(text):
        return _read(Result(text))
    path = expanded(text, "DIR")
    if is_comparison(path):
        return ComparisonResult(path)
    if is_sweep(path):
        return SweepResult(path)
    if (path / CONFIG).is_file():
        return _read(Result(path))
    if (path / PLAN).is_file():
        return Plan(path)
    if (path / SWEEP).is_file():
        raise RaysoftError(f"{path}: holds a sweep without results yet; raysoft.tune(..., resume=True) goes on with it")
    what = "no such folder"
    if path.exists():
        known = f"{CONFIG}, {COMPARISON_JSON}, {RESULTS_JSON} or {PLAN}"
        what = f"holds no {known}, so no run, comparison, sweep or plan has written it"
    raise RaysoftError(f"{path}: {what}")


def _read(result: Result) -> Result:
    """The same, once it is known that it can be read."""
    assert result.data.records
    return result
