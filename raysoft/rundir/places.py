"""Folders that a command writes to: what is there already, and whether it can be made."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from raysoft.errors import ConfigError


def names_in(folder: Path, option: str, advice: str = "give a folder", be: str = "read") -> list[str]:
    """What lies in a folder; nothing where it is not there. Raises ConfigError(option) where it is none to read."""
    try:
        if folder.exists() and not folder.is_dir():
            raise ConfigError(option, f"{folder} is a file; {advice}")
        return sorted(item.name for item in folder.iterdir()) if folder.exists() else []
    except OSError as error:
        raise ConfigError(option, f"{folder} cannot be {be}: {error.strerror}") from None


def check_made(folder: Path, option: str, inside: str = "") -> None:
    """Raise ConfigError(option) where `made` would, as far as that shows without writing."""
    with _looking(folder, option):
        place = folder / inside
        while not place.exists() and not place.is_symlink():
            place = place.absolute().parent
        if not place.exists():
            raise ConfigError(option, f"{folder} cannot be written: {place} is a link to nothing")
        if not place.is_dir() or (place != folder / inside and not os.access(place, os.W_OK)):
            raise ConfigError(option, f"{folder} cannot be written: {place} is not a folder that may be written to")


def made(folder: Path, option: str, inside: str = "") -> Path:
    """The folder, made where it does not exist, with `inside` in it. Raises ConfigError(option) where it cannot be."""
    check_made(folder, option, inside)
    with _looking(folder, option):
        (folder / inside).mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def _looking(folder: Path, option: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:  # also where something above may not be looked into
        raise ConfigError(option, f"{folder} cannot be written: {error.strerror}") from None
