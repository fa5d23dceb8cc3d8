"""What lies now where a configuration points to: digests of the user's files, versions of what is embedded."""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from raysoft.config import PLUGINS, DataConfig, Plugin, RunConfig, UserFile
from raysoft.config.identity import DATA, MODEL, TASK, TASK_VERSIONS, revisions_of, version_text
from raysoft.data import files
from raysoft.errors import ConfigError
from raysoft.models.embedded import PREFIX, RECIPES, cache_folder


def identity_of(config: RunConfig) -> dict[str, str | None]:
    """What a run of this configuration would be made of now. Reads every file that is not remembered."""
    return revisions_of(config) | content_of(config)


def content_of(config: RunConfig) -> dict[str, str | None]:
    """Data, base model, plug-ins in files of one's own, and files that plug-ins read."""
    task, model = config.data.task, config.model.name
    out: dict[str, str | None] = {}
    if task in TASK_VERSIONS:
        out[TASK] = version_text(task, TASK_VERSIONS[task])
    elif config.data.path is not None:
        out[DATA] = _of_place(config.data.path, "datasets", None, _images_named(config.data))
    recipe = RECIPES.get(model.removeprefix(PREFIX)) if model.startswith(PREFIX) else None
    if recipe is not None:
        out[MODEL] = version_text(model, recipe.revision)
    else:
        out[MODEL] = _of_place(model, "models", config.model.revision)
    out |= {field: file.digest for field, file in config.plugin_files().items()}
    return out | {field: digest(file.path) for field, file in user_files(config).items()}


# ---------------------------------------------------------------------------------------------------- files of plug-ins


def user_files(config: RunConfig) -> dict[str, UserFile]:
    """The files that plug-ins read, by configuration key."""
    found: dict[str, UserFile] = {}
    for kind in PLUGINS:
        checked = getattr(config, kind).checked
        found.update(_files_in(checked, kind) if checked is not None else ())
    return found


def _files_in(value: Any, key: str) -> Iterator[tuple[str, UserFile]]:
    if isinstance(value, UserFile):
        yield key, value
    elif isinstance(value, (list, tuple)):
        for number, item in enumerate(value):
            yield from _files_in(item, f"{key}.{number}")
    elif isinstance(value, Mapping):
        for name, item in value.items():
            yield from _files_in(item, f"{key}.{name}")
    elif isinstance(value, Plugin) and value.checked is not None:  # an extra, a member of a chain
        yield from _files_in(value.checked, key)
    elif fields := getattr(type(value), "model_fields", None):
        for name in fields:
            yield from _files_in(getattr(value, name), f"{key}.{name}")


def check_user_files(config: RunConfig) -> None:
    """Raises ConfigError naming the option whose file is not there, cannot be read, or holds what a plug-in refuses."""
    for field, file in user_files(config).items():
        try:
            with file.path.open("rb"):
                pass
        except OSError as error:
            raise ConfigError(field, f"{str(file)!r} cannot be read: {error.strerror}") from None
    for kind in PLUGINS:
        if (checked := getattr(config, kind).checked) is not None:
            checked.check_files(config)


# -------------------------------------------------------------------------------------------------------------- digests


def _of_place(name: str, kind: str, revision: str | None, more: Iterable[Path] = ()) -> str | None:
    """Of a file or folder; else the commit of what the Hugging Face cache holds under this name."""
    with suppress(OSError, RuntimeError, ValueError):
        path = Path(name).expanduser()
        if path.exists():
            return digest(path, more)
    return _hub_commit(name, kind, revision)


def _hub_commit(name: str, kind: str, revision: str | None) -> str | None:
    from huggingface_hub.constants import HF_HUB_CACHE

    refs = Path(HF_HUB_CACHE) / f"{kind}--{name.replace('/', '--')}" / "refs" / (revision or "main")
    with suppress(OSError, ValueError):
        return f"commit {refs.read_text(encoding='utf-8').strip()}"
    return f"commit {revision}" if revision and len(revision) == 40 else None


