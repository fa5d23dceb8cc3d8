"""Checkpoints of Ray Tune on a storage path: where the run folder of a trial travels without a shared file system."""

from __future__ import annotations

import re
from typing import Any

from ray import tune

from raysoft.errors import ConfigError

ATTEMPT = "attempt-"  # one folder a start of the driver: Tune numbers its checkpoints anew each time


def newest_stored(storage: str, trial: str) -> tune.Checkpoint | None:
    """The last checkpoint that any attempt has left of a trial, None if there is none."""
    fs, root = file_system(storage)
    found = []
    for attempt in _numbered(fs, root, ATTEMPT):
        for number in _numbered(fs, f"{root}/{ATTEMPT}{attempt}/{trial}", "checkpoint_"):
            found.append((attempt, number, f"{root}/{ATTEMPT}{attempt}/{trial}/checkpoint_{number:06d}"))
    return tune.Checkpoint(max(found)[2], filesystem=fs) if found else None


def next_attempt(storage: str) -> str:
    """A name for this start of the driver that no other one has had. Raises ConfigError("storage")."""
    try:
        fs, root = file_system(storage)
        return f"{ATTEMPT}{max(_numbered(fs, root, ATTEMPT), default=0) + 1}"
    except (OSError, ValueError) as error:
        raise ConfigError(
            "storage", f"{storage!r:.100} cannot be reached: {' '.join(str(error).split())[:160]}"
        ) from None


def file_system(storage: str) -> tuple[Any, str]:
    """A pyarrow file system and the path on it, of an address (s3://..., gs://...) or a local path."""
    from pyarrow.fs import FileSystem, LocalFileSystem

    if "://" in storage:
        fs, path = FileSystem.from_uri(storage)
        return fs, path.rstrip("/")
    return LocalFileSystem(), storage.rstrip("/")


def _numbered(fs: Any, folder: str, prefix: str) -> list[int]:
    from pyarrow.fs import FileSelector

    names = [item.base_name for item in fs.get_file_info(FileSelector(folder, allow_not_found=True))]
    return [int(match[1]) for name in names if (match := re.fullmatch(rf"{re.escape(prefix)}(\d+)", name))]
