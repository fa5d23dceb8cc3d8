"""What accuracies say about a plan: regrets, rank correlation, constants; and the jobs that give them."""

import json

import numpy as np
import pytest

from raysoft.comparison.plan_validation import (
    check_validation,
    compare_ranks,
    jobs_of,
    validate,
    validation_rows,
    write_validation,
)
from raysoft.comparison.store import key_of
from raysoft.config.presets import load_config
from raysoft.errors import ConfigError
from raysoft.planning.table import CHOSEN, FEASIBLE, Candidate, RankPlan
from tests.conftest import SMALL_RUN

TERMS = {1: (0.6, 0.0, 0.1), 4: (0.1, 0.1, 0.05), 8: (0.05, 0.2, 0.2), 16: (0.0, 0.5, 0.0)}


def candidates(chosen: int = 4) -> tuple[Candidate, ...]:
    return tuple(
        Candidate(
            rank,
            2.0,
            2.0 * rank,
            phi,
            kept_fraction=0.5,
            sparsification=eps,
            sparsification_error=0.0,
            covariance=kappa,
            covariance_error=0.0,
            score=phi + eps + kappa,
            score_error=0.0,
            bit_floor=0.01,
            smallest_budget_s=0.1,
            verdict=CHOSEN if rank == chosen else FEASIBLE,
        )
        for rank, (phi, eps, kappa) in TERMS.items()
    )


def plan(**changes) -> RankPlan:
    rejected = Candidate(32, 2.0, 64.0, 0.0, latency_mean_s=1.0, reason="the least takes 1 s")
    values = {"candidates": (*candidates(), rejected), "chosen_rank": 4, "budget_s": 0.3, "weights": {}, "facts": {}}
    return RankPlan(**{**values, **changes})


def test_regret_middle_order_and_constants_of_known_accuracies():
    constants = np.array([0.2, 0.15, 0.4])
    level = np.array([0.9, 0.8, 0.85])
    accuracy_RS = level - (np.array(list(TERMS.values())) @ constants)[:, None]
    found = compare_ranks(candidates(), 16, [0, 1, 2], accuracy_RS, 40)
    short = np.array(list(TERMS.values())) @ constants
    assert (found.best_rank, found.chosen_rank, found.middle_rank) == (4, 16, 4)
    assert found.regret.difference == pytest.approx(short[3] - short[1])
    assert found.regret.low == pytest.approx(found.regret.difference)
    assert found.middle_regret.difference == 0.0
    assert found.chosen_over_middle.difference == pytest.approx(-found.regret.difference)
    assert list(found.fitted.weights.values()) == pytest.approx(constants, abs=1e-9)
    assert found.fitted.explained == pytest.approx(1.0)
    assert found.fitted_rank == 4
    # Scores 0.7, 0.25, 0.45, 0.5 against shortfalls 0.16, 0.055, 0.12, 0.075: one of six pairs disagrees.
    assert found.order.tau == pytest.approx(4 / 6)
    assert found.order.low == found.order.high == found.order.tau
    data = found.as_dict()
    assert [one["accuracy_mean"] for one in data["ranks"]] == pytest.approx(accuracy_RS.mean(axis=1))


def test_the_best_of_equals_is_the_smaller_rank_and_one_seed_has_no_interval():
    found = compare_ranks(candidates(), 4, [7], np.full((4, 1), 0.5), 10)
    assert found.best_rank == 1
    assert (found.regret.difference, found.regret.low) == (0.0, None)
    assert found.order.tau is None
    rows = dict(validation_rows(found))
    assert rows["Kendall tau"].startswith("not defined")
    assert rows["fitted"] == "no constants: no term explains these runs"
    assert rows["regret"] == "+0.00 points (rank 1 - rank 4)"


def test_jobs_are_every_feasible_rank_with_every_seed_on_the_validation_split():
    config = load_config("soft", ["seed=5"])
    jobs = jobs_of(config, plan(), 2)
    assert [(job.config.seed, job.config.model.lora.rank) for job in jobs] == [
        (5, 1),
        (5, 4),
        (5, 8),
        (5, 16),
        (6, 1),
        (6, 4),
        (6, 8),
        (6, 16),
    ]
    assert {job.config.eval.split for job in jobs} == {"validation"}
    assert {job.config.model.lora.scale() for job in jobs} == {2.0}
    assert len({key_of(job.config) for job in jobs}) == 8
    assert jobs_of(load_config("soft", ["seed=5", "model.lora.rank=plan"]), plan(), 1)[1].config.model.lora.rank == 4
    with pytest.raises(ConfigError, match="suits no candidate rank"):
        jobs_of(config, plan(candidates=plan().candidates[-1:], chosen_rank=None), 1)


@pytest.mark.parametrize(
    ("seed", "seeds", "workers", "sentence"),
    [
        (0, 0, 1, "--validate: must be at least 1 seed and at most 10000, got 0"),
        (0, 10**9, 1, "--validate: must be at least 1 seed and at most 10000, got 1000000000"),
        (2**63 - 1, 2, 1, "seed: 9223372036854775807 leaves no 2 seeds"),
        (0, 1, 0, "--workers: must be between 1 and 256, got 0"),
    ],
)
def test_what_cannot_be_validated_is_refused_before_anything_runs(seed, seeds, workers, sentence, tmp_path):
    with pytest.raises(ConfigError) as error:
        validate(load_config("soft", [f"seed={seed}"]), plan(), seeds, tmp_path / "store", workers)
    assert sentence in str(error.value)
    assert not (tmp_path / "store").exists()
    check_validation(load_config("soft", [f"seed={2**63 - 1}"]), 1, 1)


@pytest.mark.slow
def test_a_validation_reads_its_runs_and_reuses_them(tmp_path):
    config = load_config("soft", [*SMALL_RUN, "rounds=1", "executor=inline"])
    first = validate(config, plan(), 1, tmp_path / "store", workers=1)
    folders = sorted(item.name for item in (tmp_path / "store").iterdir() if item.name.startswith("rank-"))
    assert len(folders) == 4
    for rank, accuracy in zip(TERMS, first.accuracy_RS[:, 0], strict=True):
        name = next(name for name in folders if name.startswith(f"rank-{rank}-"))
        assert json.loads((tmp_path / "store" / name / "summary.json").read_text())["final_accuracy"] == accuracy
    again = validate(config, plan(), 1, tmp_path / "store", workers=1)
    write_validation(tmp_path, again)
    assert json.loads((tmp_path / "validation.json").read_text())["regret"]["difference"] == first.regret.difference
    np.testing.assert_array_equal(first.accuracy_RS, again.accuracy_RS)
