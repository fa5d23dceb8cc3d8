"""Files that are there whole or not at all: whoever reads, also after a crash, meets the old content or the new."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

PREFIX = ".raysoft-"  # of what a crash may leave behind


def write_bytes(path: Path, data: bytes | memoryview) -> None:
    """Write a file, durable before this returns. Raises OSError; then the old content is still there.

    Processes and threads that write the same file at the same time, also on other machines, do not meet: the last one's
    content stays. The file has the mode that the user gives new files.
    """
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=PREFIX) as scratch:
        part = Path(scratch) / path.name
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)


def write_text(path: Path, text: str) -> None:
    """The same for text, as UTF-8. Raises OSError.

    Bytes of a file name that are not UTF-8 (a report shows the names of folders) become question marks.
    """
    write_bytes(path, text.encode("utf-8", errors="replace"))
