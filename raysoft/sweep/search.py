"""How Ray Tune is asked: schedulers from their sections, and a search that chooses points while the sweep goes on."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from ray.tune.schedulers import (
    ASHAScheduler,
    FIFOScheduler,
    HyperBandScheduler,
    PopulationBasedTraining,
    TrialScheduler,
)
from ray.tune.search import Searcher

from raysoft.rng import Rng
from raysoft.sweep.config import Asha, Axis, HyperBand, Pbt
from raysoft.sweep.points import Sweep, Values, draw
from raysoft.sweep.work import Job, Work, job_of

TIME = "round"


def make_scheduler(sweep: Sweep) -> TrialScheduler:
    """The scheduler of a sweep; metric and mode are Tune's own settings."""
    options, rounds = sweep.config.scheduler, sweep.rounds()
    if isinstance(options, Asha):
        grace = options.grace_rounds or max(1, rounds // 9)
        return ASHAScheduler(
            time_attr=TIME,
            max_t=max(rounds, grace, 1),
            grace_period=grace,
            reduction_factor=options.reduction_factor,
            brackets=options.brackets,
        )
    if isinstance(options, HyperBand):
        return HyperBandScheduler(time_attr=TIME, max_t=max(rounds, 1), reduction_factor=options.reduction_factor)
    if isinstance(options, Pbt):
        return PopulationBasedTraining(
            time_attr=TIME,
            perturbation_interval=options.interval_rounds or max(1, rounds // 5),
            hyperparam_mutations={"job": {"values": {key: _mutation(sweep, key) for key in sweep.config.space}}},
            quantile_fraction=options.quantile,
            resample_probability=options.resample,
            custom_explore_fn=lambda new: {"job": {**new["job"], "values": _inside(sweep, new["job"]["values"])}},
        )
    return FIFOScheduler()


def _mutation(sweep: Sweep, key: str) -> Any:
    """A list to step through, or a function that draws anew."""
    axis = sweep.config.space[key]
    if axis.listed:
        return axis.values
    drawn = iter(range(2**31))
    return lambda: draw(axis, Rng(sweep.seeds[0])(f"sweep/explore/{key}", next(drawn)))


def _inside(sweep: Sweep, values: Values) -> dict[str, Any]:
    """Explored values back in their ranges, as few digits as drawn ones have."""
    return {key: _clipped(sweep.config.space[key], value) for key, value in values.items()}


def _clipped(axis: Axis, value: Any) -> Any:
    if axis.listed:
        return value
    low, high = axis.values[:2]
    if axis.kind == "quniform":
        step = axis.values[2]
        value = low + step * round((value - low) / step)
        high = low + step * math.floor((high - low) / step + 1e-9)
    whole = axis.kind == "randint" or (all(isinstance(item, int) for item in axis.values) and axis.kind == "quniform")
    value = min(max(value, low), high)
    return round(value) if whole else float(f"{value:.6g}")


class OptunaPoints(Searcher):
    """Optuna's TPE, one question a point: its seeds are trials of their own, and their mean is the answer.

    The points that an interrupted sweep has chosen are asked for again first, in their order. `note` is told every new
    one before its first trial begins.
    """

    def __init__(self, sweep: Sweep, work: Work, note: Callable[[int, Values], None]) -> None:
        import optuna

        super().__init__(metric=sweep.config.metric, mode=sweep.mode)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._sweep, self._work, self._note = sweep, work, note
        self._space = {key: _distribution(axis) for key, axis in sweep.config.space.items()}
        sampler = optuna.samplers.TPESampler(seed=sweep.seeds[0] % 2**32)
        direction = (
            optuna.study.StudyDirection.MAXIMIZE if sweep.mode == "max" else optuna.study.StudyDirection.MINIMIZE
        )
        self._study = optuna.create_study(direction=direction, sampler=sampler)
        for values in work.chosen:
            self._study.enqueue_trial(dict(values))
        self._asked: list[Any] = []
        self._waiting: list[Job] = []  # seeds of the last point that have no trial yet
        self._point_of: dict[str, int] = {}
        self._answers: dict[int, list[float | None]] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Nothing, as `save`: the journal of the sweep holds all that is needed."""
        return {}

    def suggest(self, trial_id: str) -> Any:
        """The next trial as Tune's configuration, FINISHED after the last one."""
        if not self._waiting:
            if len(self._asked) == self._sweep.config.samples:
                return Searcher.FINISHED
            self._ask()
        job = self._waiting.pop(0)
        self._point_of[trial_id] = job["point"]
        return {"job": job}

    def _ask(self) -> None:
        number = len(self._asked)
        question = self._study.ask(self._space)
        values = {key: question.params[key] for key in self._sweep.config.space}
        self._asked.append(question)
        self._answers[number] = []
        if number >= len(self._work.chosen):
            self._note(number, values)
        self._waiting = [
            job_of(self._sweep.trial(number, values, seed), self._work.stopped) for seed in self._sweep.seeds
        ]

    def on_trial_complete(self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False) -> None:
        """Take a trial's last result; the point is answered with its last seed."""
        from optuna.trial import TrialState

        point = self._point_of.pop(trial_id)
        failed = error or not result or result.get("status") == "failed" or self.metric not in result
        self._answers[point].append(None if failed or result is None else float(result[self.metric]))
        if len(self._answers[point]) < len(self._sweep.seeds):
            return
        known = [value for value in self._answers[point] if value is not None]
        if known:
            self._study.tell(self._asked[point], sum(known) / len(known))
        else:
            self._study.tell(self._asked[point], state=TrialState.FAIL)

    def save(self, checkpoint_path: str) -> None:
        """Nothing."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing."""


def _distribution(axis: Axis) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if axis.listed:
        return CategoricalDistribution(axis.values)
    low, high = axis.values[:2]
    if axis.kind == "randint":
        return IntDistribution(low, high)
    if axis.kind == "quniform":
        kind = IntDistribution if all(isinstance(value, int) for value in axis.values) else FloatDistribution
        return kind(low, high, step=axis.values[2])
    return FloatDistribution(float(low), float(high), log=axis.kind == "loguniform")
