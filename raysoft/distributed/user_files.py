"""Files that plug-ins read, on nodes that do not have them: their content travels with the run."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

import numpy as np

from raysoft import atomic
from raysoft.config import RunConfig, UserFile
from raysoft.errors import RaysoftError
from raysoft.federation.content import check_user_files, user_files
from raysoft.models.embedded import cache_folder
from raysoft.types import Array

Contents: TypeAlias = Mapping[str, Array]  # uint8 [bytes], by the text of the option


def gathered(config: RunConfig) -> Contents:
    """What the files hold that plug-ins of this run read. Raises ConfigError naming the option."""
    check_user_files(config)
    return {str(file): np.fromfile(file.path, dtype=np.uint8) for file in user_files(config).values()}


def placed(contents: Contents) -> None:
    """From now on `UserFile.path` leads to this content in this process, to a copy where the path itself does not.

    Raises RaysoftError where the copy cannot be written.
    """
    for text, content in contents.items():
        if not _holds(UserFile(text).path, content):
            UserFile.copies[text] = _copy(Path(text).name, content)


def _copy(name: str, content: Array) -> Path:
    """In the node's cache, under its digest: another process may write the same at the same time."""
    path = cache_folder() / "files" / hashlib.sha256(content.data).hexdigest() / name
    if _holds(path, content):
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic.write_bytes(path, content.data)
    except OSError as error:
        raise RaysoftError(
            f"cannot write a plug-in's file to {path}: {error.strerror}; set RAYSOFT_CACHE to a writable folder with "
            "room"
        ) from None
    return path


def _holds(path: Path, content: Array) -> bool:
    try:
        return path.stat().st_size == content.size and bool(np.array_equal(np.fromfile(path, np.uint8), content))
    except OSError:
        return False
