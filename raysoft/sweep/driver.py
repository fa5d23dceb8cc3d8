"""A sweep from its configuration to its folder: which trials are left to do, Ray Tune around them, the results.

Tune decides what runs when and where, and keeps nothing that a sweep needs after a crash: a second driver asks the run
folders and the journal (see folder.py), and gives a new Tune what is left.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raysoft.config import RunConfig
from raysoft.config.plugin_file import found_in
from raysoft.distributed.resources import Machine, trial_bundles
from raysoft.distributed.session import joins_cluster, running_ray
from raysoft.errors import ConfigError, RaysoftError, ResourceError
from raysoft.kernels import portable
from raysoft.planning.events import Preparing
from raysoft.rundir.plugin_files import PLUGINS, changed, keep, kept
from raysoft.runs.bases import ensure_bases
from raysoft.sweep.config import HyperBand, Pbt, SweepConfig
from raysoft.sweep.folder import CHOSEN, SweepFolder, opened
from raysoft.sweep.placing import concurrency, share_of
from raysoft.sweep.points import Sweep, make_sweep
from raysoft.sweep.results import Results, collect, write_results
from raysoft.sweep.work import Work, all_trials, replays

if TYPE_CHECKING:
    from raysoft.sweep.trial import Setup

log = logging.getLogger("raysoft")
RETRIES = 2  # of a trial whose process or node was lost
QUIET = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C ends the sweep at once: it can go on
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",  # of Tune's own state, which is never read
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "TUNE_WARN_INSUFFICENT_RESOURCE_THRESHOLD_S": "0",
}


class SweepEvents(Preparing):
    """What a caller may draw while a sweep goes on; these draw nothing."""

    def planned(self, total: int, done: int, at_once: int | None) -> None:
        """`total` trials, `done` of them before; `at_once` side by side (None: as many as nodes come)."""

    def round(self, trial: str, tick: int) -> None:
        """A trial has told a round."""

    def finished(self, trial: str, status: str, text: str) -> None:
        """A trial is done, stopped or failed; `text`: its metric, or the reason."""


@dataclass(frozen=True)
class SweepResult:
    """What a finished sweep leaves."""

    sweep: Sweep
    folder: Path
    results: Results
    report: Path


def run_sweep(config: SweepConfig, path: Path, events: SweepEvents, resume: bool = False) -> SweepResult:
    """Run a sweep, or go on with it, and write its tables and report.

    Trials that fail do not stop the others. Raises ConfigError before Ray starts for bad input, for a folder that
    exists (without `resume`) or holds another sweep, ResourceError where no trial fits, RaysoftError. With `resume`,
    plug-ins in files of one's own are those that the sweep began with.
    """
    with kept(path) if resume else nullcontext():
        sweep = make_sweep(config)
        files = sweep.plugin_files()
    for text in changed(files.values()):
        log.warning(f"{text} has changed since this sweep began; it goes on with the copy in {path / PLUGINS}.")
    contents = {text: file.content for text, file in files.items()}
    with found_in(contents.get):
        return _run_sweep(sweep, path, events, resume)


def _run_sweep(sweep: Sweep, path: Path, events: SweepEvents, resume: bool) -> SweepResult:
    """`run_sweep`, while names of plug-in files stand for what the sweep began with."""
    config = sweep.config
    _check_settings(sweep)
    check_sweep_inputs(sweep)
    portable.require(_example(sweep).actors.portable)
    here = None if joins_cluster() else Machine.here(count_gpus=_example(sweep).actors.gpus > 0)
    if here is not None:
        _check_places(sweep, [here])
    with opened(path, config, resume) as folder:
        keep(folder.path, sweep.plugin_files().values())
        work = Work.of(sweep, folder)
        if work.left:
            ensure_bases(
                [sweep.run_config(values, sweep.seeds[0]) for values in sweep.points or (sweep.first(),)], events
            )
            events.preparing(0.0, "starting Ray")
            os.environ.update(QUIET)
            with running_ray(None if here is None else int(here.cpus), _example(sweep).tracking.prometheus):
                nodes = _cluster() if here is None else [here]
                _check_places(sweep, nodes)
                _tune(sweep, folder, work, nodes, events)
        events.preparing(0.0, "drawing the report")
        return conclude(sweep, folder)


def conclude(sweep: Sweep, folder: SweepFolder) -> SweepResult:
    """Tables and report from whatever the trials have left."""
    from raysoft.report.sweep.html import write_sweep_report

    known = folder.remembered()
    found = collect(sweep, folder, all_trials(sweep, known), known)
    write_results(folder, sweep, found)
    return SweepResult(
        sweep, folder.path, found, write_sweep_report(folder.path, config=_example(sweep).model_dump(mode="json"))
    )


def _check_settings(sweep: Sweep) -> None:
    """What is known to go wrong before anything starts. Raises ConfigError."""
    if sweep.config.search == "optuna" and find_spec("optuna") is None:
        raise ConfigError("search", "optuna is not installed; pip install 'raysoft[search]', or use search: random")
    if _carries(sweep) != "nothing" and _example(sweep).checkpoint.every is None:
        why = "storage" if sweep.config.storage is not None else f"scheduler {sweep.config.scheduler.name}"
        raise ConfigError("checkpoint.every", f"must be a number of rounds, because {why} needs checkpoints, got null")


def check_sweep_inputs(sweep: Sweep, download: bool = True) -> None:
    """See raysoft.runs.inputs; of every known point. Raises ConfigError naming the point."""
    from raysoft.runs.inputs import check_all_inputs

    points = sweep.points or (sweep.first(),)
    named = {", ".join(f"{key}={value}" for key, value in point.items()): point for point in points}
    check_all_inputs({name: sweep.run_config(point, sweep.seeds[0]) for name, point in named.items()}, download)


def _example(sweep: Sweep) -> RunConfig:
    return sweep.run_config(sweep.points[0] if sweep.points else sweep.first(), sweep.seeds[0])


def _carries(sweep: Sweep) -> Any:
    """What a checkpoint of Tune has to hold."""
    if sweep.config.storage is not None or isinstance(sweep.config.scheduler, Pbt):
        return "run"
    return "round" if isinstance(sweep.config.scheduler, HyperBand) else "nothing"


def _cluster() -> list[Machine]:
    from raysoft.distributed.placement import machines, total_resources

    return machines(total_resources())


def _check_places(sweep: Sweep, nodes: Sequence[Machine]) -> None:
    """Whether every known point fits into a trial's share. Raises ResourceError with a setting that does."""
    share = share_of(nodes, sweep.config)
    for values in sweep.points or (sweep.first(),):
        try:
            trial_bundles(sweep.run_config(values, sweep.seeds[0]), share)
        except ResourceError as error:
            parts = sweep.config.max_concurrent
            more = "" if parts == "auto" else f" (a trial's share: max_concurrent is {parts})"
            raise ResourceError(f"{error}{more}") from None