def _images_named(data: DataConfig) -> Iterator[Path]:
    """The image files that tables of an image classification task name, wherever they lie."""
    if data.task != "image-classification" or data.path is None:
        return
    path = Path(data.path).expanduser()
    tables = [path] if path.is_file() else sorted(path.iterdir())
    for table in tables:
        if table.suffix.lower() in files.TABLES and not table.name.startswith("."):
            with suppress(ConfigError):  # the run itself says what is wrong with it
                names = files.read_table(table, data).get(data.image_column, ())
                yield from (table.parent / name for name in names if isinstance(name, str) and name)


def digest(path: Path, more: Iterable[Path] = ()) -> str | None:
    """BLAKE2 over names and bytes of a file, or of all files of a folder but hidden ones; None: cannot be read.

    `more`: further files that belong to it. Digests of files are remembered in the cache folder by path, size and times
    of change.
    """
    try:
        single = path.is_file()
        found = [path] if single else sorted(_files_below(path))
        names = [""] if single else [file.relative_to(path).as_posix() for file in found]
        found += (others := list(more))
        names += [f"more {number}" for number in range(len(others))]
        whole = hashlib.blake2b(digest_size=16)
        with KnownDigests() as remembered:
            for name, file in zip(names, found, strict=True):
                whole.update(f"{name}\0{remembered.digest(file)}\n".encode("utf-8", "surrogateescape"))
        return f"blake2b {whole.hexdigest()}" if found else None
    except OSError:
        return None


def _files_below(folder: Path) -> Iterator[Path]:
    seen = set()
    for place, folders, names in os.walk(folder, followlinks=True, onerror=_raise):
        real = os.path.realpath(place)
        if real in seen:  # a link to a folder above
            folders.clear()
            continue
        seen.add(real)
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(place) / name for name in names if not name.startswith("."))


def _raise(error: OSError) -> None:
    raise error


class KnownDigests:
    """Digests of files by path, size and times, in a small database that several processes may use.

    A file younger than `settled_s` may change again within the resolution of its time stamp: not remembered.
    """

    def __init__(self, settled_s: float = 2.0) -> None:
        self._settled_s = settled_s

    def __enter__(self) -> KnownDigests:
        self._base: sqlite3.Connection | None = None  # stays None where the cache cannot be used: all is read again
        self._new: list[tuple[str, int, int, int, str]] = []
        with suppress(OSError, sqlite3.Error):
            cache_folder().mkdir(parents=True, exist_ok=True)
            place = cache_folder() / "digests.sqlite"
            base = sqlite3.connect(place, timeout=10)
            with base:
                base.execute(
                    "CREATE TABLE IF NOT EXISTS files"
                    " (path TEXT PRIMARY KEY, size INTEGER, mtime INTEGER, ctime INTEGER, digest TEXT)"
                )
            os.utime(place)
            self._now = place.stat().st_mtime
            self._base = base
        return self

    def __exit__(self, *_: object) -> None:
        if self._base is not None:
            with suppress(sqlite3.Error, UnicodeError), self._base:
                self._base.executemany("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?)", self._new)
            self._base.close()

    def digest(self, path: Path) -> str:
        """Of one file's bytes. Raises OSError."""
        name, status = str(path.resolve()), path.stat()
        stamp = (status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        if (found := self._find(name)) is not None and found[:3] == stamp:
            return str(found[3])
        with path.open("rb") as file:
            value = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
        if self._base is not None and max(status.st_mtime, status.st_ctime) < self._now - self._settled_s:
            self._new.append((name, *stamp, value))
        return value

    def _find(self, name: str) -> tuple[Any, ...] | None:
        if self._base is None:
            return None
        with suppress(sqlite3.Error, UnicodeError):
            question = "SELECT size, mtime, ctime, digest FROM files WHERE path = ?"
            found: tuple[Any, ...] | None = self._base.execute(question, (name,)).fetchone()
            return found
        return None
