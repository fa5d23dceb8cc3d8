"""Figures and self-contained HTML pages from folders of runs, comparisons and sweeps; no torch, no Ray.

May use rundir, wireless and below.
"""

from raysoft.report.comparison.html import write_comparison_report
from raysoft.report.folders import draw_folders
from raysoft.report.run.closing import closing_rows
from raysoft.report.run.html import report_place, write_report
from raysoft.report.sweep.html import write_sweep_report
from raysoft.report.wish import Wish

__all__ = [
    "Wish",
    "closing_rows",
    "draw_folders",
    "report_place",
    "write_comparison_report",
    "write_report",
    "write_sweep_report",
]
