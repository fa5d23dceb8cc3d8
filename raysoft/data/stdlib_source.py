"""The Python standard library's own source as text: one package (or single-file module) is one group.

Below `models` and `data`, because the embedded language model is pretrained on some packages and the task
`python-source` spreads the others over clients. Which packages there are differs between Python versions and
distributions (Debian moves some out), so nothing here counts on more than `PRETRAINING_PACKAGES`.
"""

from __future__ import annotations

import sysconfig
from collections.abc import Collection
from pathlib import Path

PRETRAINING_PACKAGES = ("asyncio", "email", "multiprocessing")
# Tables and pages rather than code, tests, whatever distributions tend to strip, and what is not the standard library.
_SKIPPED = frozenset(
    {
        "__phello__",
        "__pycache__",
        "config",
        "distutils",
        "encodings",
        "ensurepip",
        "idlelib",
        "lib-dynload",
        "lib2to3",
        "pydoc_data",
        "site-packages",
        "dist-packages",
        "test",
        "tests",
        "this",
        "tkinter",
        "turtle",
        "turtledemo",
    }
)
MIN_PACKAGE_BYTES = 8192


def read_packages(folder: Path | None = None, only: Collection[str] | None = None) -> dict[str, bytes]:
    """ASCII source by package name, sorted; files joined in the order of their paths. `only` names those wanted.

    Characters beyond ASCII become `?`, so that one character is one byte. Packages below 8 KiB and private ones
    (leading underscore) are left out; unreadable files are skipped. Empty where the source is not installed.
    """
    root = folder if folder is not None else Path(sysconfig.get_path("stdlib"))
    packages: dict[str, bytes] = {}
    if not root.is_dir():
        return packages
    for entry in sorted(root.iterdir()):
        if entry.name.startswith((".", "_")) or entry.stem in _SKIPPED or not entry.stem.isidentifier():
            continue
        if only is not None and entry.stem not in only:
            continue
        files = _sources(entry) if entry.is_dir() else [entry] if entry.suffix == ".py" else []
        text = b"\n".join(filter(None, map(_read, files)))
        if len(text) >= MIN_PACKAGE_BYTES:
            packages[entry.stem] = text
    return packages


def _sources(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*.py") if not _SKIPPED & set(path.relative_to(folder).parts))


def _read(path: Path) -> bytes:
    try:
        return path.read_text(encoding="utf-8").encode("ascii", "replace")
    except (OSError, UnicodeDecodeError):
        return b""
