"""Figures and a self-contained HTML page from run folders; nothing else is read, no torch and no Ray is loaded."""

from raysoft.report.closing import closing_rows
from raysoft.report.html import write_report

__all__ = ["closing_rows", "write_report"]
