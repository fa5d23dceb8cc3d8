"""Copies of plug-ins in files of one's own, in the folder of the run or sweep that was made with them.

    plugins/mine-1a2b3c4d.py        what `method.name: ./mine.py` stood for

So a run is resumed, reported and found again when the original has changed or is gone.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, suppress
from pathlib import Path

from raysoft import atomic
from raysoft.config.plugin_file import PluginFile, copy_name, found_in
from raysoft.errors import RaysoftError

PLUGINS = "plugins"


def keep(folder: Path, files: Iterable[PluginFile]) -> None:
    """Write copies of these files. Raises RaysoftError where that is not possible."""
    for file in files:
        path = folder / PLUGINS / copy_name(file.text)
        try:
            path.parent.mkdir(exist_ok=True)
            atomic.write_bytes(path, file.content)
        except OSError as error:
            raise RaysoftError(f"{path}: cannot be written: {error.strerror or error}") from None


def kept(folder: Path) -> AbstractContextManager[None]:
    """Meanwhile, names of plug-in files stand for the copies of this folder, where it has them."""

    def find(text: str) -> bytes | None:
        with suppress(OSError):
            return (folder / PLUGINS / copy_name(text)).read_bytes()
        return None

    return found_in(find)


def changed(files: Iterable[PluginFile]) -> list[str]:
    """Those of which another content lies where their names lead to, from the current folder."""
    out = []
    for file in files:
        with suppress(OSError, RuntimeError, ValueError):
            if Path(file.text).expanduser().read_bytes() != file.content:
                out.append(file.text)
    return list(dict.fromkeys(out))
