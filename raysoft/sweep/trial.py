"""One trial: a run in a process of Ray Tune, which is its coordinator. It goes on with what its run folder holds."""

from __future__ import annotations

import json
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from ray import tune as ray_tune
from ray.tune import Checkpoint

from raysoft.config import RunConfig
from raysoft.config.plugin_file import found_in
from raysoft.distributed.resources import Machine
from raysoft.errors import RaysoftError
from raysoft.federation.liveness import Pulse
from raysoft.rundir.folder import CONFIG, WANDB
from raysoft.runs.trackers.fanout import in_sweep
from raysoft.sweep.folder import FAILED, STOPPED, SWEEP, TRIALS
from raysoft.sweep.points import run_config
from raysoft.sweep.reports import RUN, Carried, Reports, Tune, read_marker
from raysoft.sweep.results import DONE
from raysoft.sweep.signs import give_sign
from raysoft.sweep.stored import newest_stored

OLD_TRIAL_S = 60.0  # how long the process of a trial may outlive its driver


@dataclass(frozen=True)
class Setup:
    """What all trials of a sweep share."""

    tree: Mapping[str, Any]
    folder: Path  # of the sweep, absolute
    metric: str
    mode: str
    share: tuple[Machine, ...]  # what the resources of a trial were planned with
    replays: bool = False  # a scheduler or search has to hear again of the rounds before an interruption
    carries: Carried = "nothing"  # what a checkpoint of Tune holds
    explores: tuple[str, ...] = ()  # keys that change on the way (population based training)
    storage: str | None = None  # where the checkpoints of Tune are, if not on a shared file system
    plugin_files: Mapping[str, bytes] = field(default_factory=dict)  # plug-ins in files of one's own, by name


def run_trial(setup: Setup, job: Mapping[str, Any], tune: Tune = ray_tune) -> None:
    """Run `job` to its end: seed, values; `until`: only tell again what was found up to there.

    The trial's name is Tune's, because population based training hands jobs from one trial to another. Whatever goes
    wrong is told as a result: Tune would only try again what fails the same way.
    """
    name = str(tune.get_context().get_trial_name())
    with Pulse(lambda: give_sign(name)), found_in(setup.plugin_files.get):
        _run_trial(setup, job, name, tune)


def _run_trial(setup: Setup, job: Mapping[str, Any], name: str, tune: Tune) -> None:
    os.chdir(os.environ.get("TUNE_ORIG_WORKING_DIR", "."))  # relative paths of a configuration start there
    scratch = Path(tempfile.mkdtemp(prefix="raysoft-trial-"))
    told = Reports(name, setup.metric, setup.mode, setup.carries, scratch, tune.report)
    try:
        with _run_folder(setup, name, tune.get_checkpoint(), scratch, told) as folder:
            config = in_sweep(run_config(setup.tree, job["values"], job["seed"]), setup.folder.name, name)
            until = job.get("until")
            told.begin(config, folder, (config.rounds if until is None else until) if setup.replays else 0)
            if until is None:
                _compute(setup, config, folder, told)
            told.end(DONE if until is None else STOPPED)
    except Exception as error:
        kind = "" if isinstance(error, RaysoftError) else f"{type(error).__name__}: "
        told.end(FAILED, f"{kind}{str(error).strip() or 'no message'}")
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _compute(setup: Setup, config: RunConfig, folder: Path, told: Reports) -> None:
    from raysoft.runs.run import resume, run
    from raysoft.sweep.session import trial_sessions

    sessions = trial_sessions(setup.share)
    if (folder / CONFIG).is_file():
        words = [f"{key}={_value(config, key)}" for key in (*setup.explores, "executor")]
        resume(folder, words, told, report=False, session=sessions, may_change=setup.explores)
    else:
        run(config, folder, overwrite=True, events=told, report=False, session=sessions)


def _value(config: RunConfig, key: str) -> str:
    value: Any = config.model_dump(mode="json")
    for word in key.split("."):
        value = value[word]
    return json.dumps(value)


@contextmanager
def _run_folder(setup: Setup, name: str, given: Checkpoint | None, scratch: Path, told: Reports) -> Iterator[Path]:
    """The trial's run folder, with what an earlier process of it, or the trial it goes on from, has left."""
    if setup.storage is not None:
        found = given or newest_stored(setup.storage, name)
        if found is not None:
            _take(found, scratch / RUN, name, told, everything=True)
            told.told = told.told if given is not None else 0  # another driver, which has heard of nothing
        yield scratch / RUN
        return
    if not (setup.folder / SWEEP).is_file():
        raise RaysoftError(
            f"{setup.folder} is not there on {socket.gethostname()}: without a shared file system a sweep needs "
            "`storage`, a path or address that all nodes reach, e.g. s3://bucket/sweeps"
        )
    folder = setup.folder / TRIALS / name
    with _alone(setup.folder / TRIALS / f".{name}.lock"):
        if given is not None:
            _take(given, folder, name, told, everything=False)
        yield folder


def _take(given: Checkpoint, folder: Path, name: str, told: Reports, everything: bool) -> None:
    """Put the run folder of a checkpoint in place; not a trial's own where it is there already."""
    with given.as_directory() as place:
        owner, tick = read_marker(Path(place))
        if owner == name:
            told.told = tick
        else:  # population based training: go on from there, with other settings
            told.copied_from = owner
        if everything or owner != name:
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(Path(place) / RUN, folder)
        if owner != name:
            shutil.rmtree(folder / WANDB, ignore_errors=True)  # the other trial's W&B run


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    lock = FileLock(str(path))
    try:
        lock.acquire(timeout=OLD_TRIAL_S)
    except Timeout:
        raise RaysoftError(f"another process has held {path} for {OLD_TRIAL_S:g} seconds") from None
    try:
        yield
    finally:
        lock.release()
