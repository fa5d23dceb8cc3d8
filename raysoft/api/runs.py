"""One run from Python: `run` and `resume`."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raysoft.api.callbacks import Callbacks, Calls
from raysoft.api.result import Result
from raysoft.api.settings import Place, Setting, Target, configuration, name_of_target, place_text, words
from raysoft.api.undisturbed import undisturbed
from raysoft.errors import ConfigError

if TYPE_CHECKING:
    from raysoft.api.watching import Watching
    from raysoft.rundir.remote import Stage
    from raysoft.runs.events import Events
    from raysoft.runs.session import Sessions


@undisturbed()
def run(
    target: Target = "soft",
    *settings: Setting | Place,
    out: Place | None = None,
    name: str | None = None,
    overwrite: bool = False,
    callbacks: Callbacks = (),
    progress: bool | None = None,
    report: bool | Mapping[str, Any] = True,
    folder: Place | None = None,
    events: Events | None = None,
    session: Sessions | None = None,
    **keys: Any,
) -> Result:
    """Train, transmit, measure; the run as a `Result`, which `raysoft.open(folder)` gives again later.

    `target` and settings: as for `raysoft.load`, so `run("soft", "train.lr=1e-2", rounds=3, executor="inline")`, or a
    configuration that `load` gave. `out`: the run's folder, or storage such as s3://bucket/run (default: outputs/NAME,
    NAME from `name` or the target; RAYSOFT_OUTPUTS replaces outputs/). `overwrite`: replace a run that is there.
    `callbacks`: objects that look on and may end the run, see `raysoft.Callback`. `progress`: False shows nothing;
    otherwise a notebook shows a display that moves, a script a line a round. `report` False draws no page and figures,
    which takes seconds off. `folder` is another word for `out`; `events`: a display of your own; `session`: where the
    coordinator lives.

    Raises ConfigError (exit code 2 of the command line), ResourceError (3) or RaysoftError (1), each with one sentence.
    KeyboardInterrupt ends the run properly, too; `raysoft.resume(folder)` goes on with it.
    """
    from raysoft.runs.loading import LOADING

    with LOADING:
        from raysoft.config import RunConfig
        from raysoft.rundir.remote import staged
        from raysoft.runs.run import run as run_config

    if isinstance(target, RunConfig) and settings and _is_place(settings[0]):
        folder, settings = _only(folder, settings[0]), settings[1:]  # in second place, as 0.1 had it
    if isinstance(report, Mapping):  # the section of the configuration, not the question whether to draw
        keys, report = {**keys, "report": report}, True
    with LOADING:
        config = configuration(target, words(settings, keys))  # type: ignore[arg-type]  # others are refused by name
    calls = Calls(callbacks)
    place = run_place(target, None if out is folder is None else _only(out, folder), name)
    home = _home(place)
    with staged(place, "--out", overwrite) as stage, _watched(stage, calls, progress, events) as watching:
        found = run_config(config, stage.folder, overwrite=overwrite, events=watching, report=report, session=session)
    return Result(stage.place if _home(stage.place) == home else home, found.notes)


@undisturbed()
def resume(
    folder: Place,
    *settings: Setting,
    callbacks: Callbacks = (),
    progress: bool | None = None,
    report: bool = True,
    overrides: Setting = (),
    events: Events | None = None,
    session: Sessions | None = None,
    may_change: Collection[str] = (),
    **keys: Any,
) -> Result:
    """Go on with a run that was interrupted or stopped, from its last checkpoint; a finished one is left as it is.

    The result is that of a run that was never interrupted, bit for bit. Settings may change what has no influence on
    it (executor, actors, tracking, report, checkpoint) and let `rounds` grow; whoever wants another result from here on
    names further keys in `may_change`. The other arguments are those of `raysoft.run`.

    Raises ConfigError naming every key that differs, RaysoftError where folder or checkpoints are damaged.
    """
    from raysoft.runs.loading import LOADING

    with LOADING:
        from raysoft.rundir.destination import expanded
        from raysoft.rundir.remote import is_uri, staged
        from raysoft.runs.run import resume as resume_run

    given = words([overrides, *settings], keys)
    calls = Calls(callbacks)
    text = place_text(folder, "DIR")
    place = text if is_uri(text) else expanded(text, "DIR")
    home = _home(place)
    with staged(place, "DIR", fetch=True) as stage, _watched(stage, calls, progress, events) as watching:
        found = resume_run(stage.folder, given, events=watching, report=report, session=session, may_change=may_change)
    return Result(stage.place if _home(stage.place) == home else home, found.notes)


def run_place(target: Target, out: Place | None, name: str | None) -> Path | str:
    """The folder (or URI) of a run, as `raysoft run` chooses it. Raises ConfigError."""
    from raysoft.rundir.destination import destination
    from raysoft.rundir.folder import check_name

    chosen = name_of_target(target) if name is None else check_name(name)
    return destination(None if out is None else place_text(out, "--out"), chosen)


def _home(place: Path | str) -> Path | str:
    """Where a place is, whatever becomes of the current folder; of storage its URI."""
    return place.absolute() if isinstance(place, Path) else place.rstrip("/")


@contextmanager
def _watched(stage: Stage, calls: Calls, progress: bool | None, events: Events | None) -> Iterator[Watching]:
    """Display and callbacks of one run."""
    from raysoft.api.progress import RunProgress, board
    from raysoft.api.watching import Watching

    shown = board(progress is not False and events is None)
    watching = Watching(
        Path(os.fspath(stage.place)).name, stage.folder.absolute(), calls, events or RunProgress(shown), stage.changed
    )
    try:
        with watching.until_the_end():
            yield watching
    finally:
        shown.close()


def _is_place(value: object) -> bool:
    return isinstance(value, os.PathLike) or (isinstance(value, str) and "=" not in value)


def _only(one: Any, other: Any) -> Any:
    """The folder that was given; a second one is refused."""
    if one is not None and other is not None:
        raise ConfigError("--out", f"the folder is given twice, as {os.fspath(one)!r} and {os.fspath(other)!r}")
    return other if one is None else one
