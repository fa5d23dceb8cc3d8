"""Figures and self-contained HTML pages from folders of runs, comparisons and sweeps; no torch, no Ray.

May use rundir, wireless and below.

The package can be called: `raysoft.report(folder)` draws, since `raysoft.report` is both this room and that function.
"""

import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

from raysoft.report.comparison.html import write_comparison_report
from raysoft.report.folders import Place, draw_folders, folders_of, report
from raysoft.report.run.closing import closing_rows
from raysoft.report.run.html import report_place, write_report
from raysoft.report.sweep.html import write_sweep_report
from raysoft.report.wish import Wish

__all__ = [
    "Wish",
    "closing_rows",
    "draw_folders",
    "folders_of",
    "report",
    "report_place",
    "write_comparison_report",
    "write_report",
    "write_sweep_report",
]


class _Room(ModuleType):
    def __call__(
        self,
        *folders: Place,
        out: Place | None = None,
        formats: str | Iterable[str] | None = None,
        width: str | None = None,
    ) -> Path:
        return report(*folders, out=out, formats=formats, width=width)


_Room.__call__.__doc__ = report.__doc__
sys.modules[__name__].__class__ = _Room
