"""Run folders on remote storage: s3://, gs://, and whatever else fsspec knows.

A run works in a local folder; what is finished there is copied to the store in the background, in an order that a
reader can trust: data before the manifests that vouch for it, rounds before the checkpoints that count them, the
summary last. Whoever dies in between leaves a folder that `raysoft resume URI` goes on with.
"""

from __future__ import annotations

import logging
import queue
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from raysoft.errors import ConfigError, RaysoftError
from raysoft.rundir.files import check_overwrite
from raysoft.rundir.folder import ROUNDS, SUMMARY, check_place

log = logging.getLogger("raysoft")
T = TypeVar("T")
_URI = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*)://")
ANSWER_S = 60.0  # for one short request
CLOSE_S = 600.0  # for everything that a finished run has left to copy
GAP_S = 5.0  # between two copies of what has changed
ATTEMPTS = 3  # to bring a finished run home
PROBE = ".raysoft-probe"
MANIFEST = "manifest.json"
# Here a file appears when it is complete; elsewhere it is written beside its place and renamed.
OBJECT_STORES = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oci", "memory"})


def is_uri(text: str) -> bool:
    """Whether a destination is storage for fsspec rather than a path of this machine."""
    return _URI.match(text) is not None


@dataclass(frozen=True)
class RemoteFolder:
    """One folder of a store. Its methods raise RaysoftError with one sentence that names the URI."""

    uri: str
    fs: Any
    root: str
    answer_s: float = ANSWER_S  # the longest wait for a short request

    @classmethod
    def open(cls, uri: str, option: str, answer_s: float = ANSWER_S) -> RemoteFolder:
        """The folder at a URI; raises ConfigError where its kind is unknown or its package is missing."""
        from fsspec.core import url_to_fs

        kind = uri.partition("://")[0]
        try:
            fs, root = url_to_fs(uri)
        except ImportError as error:
            raise ConfigError(option, f"{uri}: needs a package that is missing: {_package(kind) or error}") from None
        except ValueError as error:
            raise ConfigError(option, f"{uri}: {error}; give a path, or a URI such as s3://bucket/folder") from None
        except Exception as error:  # each kind of storage has its own
            raise ConfigError(option, f"{uri}: {_reason(error)}") from None
        return cls(uri.rstrip("/"), fs, root.rstrip("/"), answer_s)

    def files(self) -> list[str]:
        """Paths of all files, relative to the folder; none where there is no such folder."""

        def find() -> list[str]:
            self.fs.invalidate_cache()
            return sorted(path[len(self.root) :].lstrip("/") for path in self.fs.find(self.root))

        try:
            return self._do("read", find)
        except FileNotFoundError:
            return []

    def check_writable(self) -> None:
        """Write a small file and take it away again: a run should not find out at its end that it may not write."""
        self._do("written", lambda: self.fs.pipe_file(self._at(PROBE, make=True), b"\n"))
        with suppress(Exception):  # who may not delete can still keep a run here
            self.fs.rm_file(self._at(PROBE))

    def put(self, source: Path, name: str) -> None:
        """Copy a file; a reader sees the old content or the new."""

        def copy() -> None:
            target = self._at(name, make=True)
            if self.fs.protocol in OBJECT_STORES or OBJECT_STORES.intersection(self.fs.protocol):
                self.fs.put_file(str(source), target)
            else:
                part = self._at(f"{name}.part")
                self.fs.put_file(str(source), part)
                self.fs.mv(part, target)

        self._do("written", copy, CLOSE_S)

    def get(self, name: str, target: Path) -> None:
        """Fetch a file."""
        target.parent.mkdir(parents=True, exist_ok=True)
        self._do("read", lambda: self.fs.get_file(self._at(name), str(target)), CLOSE_S)

    def remove(self, name: str) -> None:
        """Remove a file that is there or not."""
        with suppress(FileNotFoundError):
            self._do("changed", lambda: self.fs.rm_file(self._at(name)))

    def _at(self, name: str, make: bool = False) -> str:
        path = f"{self.root}/{name}"
        if make:
            self.fs.makedirs(path.rpartition("/")[0], exist_ok=True)
        return path

    def _do(self, what: str, work: Callable[[], T], seconds: float | None = None) -> T:
        """What `work` returns within `seconds`, or `answer_s` where none are given."""
        seconds = self.answer_s if seconds is None else seconds
        try:
            return _within(seconds, work)
        except FileNotFoundError:
            if what != "written":
                raise
            raise RaysoftError(f"{self.uri}: cannot be written: no such bucket or folder") from None
        except TimeoutError:
            raise RaysoftError(f"{self.uri}: cannot be {what}: no answer within {seconds:g} seconds") from None
        except Exception as error:  # each kind of storage has its own
            raise RaysoftError(f"{self.uri}: cannot be {what}: {_reason(error)}") from None


