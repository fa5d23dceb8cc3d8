"""`raysoft plan --validate N`: does the rank with the lowest score also learn best? Every feasible rank, N seeds.

The runs are the configuration's own (its rounds, its budget), evaluated on the validation split: test samples decide
nothing. Ranks of a seed share data split, cohorts and channels, so differences are paired by seed.
Shapes: R feasible ranks, ascending; S seeds.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from raysoft.comparison.arms import check_workers
from raysoft.comparison.batch import BatchEvents, Job, run_batch
from raysoft.comparison.bound import TERMS, Calibration, ScoreOrder, calibrate, ranking
from raysoft.comparison.statistics import Difference, mean_std, paired_difference
from raysoft.config import RunConfig
from raysoft.errors import ConfigError, RaysoftError
from raysoft.planning.stage import with_rank
from raysoft.planning.table import VALIDATION, Candidate, RankPlan
from raysoft.quantities import number
from raysoft.rng import Rng
from raysoft.rundir.folder import strict, write_atomic
from raysoft.rundir.reading import read_run
from raysoft.types import Array

MAX_SEEDS = 10_000
LAST_SEED = 2**63 - 1  # of a configuration


@dataclass(frozen=True)
class Validation:
    """What the runs say about a plan. Regrets are accuracy(best) - accuracy(rule), 95 % t intervals over the seeds."""

    candidates: tuple[Candidate, ...]
    seeds: tuple[int, ...]  # those of which every rank has a finished run
    rounds: int
    accuracy_RS: Array
    best_rank: int  # of the largest mean accuracy; ties to the smaller
    chosen_rank: int
    middle_rank: int
    regret: Difference
    middle_regret: Difference
    chosen_over_middle: Difference
    order: ScoreOrder  # Kendall's tau of -score and accuracy
    fitted: Calibration
    fitted_rank: int  # what the fitted constants would choose
    failed: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """validation.json."""
        ranks = []
        for one, row_S in zip(self.candidates, self.accuracy_RS, strict=True):
            mean, std = mean_std(row_S)
            ranks.append(
                {"rank": one.rank, "score": one.score, "accuracy_mean": mean, "accuracy_std": std, "accuracy": row_S}
            )
        return {
            "split": "validation",
            "seeds": list(self.seeds),
            "rounds": self.rounds,
            "ranks": ranks,
            "best_rank": self.best_rank,
            "chosen_rank": self.chosen_rank,
            "middle_rank": self.middle_rank,
            "regret": asdict(self.regret),
            "middle_regret": asdict(self.middle_regret),
            "chosen_minus_middle": asdict(self.chosen_over_middle),
            "kendall_tau": asdict(self.order),
            "fitted_on_these_runs": {
                "weights": dict(self.fitted.weights),
                "explained": self.fitted.explained,
                "chosen_rank": self.fitted_rank,
            },
            "failed": list(self.failed),
        }


def check_validation(config: RunConfig, seeds: int, workers: int) -> None:
    """What can be refused before the minutes of a plan. Raises ConfigError."""
    if not 1 <= seeds <= MAX_SEEDS:
        raise ConfigError("--validate", f"must be at least 1 seed and at most {MAX_SEEDS}, got {seeds}")
    if config.seed + seeds > LAST_SEED + 1:
        raise ConfigError("seed", f"{config.seed} leaves no {seeds} seeds up to 2^63 - 1 for --validate")
    check_workers(workers)


def jobs_of(config: RunConfig, plan: RankPlan, seeds: int) -> list[Job]:
    """Every feasible rank with each of the seeds config.seed, config.seed + 1, ...; ranks of a seed next to each other.

    Raises ConfigError where the plan left no rank.
    """
    plan.rank()
    evaluation = config.eval.model_copy(update={"split": "validation"})
    jobs = []
    for seed in range(config.seed, config.seed + seeds):
        settings = config.model_copy(update={"seed": seed, "eval": evaluation})
        jobs += [Job(f"rank-{one.rank}", with_rank(settings, one.rank)) for one in _feasible(plan)]
    return jobs


def validate(
    config: RunConfig, plan: RankPlan, seeds: int, store: Path, workers: int = 2, events: BatchEvents | None = None
) -> Validation:
    """Run what the store does not hold yet, and compare.

    Raises ConfigError as `check_validation`, RaysoftError where no seed has all of its runs.
    """
    check_validation(config, seeds, workers)
    candidates = _feasible(plan)
    jobs = jobs_of(config, plan, seeds)
    outcomes = run_batch(jobs, store, workers, events)
    found: dict[int, dict[int, float]] = {}
    failed = []
    for outcome in outcomes:
        seed, rank = outcome.job.config.seed, outcome.job.config.model.lora.max_rank()
        if outcome.folder is None:
            failed.append(f"rank {rank}, seed {seed}: {outcome.error}")
            continue
        accuracy = (read_run(outcome.folder).summary or {}).get("final_accuracy")
        if accuracy is None:
            failed.append(f"rank {rank}, seed {seed}: no accuracy; is the validation split empty?")
        else:
            found.setdefault(seed, {})[rank] = float(accuracy)
    whole = [seed for seed in sorted(found) if len(found[seed]) == len(candidates)]
    if not whole:
        more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
        raise RaysoftError(f"no seed has a finished run of every rank: {failed[0]}{more}")
    accuracy_RS = np.array([[found[seed][one.rank] for seed in whole] for one in candidates])
    return compare_ranks(candidates, plan.rank(), whole, accuracy_RS, config.rounds, tuple(failed))


def compare_ranks(
    candidates: Sequence[Candidate],
    chosen: int,
    seeds: Sequence[int],
    accuracy_RS: Array,
    rounds: int,
    failed: tuple[str, ...] = (),
) -> Validation:
    """Regret, rank correlation and fitted constants from accuracies; candidates have scores and ascending ranks."""
    ranks = [one.rank for one in candidates]
    best = int(np.argmax(accuracy_RS.mean(axis=1)))  # the first of equals
    mine, middle = ranks.index(chosen), (len(ranks) - 1) // 2
    terms_R3 = np.array([[one.phi, one.sparsification, one.covariance] for one in candidates], dtype=np.float64)
    score_R = np.array([one.score for one in candidates], dtype=np.float64)
    group_N = np.tile(np.arange(len(seeds)), len(ranks))
    fitted = calibrate(np.repeat(terms_R3, len(seeds), axis=0), accuracy_RS.ravel(), group_N)
    refit_R = terms_R3 @ [fitted.weights[name] for name in TERMS]
    return Validation(
        candidates=tuple(candidates),
        seeds=tuple(seeds),
        rounds=rounds,
        accuracy_RS=accuracy_RS,
        best_rank=ranks[best],
        chosen_rank=chosen,
        middle_rank=ranks[middle],
        regret=paired_difference(accuracy_RS[best], accuracy_RS[mine]),
        middle_regret=paired_difference(accuracy_RS[best], accuracy_RS[middle]),
        chosen_over_middle=paired_difference(accuracy_RS[mine], accuracy_RS[middle]),
        order=ranking(np.repeat(score_R, len(seeds)), accuracy_RS.ravel(), Rng(seeds[0]), group_N),
        fitted=fitted,
        fitted_rank=ranks[int(np.argmin(refit_R))],
        failed=failed,
    )


def _feasible(plan: RankPlan) -> tuple[Candidate, ...]:
    return tuple(one for one in plan.candidates if one.score is not None)


def write_validation(folder: Path, found: Validation) -> None:
    """validation.json beside the plan."""
    write_atomic(folder / VALIDATION, json.dumps(strict(found.as_dict()), indent=2, allow_nan=False) + "\n")


def validation_rows(found: Validation) -> list[tuple[str, str]]:
    """Names and texts, one a line, for a terminal."""
    seeds = f"{len(found.seeds)} seed{'s' if len(found.seeds) > 1 else ''}"
    rows = [("validated", f"{len(found.candidates)} ranks x {seeds}, {found.rounds} rounds each, validation split")]
    for one, row_S in zip(found.candidates, found.accuracy_RS, strict=True):
        mean, std = mean_std(row_S)
        spread = "" if std is None else f" ± {std:.4f}"
        marks = [
            name
            for name, rank in (("chosen", found.chosen_rank), ("best", found.best_rank), ("middle", found.middle_rank))
            if rank == one.rank
        ]
        rows.append(
            (f"rank {one.rank}", f"accuracy {mean:.4f}{spread}  score {one.score:.3f}  {', '.join(marks)}".rstrip())
        )
    rows += [
        ("regret", f"{_points(found.regret)} (rank {found.best_rank} - rank {found.chosen_rank})"),
        ("of middle", f"{_points(found.middle_regret)} (always rank {found.middle_rank})"),
        ("gain", f"{_points(found.chosen_over_middle)} of the chosen over the middle rank"),
        ("Kendall tau", _tau(found.order) + " of -score and accuracy"),
        ("fitted", _fitted(found.fitted, found.fitted_rank, len(found.candidates))),
    ]
    return rows + [("failed", text) for text in found.failed]


def _points(one: Difference) -> str:
    interval = "" if one.low is None or one.high is None else f" [{_signed(one.low)}, {_signed(one.high)}]"
    return f"{_signed(one.difference)} points{interval}"


def _signed(share: float) -> str:
    return number(share, 100.0, 2, signed=True)


def _tau(one: ScoreOrder) -> str:
    if one.tau is None or one.low is None or one.high is None:
        return "not defined (all equal)"
    tau, low, high = (number(value, digits=2, signed=True) for value in (one.tau, one.low, one.high))
    return f"{tau} [{low}, {high}]"


def _fitted(fitted: Calibration, rank: int, ranks: int) -> str:
    weights: Mapping[str, float] = fitted.weights
    if max(weights.values()) == 0.0:
        return "no constants: no term explains these runs"
    share = "" if fitted.explained is None else f", {number(fitted.explained, 100.0, 0)} % of the variance within seeds"
    return (
        f"{weights['rank']:.3g} phi + {weights['sparsification']:.3g} eps + {weights['covariance']:.3g} kappa "
        f"(fitted on these runs{share}), which chooses rank {rank}"
        + ("" if ranks > len(TERMS) else f"; {ranks} ranks cannot tell three constants apart, give at least four")
    )
