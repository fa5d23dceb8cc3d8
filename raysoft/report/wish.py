"""How somebody wants the figures of a report: which files, how wide."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from raysoft.config import FigureFormat, FigureWidth, ReportConfig, parse_section
from raysoft.errors import ConfigError, RaysoftError

FORMATS: tuple[FigureFormat, ...] = get_args(FigureFormat)
WIDTHS: tuple[FigureWidth, ...] = get_args(FigureWidth)


@dataclass(frozen=True)
class Wish:
    """What was asked for on the command line or by a caller; None: what the configuration of the runs says."""

    formats: tuple[FigureFormat, ...] | None = None
    width: FigureWidth | None = None

    @classmethod
    def of(cls, formats: str | Iterable[str] | None = None, width: str | None = None) -> Wish:
        """From words: `pdf,csv` or a list. Raises ConfigError naming the option and what is valid."""
        words = formats.replace(",", " ").split() if isinstance(formats, str) else formats
        if words is None:
            chosen = None
        else:
            words = [word.lower() for word in words]
            strange = next((word for word in words if word not in FORMATS), None)
            if strange is not None or not words:
                raise ConfigError(
                    "--formats", f"must be some of {', '.join(FORMATS)}, got {strange or 'nothing'!r:.40}"
                )
            chosen = tuple(kind for kind in FORMATS if kind in words)
        return cls(chosen, _width(width))

    def settled(
        self, config: Mapping[str, Any], otherwise: FigureWidth
    ) -> tuple[tuple[FigureFormat, ...], FigureWidth]:
        """Formats and width, given the configuration of a run; `otherwise`: the width where nobody says."""
        said = said_in(config)
        return self.formats if self.formats is not None else tuple(said.formats), self.width or said.width or otherwise


def _width(text: str | None) -> FigureWidth | None:
    found = next((width for width in WIDTHS if width == text), None)
    if text is not None and found is None:
        raise ConfigError("--width", f"must be {' or '.join(WIDTHS)}, got {text!r:.40}")
    return found


def said_in(config: Mapping[str, Any]) -> ReportConfig:
    """The section `report` of a configuration as it was written; the defaults where an older run has none."""
    section = config.get("report")
    try:
        return parse_section(ReportConfig, dict(section), "report") if isinstance(section, Mapping) else ReportConfig()
    except RaysoftError:  # a run of a later version
        return ReportConfig()


def seen_from(page: Path, folder: Path) -> str | None:
    """A folder as links of a page name it; None where no relative path leads there."""
    try:
        return Path(os.path.relpath(folder.resolve(), page.resolve().parent)).as_posix()
    except (OSError, ValueError):  # another drive
        return None
