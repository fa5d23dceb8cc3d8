"""Figures and self-contained HTML pages from run and comparison folders; nothing else is read, no torch, no Ray."""

from raysoft.report.closing import closing_rows
from raysoft.report.comparison import write_comparison_report
from raysoft.report.folders import draw_folders
from raysoft.report.html import write_report

__all__ = ["closing_rows", "draw_folders", "write_comparison_report", "write_report"]
