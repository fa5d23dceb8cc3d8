"""Folders that a command writes to: what is there already, and whether it can be made."""

from __future__ import annotations

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


def made(folder: Path, option: str, inside: str = "") -> Path:
    """The folder, made where it does not exist, with `inside` in it. Raises ConfigError(option) where it cannot be."""
    try:
        (folder / inside).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(option, f"{folder} cannot be written: {error.strerror}") from None
    return folder
