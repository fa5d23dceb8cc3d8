"""Which report belongs to the folders that a user names."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from raysoft.errors import ConfigError
from raysoft.report.comparison.file import is_comparison
from raysoft.report.comparison.html import write_comparison_report
from raysoft.report.run.html import NO_WISH, write_report
from raysoft.report.sweep.file import is_sweep
from raysoft.report.sweep.html import write_sweep_report
from raysoft.report.wish import Wish
from raysoft.rundir.destination import expanded

Place = str | os.PathLike[str]


def report(
    *folders: Place, out: Place | None = None, formats: str | Iterable[str] | None = None, width: str | None = None
) -> Path:
    """Draw figures and page of a run, comparison or sweep folder again, or of several runs together; the page.

    `out`: where to write the report of runs, a file or folder (default: into the folder of one run, beside several).
    `formats`: png, svg, pdf, csv; `width`: column or page; None: as the configuration of the runs says.
    Raises ConfigError for a comparison or sweep among others or with `out`, RaysoftError for folders that are none.
    """
    return draw_folders(*folders_of(folders, out), Wish.of(formats, width))


def folders_of(folders: Sequence[Place], out: Place | None) -> tuple[list[Path], Path | None]:
    """Places as a user writes them. Raises ConfigError where there is none, or one is no path."""
    if not folders:
        raise ConfigError("DIR", "give at least one run, comparison or sweep folder")
    places = [_expanded(folder, "DIR") for folder in folders]
    return places, None if out is None else _expanded(out, "--out")


def _expanded(place: Any, option: str) -> Path:
    text = os.fspath(place) if isinstance(place, (str, os.PathLike)) else None
    if not isinstance(text, str):
        raise ConfigError(option, f"must be a folder, as text or a path, got {place!r:.80}")
    return expanded(text, option)


def draw_folders(folders: Sequence[Path], out: Path | None = None, wish: Wish = NO_WISH) -> Path:
    """The report of one run folder, of several together, or of one comparison or sweep folder; returns the HTML file.

    Raises ConfigError for a comparison or sweep folder among others or with `out`: its report belongs into it.
    """
    whole = next((folder for folder in folders if is_comparison(folder) or is_sweep(folder)), None)
    if whole is None:
        return write_report(folders[0] if len(folders) == 1 else folders, out, wish)
    kind = "comparison" if is_comparison(whole) else "sweep"
    if len(folders) > 1:
        raise ConfigError("DIR", f"{whole} is a {kind} folder; give it alone, or give run folders only")
    if out is not None:
        raise ConfigError("--out", f"the report of a {kind} is written into its folder, {whole}; leave it out")
    if kind == "comparison":
        return write_comparison_report(whole, wish)
    return write_sweep_report(whole, wish)
