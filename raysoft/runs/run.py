"""One run from configuration to folder: `run` begins one, `resume` goes on with one.

A run's way to its summary is in course.py, where it stands meanwhile in standing.py, what it leaves in outcome.py.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from raysoft.config import RunConfig
from raysoft.kernels import portable
from raysoft.rundir.folder import REPORT, ROUNDS, START, Position, RunFolder
from raysoft.rundir.plugin_files import keep
from raysoft.runs.checkpoint import Checkpoint
from raysoft.runs.course import Course
from raysoft.runs.events import Events
from raysoft.runs.outcome import RunResult, closed
from raysoft.runs.radio import radio_of
from raysoft.runs.resuming import Salvaged, find_resumable, salvage
from raysoft.runs.session import Session, Sessions
from raysoft.runs.standing import Standing, to_yaml

__all__ = ["Events", "RunResult", "Session", "Sessions", "resume", "run", "to_yaml"]
log = logging.getLogger("raysoft")


def run(
    config: RunConfig,
    folder: Path | str,
    overwrite: bool = False,
    events: Events | None = None,
    report: bool = True,
    session: Sessions | None = None,
) -> RunResult:
    """Run a configuration and write its folder; `report` False leaves out figures and page, which take seconds.

    `session` puts the coordinator elsewhere than config.executor says (a trial of a sweep is one itself).
    Raises ConfigError (bad input, also found while reading data), ResourceError (does not fit this machine),
    RaysoftError (anything that ends a run). A run that ends early keeps its records, its checkpoints and a summary with
    its status; one that is refused before its first round leaves no folder.
    """
    folder, events = Path(folder), events or Events()
    portable.require(config.actors.portable)
    radio = radio_of(config)  # before anything is touched: it asks the channel, which may be somebody's plug-in
    with RunFolder(folder, overwrite=overwrite) as out:
        out.write_config(to_yaml(config))
        keep(out.path, config.plugin_files().values())
        out.write_environment(threads=config.actors.threads, radio=radio)
        course = Course(Standing(config, out, fresh=True), events, session)
        summary = course.conduct()
    return closed(out.path, config, summary, report=report, events=events, trackers=course.trackers)


def resume(
    folder: Path | str,
    overrides: Sequence[str] = (),
    events: Events | None = None,
    report: bool = True,
    session: Sessions | None = None,
    may_change: Collection[str] = (),
) -> RunResult:
    """Go on with a run where its newest sound checkpoint stands, or at round 0 where it has none.

    The result is that of a run that was never interrupted, bit for bit. `overrides` may change what has no influence on
    the result (executor, actors, tracking, report, checkpoint) and let `rounds` grow; a caller that wants another
    result from here on names further keys in `may_change`. A finished run is left alone, but for what is missing or
    damaged of it.
    Raises ConfigError naming every key that differs, RaysoftError where the folder or all checkpoints are damaged.
    """
    folder, events = Path(folder), events or Events()
    found = find_resumable(folder, overrides, may_change)
    config = found.config
    for note in found.notes:
        log.warning(note)
    if found.done is not None:
        if found.mend:
            with _reopened(folder, found.checkpoint, finished=True) as (out, _):
                out.write_summary(found.done)
        if found.redraws:  # its rounds stay as they are, also where no checkpoint vouches for them
            with RunFolder.reopen(folder, lambda: Position.of((folder / ROUNDS).read_bytes())) as out:
                out.write_config(to_yaml(config))
                out.write_summary(found.done)
        left = "nothing is left to do but its report" if found.redraws else "nothing is left to do"
        log.warning(
            f"This run has finished its {config.rounds} rounds, so {left}; "
            f"rounds={2 * config.rounds or 1}, say, lets it go on."
        )
        draw = report and (found.redraws or not (folder / REPORT).exists())
        return closed(folder, config, found.done, report=draw, events=events)
    portable.require(config.actors.portable)
    radio = radio_of(config)
    with _reopened(folder, found.checkpoint) as (out, at):
        out.write_config(to_yaml(config))
        keep(out.path, config.plugin_files().values())
        if at is None:
            out.write_environment(threads=config.actors.threads, radio=radio)
        course = Course(Standing(config, out, fresh=False, at=at), events, session)
        summary = course.conduct()
    return closed(out.path, config, summary, report=report, events=events, trackers=course.trackers)


@contextmanager
def _reopened(
    folder: Path, at: Checkpoint | None, finished: bool = False
) -> Iterator[tuple[RunFolder, Checkpoint | None]]:
    """The folder, with the rounds up to the checkpoint; they are mended first where they are not what it counts on.

    Damaged rounds can be mended by nobody but the holder of the folder's lock, so `reopen` is given a function then.
    """
    if at is None or at.records_intact:
        with RunFolder.reopen(folder, START if at is None else at.records) as out:
            yield out, at
        return
    mended: list[Salvaged] = []

    def mend() -> Position:
        mended.append(salvage(folder, at.round))
        return mended[0].position

    with RunFolder.reopen(folder, mend) as out:
        log.warning(mended[0].note(at.round, finished))
        yield out, replace(at, records=mended[0].position, records_intact=True)