def _within(seconds: float, work: Callable[[], T]) -> T:
    """The value of `work`, or TimeoutError; a thread that hangs is left behind, and does not keep the process alive."""
    done: queue.Queue[tuple[Any, BaseException | None]] = queue.Queue()

    def call() -> None:
        try:
            done.put((work(), None))
        except BaseException as error:
            done.put((None, error))

    threading.Thread(target=call, daemon=True, name="storage").start()
    try:
        value, error = done.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError from None
    if error is not None:
        raise error
    return value


def _package(kind: str) -> str:
    from fsspec.registry import known_implementations

    path = known_implementations.get(kind, {}).get("class", "")
    package = path.partition(".")[0]
    return f"pip install {package}" if package and package != "fsspec" else ""


def _reason(error: BaseException) -> str:
    text = str(getattr(error, "strerror", None) or error).strip()
    return text.splitlines()[0][:300] if text else type(error).__name__


# --------------------------------------------------------------------------------------------------------------- mirror


def _rank(name: str) -> int:
    """The order of copying: what vouches for other files comes after them."""
    if name == ROUNDS:
        return 1
    return 2 if name.endswith(f"/{MANIFEST}") else 3 if name == SUMMARY else 0


class Mirror:
    """Copies what changes in a local folder to a remote one, in a thread of its own until `close`.

    `gap_s`: between two copies; `pause`: how the next attempt to bring a finished run home is waited for, in seconds.
    """

    def __init__(
        self,
        remote: RemoteFolder,
        folder: Path,
        known: dict[str, tuple[int, int]],
        old: Sequence[str],
        gap_s: float = GAP_S,
        pause: Callable[[float], object] = time.sleep,
    ) -> None:
        self.remote = remote
        self.folder = folder
        self._gap_s, self._pause = gap_s, pause
        self._known = known  # what is there already: size and time of the local file that it is a copy of
        self._old = list(old)  # files of a run that this one replaces
        self._wake, self._closing = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True, name="mirror")
        self._thread.start()

    def wake(self) -> None:
        """Something has changed; never blocks."""
        self._wake.set()

    def close(self) -> None:
        """Copy what is left and stop. Raises RaysoftError where the store does not take it."""
        self._closing.set()
        self._wake.set()
        self._thread.join(CLOSE_S)
        for attempt in range(ATTEMPTS):
            try:
                return self.copy()
            except RaysoftError:
                if attempt + 1 == ATTEMPTS:
                    raise
                self._pause(2**attempt)

    def copy(self) -> None:
        """One pass over the folder."""
        if not self.folder.is_dir():  # refused before anything began
            return
        for name in self._old:
            self.remote.remove(name)
        self._old = []
        found = {name: _signature(self.folder / name) for name in _finished(self.folder)}
        skipped: set[str] = set()
        ordered = sorted(found, key=lambda name: (_rank(name), name))
        for name in (one for one in ordered if _rank(one) < 3):
            beside = name.rpartition("/")[0]
            if name.endswith(f"/{MANIFEST}") and beside in skipped:
                continue  # what it vouches for has gone meanwhile
            if not self._put(name, found[name]):
                skipped.add(beside)
        gone = [name for name in self._known if not (self.folder / name).exists()]
        for name in sorted(gone, key=_rank, reverse=True):  # the manifest first
            self.remote.remove(name)
            del self._known[name]
        for name in (one for one in ordered if _rank(one) == 3):
            self._put(name, found[name])

    def _put(self, name: str, signature: tuple[int, int]) -> bool:
        """Whether the file was there to be copied."""
        if self._known.get(name) == signature:
            return True
        if not (self.folder / name).is_file():
            return False
        try:
            self.remote.put(self.folder / name, name)
        except RaysoftError:
            if not (self.folder / name).is_file():
                return False
            raise
        self._known[name] = signature
        return True

    def _work(self) -> None:
        warned = False
        while not self._closing.is_set():
            self._wake.wait()
            self._wake.clear()
            if self._closing.is_set():
                return
            try:
                self.copy()
                warned = False
            except RaysoftError as error:
                if not warned:
                    log.warning("%s; the run goes on, and it is tried again", error)
                warned = True
                self._wake.set()
            self._closing.wait(self._gap_s)


