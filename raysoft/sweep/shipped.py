"""The sweeps that come along, by name: tune_configs/ of the source tree, which a wheel carries as package data."""

from __future__ import annotations

import difflib
from pathlib import Path

import raysoft
from raysoft.errors import ConfigError


def _folder() -> Path:
    """Inside the package where a wheel was installed, else beside it."""
    package = Path(raysoft.__file__).parent
    inside = package / "tune_configs"
    return inside if inside.is_dir() else package.parent / "tune_configs"


def shipped_names() -> list[str]:
    """Short names of the sweeps that come with raysoft."""
    return sorted(path.stem for path in _folder().glob("*.yaml"))


def describe_sweep(name: str) -> str:
    """The first comment of a sweep that comes along, as one line."""
    with (_folder() / f"{name}.yaml").open(encoding="utf-8") as file:
        return file.readline().lstrip("# ").rstrip()


def find_sweep(target: str | Path) -> Path:
    """The file of a sweep. A name that comes along means that one, also where a file is called the same (`./smoke`).

    Raises ConfigError where there is neither.
    """
    text = str(target)
    if isinstance(target, str) and text in shipped_names():
        return _folder() / f"{text}.yaml"
    path = Path(text)
    try:
        there = path.exists()
    except OSError:  # too long for a file name: its reader says so
        there = True
    if there or "\0" in text:
        return path
    close = difflib.get_close_matches(path.stem, shipped_names(), n=1)
    hint = f"; did you mean {close[0]}?" if close else ""
    raise ConfigError(
        "", f"{text[:80]!r} is neither a sweep that comes along ({', '.join(shipped_names())}) nor a YAML file{hint}"
    )
