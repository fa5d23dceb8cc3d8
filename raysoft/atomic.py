"""Files that are there whole or not at all: whoever reads, also after a crash, meets the old content or the new."""

from __future__ import annotations

import os
from pathlib import Path


def write_bytes(path: Path, data: bytes | memoryview) -> None:
    """Write a file, durable before this returns. Raises OSError; then the old content is still there.

    Processes that write the same file at the same time do not meet: the last one's content stays.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """The same for text, as UTF-8; bytes of a file name that are none become question marks. Raises OSError."""
    write_bytes(path, text.encode("utf-8", errors="replace"))