def _finished(folder: Path) -> Iterator[str]:
    """Files of a run folder that are no half-written ones and no parts of an older run."""
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and not any(part.startswith(".") for part in name.split("/")) and not name.endswith(".part"):
            yield name


def _signature(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except FileNotFoundError:
        return (-1, -1)
    return status.st_size, status.st_mtime_ns


# -------------------------------------------------------------------------------------------------------------- staging


@dataclass(frozen=True)
class Stage:
    """Where a run works, and where its folder ends up (`place`); `changed` is to be called when something is new."""

    folder: Path
    place: Path | str
    changed: Callable[[], None]


@contextmanager
def staged(
    place: Path | str,
    option: str,
    overwrite: bool = False,
    fetch: bool = False,
    *,
    answer_s: float = ANSWER_S,
    gap_s: float = GAP_S,
    pause: Callable[[float], object] = time.sleep,
) -> Iterator[Stage]:
    """A local folder for the run at `place`: that folder itself, or one that is mirrored to the URI.

    `fetch`: begin with what is there. `answer_s`: see RemoteFolder; `gap_s`, `pause`: see Mirror. Raises
    ConfigError naming `option` where the URI is unusable, or holds something and neither `overwrite` nor `fetch` is
    set; RaysoftError where the store fails.
    """
    if isinstance(place, Path):
        yield Stage(place, place, lambda: None)
        return
    remote = RemoteFolder.open(place, option, answer_s)
    there = remote.files()
    if not fetch:
        _check_free(remote, there, option, overwrite)
    elif not there:
        raise RaysoftError(f"{place}: no such run folder")
    remote.check_writable()
    title = Path(remote.root).name or "run"  # what reports call it
    folder = Path(tempfile.mkdtemp(prefix="raysoft-")) / title
    known = {}
    if fetch:
        for name in there:
            remote.get(name, folder / name)
            known[name] = _signature(folder / name)
    mirror = Mirror(remote, folder, known, [] if fetch else there, gap_s, pause)
    try:
        yield Stage(folder, remote.uri, mirror.wake)
    except BaseException:
        _bring_home(mirror, log.warning)
        raise
    _bring_home(mirror, _fail)


def check_free(place: Path | str, option: str, overwrite: bool) -> None:
    """Whether a run may be written to a folder or URI, without writing; raises ConfigError as `staged` would."""
    if isinstance(place, Path):
        check_place(place, overwrite)
    else:
        remote = RemoteFolder.open(place, option)
        _check_free(remote, remote.files(), option, overwrite)


def _check_free(remote: RemoteFolder, there: Sequence[str], option: str, overwrite: bool) -> None:
    if there and not overwrite:
        raise ConfigError(option, f"{remote.uri} exists and is not empty; choose another folder or add --overwrite")

    def read(name: str) -> str:
        with tempfile.TemporaryDirectory(prefix="raysoft-") as scratch:
            target = Path(scratch) / "file"
            remote.get(name, target)
            return target.read_text(encoding="utf-8", errors="replace")

    check_overwrite([name for name in there if name != PROBE], read, remote.uri, option)


def _bring_home(mirror: Mirror, complain: Callable[[str], None]) -> None:
    """Copy the rest, then remove the local folder; where that fails the folder stays, and the user is told where."""
    try:
        mirror.close()
    except RaysoftError as error:
        complain(f"{error}; the run's folder is {mirror.folder}")
    else:
        shutil.rmtree(mirror.folder.parent, ignore_errors=True)


def _fail(sentence: str) -> None:
    raise RaysoftError(sentence)