def _tune(sweep: Sweep, folder: SweepFolder, work: Work, nodes: Sequence[Machine], events: SweepEvents) -> None:
    """Have Ray Tune do what is left. Raises RaysoftError where Tune itself fails."""
    from ray import tune

    for name in ("ray.tune", "ray.train", "ray.air"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    setup = _setup(sweep, folder, nodes)
    at_once = concurrency(nodes, sweep.config, _example(sweep))
    events.planned(sweep.count, len(work.ended), at_once)
    searches = sweep.config.search == "optuna"  # points are chosen while the sweep goes on; else all are known
    tuner = tune.Tuner(
        _trainable(sweep, setup),
        param_space=None if searches else {"job": tune.grid_search(list(work.jobs))},
        tune_config=_tune_config(sweep, folder, work, at_once, searches),
        run_config=_run_config(sweep, folder, work, events, setup),
    )
    try:
        tuner.fit()
    except RaysoftError:
        raise
    except Exception as error:
        what = f"Ray Tune failed: {_first_cause(error)}; what is done is kept, go on with --resume"
        raise RaysoftError(what) from error
    if setup.storage is None:
        folder.forget_tune().rmdir()


def _setup(sweep: Sweep, folder: SweepFolder, nodes: Sequence[Machine]) -> Setup:
    """What every trial's process is given."""
    from raysoft.sweep.trial import Setup

    config, where = sweep.config, folder.path.resolve()
    return Setup(
        tree=sweep.tree,
        folder=where,
        metric=config.metric,
        mode=sweep.mode,
        share=share_of(nodes, config),
        replays=replays(sweep),
        carries=_carries(sweep),
        explores=tuple(config.space) if isinstance(config.scheduler, Pbt) else (),
        storage=None if config.storage is None else f"{config.storage.rstrip('/')}/{where.name}",
        plugin_files={text: file.content for text, file in sweep.plugin_files().items()},
    )


def _trainable(sweep: Sweep, setup: Setup) -> Any:
    """A trial as Tune runs it, with what it asks Ray for."""
    from ray import tune

    from raysoft.sweep.trial import run_trial

    def trial(settings: dict[str, Any]) -> None:
        run_trial(setup, settings["job"])

    def resources(settings: dict[str, Any]) -> tune.PlacementGroupFactory:
        job = settings["job"]
        return tune.PlacementGroupFactory(trial_bundles(sweep.run_config(job["values"], job["seed"]), setup.share))

    return tune.with_resources(trial, resources)


def _tune_config(sweep: Sweep, folder: SweepFolder, work: Work, at_once: int | None, searches: bool) -> Any:
    """What decides which trial runs when."""
    from ray import tune

    from raysoft.sweep.search import OptunaPoints, make_scheduler

    search = None
    if searches:
        search = OptunaPoints(sweep, work, lambda point, values: folder.note(CHOSEN, point=point, values=values))
    # HyperBand waits for all trials of a bracket, and Tune counts those that it has paused as running.
    limit = None if isinstance(sweep.config.scheduler, HyperBand) else at_once
    return tune.TuneConfig(
        metric=sweep.config.metric,
        mode=sweep.mode,
        scheduler=make_scheduler(sweep),
        search_alg=search,
        num_samples=sweep.count if searches else 1,
        max_concurrent_trials=limit,
        reuse_actors=True,
        trial_name_creator=_name,
        trial_dirname_creator=_name,
    )


def _run_config(sweep: Sweep, folder: SweepFolder, work: Work, events: SweepEvents, setup: Setup) -> Any:
    """What Tune keeps and where, whom it tells, and how often it tries again."""
    from ray import tune

    from raysoft.sweep.stored import next_attempt
    from raysoft.sweep.watch import Watch

    storage = setup.storage
    return tune.RunConfig(
        name="tune" if storage is None else next_attempt(storage),
        storage_path=str(folder.forget_tune()) if storage is None else storage,
        verbose=0,
        callbacks=[Watch(sweep, folder, work, events, _example(sweep).actors)],
        failure_config=tune.FailureConfig(max_failures=RETRIES),
        # Population based training copies checkpoints of other trials, which may have gone on meanwhile.
        checkpoint_config=tune.CheckpointConfig(num_to_keep=4 if setup.explores else 2),
    )


def _first_cause(error: Exception) -> str:
    """One line on what an error of Tune goes back to; a sentence of raysoft's own is as far as it has to go."""
    cause: BaseException = error
    while cause.__cause__ is not None and not isinstance(cause, RaysoftError):
        cause = cause.__cause__
    lines = str(cause).strip().splitlines()
    return lines[0] if lines else type(cause).__name__


def _name(trial: Any) -> str:
    return str(trial.config["job"]["trial"])
