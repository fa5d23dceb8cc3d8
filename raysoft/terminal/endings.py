"""How a command says why it has ended early, and how to go on."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

how_to_go_on: list[str] = []  # for `main`, which says why a command has ended


def forget() -> None:
    """What an earlier command of this process left."""
    how_to_go_on.clear()


@contextmanager
def resumable(folder: Path, place: Path | str, resuming: bool = False) -> Iterator[None]:
    """Where a run ends early and has left rounds: how to go on with it. `place`: where its folder is in the end.

    A resumed one that was refused before it began anew would be refused again, so nothing is said then.
    """
    from raysoft.errors import ConfigError
    from raysoft.rundir.folder import CONFIG, ROUNDS

    def rounds() -> int | None:  # the file of rounds, by its inode; None where it is not there or empty
        with suppress(OSError):
            found = (folder / ROUNDS).stat()
            return found.st_ino if found.st_size else None
        return None

    def begun() -> tuple[int, int] | None:  # the configuration, which is written first
        with suppress(OSError):
            found = (folder / CONFIG).stat()
            return found.st_ino, found.st_mtime_ns
        return None

    earlier = begun()
    before = None if resuming else rounds()  # of another run, which may not have been replaced yet
    try:
        yield
    except ConfigError:
        raise
    except BaseException as error:
        refused = resuming and begun() == earlier and not isinstance(error, KeyboardInterrupt)
        if rounds() not in (None, before) and not refused:
            how_to_go_on.append(f"go on with: raysoft resume {shlex.quote(str(place))}")
        raise


@contextmanager
def repeatable(*more: str) -> Iterator[None]:
    """Where a command over many runs is interrupted: the command that goes on with them."""
    try:
        yield
    except KeyboardInterrupt:
        how_to_go_on.append(f"go on with: {shlex.join(['raysoft', *sys.argv[1:], *more])}")
        raise


def say(sentence: str) -> None:
    """Why the command has ended, and how to go on."""
    print("; ".join([f"raysoft: {sentence}", *how_to_go_on]), file=sys.stderr)
