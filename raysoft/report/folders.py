"""Which report belongs to the folders that a user names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from raysoft.errors import ConfigError
from raysoft.report.comparison import write_comparison_report
from raysoft.report.comparison_file import is_comparison
from raysoft.report.html import write_report


def draw_folders(folders: Sequence[Path], out: Path | None = None) -> Path:
    """The report of one run folder, of several together, or of one comparison folder; returns the HTML file.

    Raises ConfigError for a comparison folder among others or with `out`: its report belongs into it.
    """
    comparisons = [folder for folder in folders if is_comparison(folder)]
    if not comparisons:
        return write_report(folders[0] if len(folders) == 1 else folders, out)
    if len(folders) > 1:
        raise ConfigError("DIR", f"{comparisons[0]} is a comparison folder; give it alone, or give run folders only")
    if out is not None:
        raise ConfigError(
            "--out", f"the report of a comparison is written into its folder, {comparisons[0]}; leave it out"
        )
    return write_comparison_report(comparisons[0])
