"""The offline stage: how alpha follows the rank, what is refused, what a plan says."""

import csv
import io
import json
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysoft.config.presets import load_config
from raysoft.errors import ConfigError
from raysoft.planning.stage import make_plan, planned, resolve_rank, with_rank
from raysoft.planning.table import (
    CHOSEN,
    FEASIBLE,
    Candidate,
    RankPlan,
    check_folder,
    csv_text,
    plan_json,
    ranks_of,
    summary_rows,
)
from raysoft.planning.table import text_table as table
from raysoft.report.plan_figure import save_plan_figure

TINY = [
    "executor=inline",
    "train.steps=2",
    "plan.pilot_rounds=1",
    "plan.repetitions=2",
    "plan.pilot_steps=3",
    "plan.draws=32",
]


@given(st.integers(1, 64), st.floats(0.5, 64), st.booleans(), st.integers(1, 64), st.booleans())
def test_the_scale_follows_the_rank_as_asked(reference, alpha, rslora, rank, planned_rank):
    lora = f"model.lora={{rank: {reference}, alpha: {alpha!r}, use_rslora: {str(rslora).lower()}}}"
    words = [lora, f"plan.reference_rank={reference}"]
    if planned_rank:
        words.append("model.lora.rank=plan")
    wanted = alpha / (math.sqrt(reference) if rslora else reference)
    kept = with_rank(load_config("soft", words), rank).model.lora
    assert (kept.rank, kept.use_rslora) == (rank, rslora)
    assert kept.scale() == pytest.approx(wanted, rel=1e-12)
    falling = with_rank(load_config("soft", [*words, "plan.alpha=rslora"]), rank).model.lora
    assert falling.scale() == pytest.approx(wanted * math.sqrt(reference / rank), rel=1e-12)


def test_a_rank_that_is_given_stays_and_costs_nothing():
    config = load_config("soft")
    assert resolve_rank(config) is config
    assert planned(config) == (config, None)
    assert with_rank(config, 8).config_hash() == config.config_hash()


def test_the_section_plan_counts_only_where_the_rank_is_planned():
    given_rank = [load_config("soft", words).config_hash() for words in ([], ["plan.draws=64"])]
    assert given_rank[0] == given_rank[1]
    to_plan = [load_config("soft", ["model.lora.rank=plan", *words]).config_hash() for words in ([], ["plan.draws=64"])]
    assert to_plan[0] != to_plan[1]
    assert to_plan[0] != given_rank[0]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["model.lora.rank={low: 2, high: 4}"], "model.lora.rank: the offline stage chooses one rank"),
        (["allocator.name=minmax", "allocator.latency_budget_s=null"], "allocator.latency_budget_s: is required by"),
        (["allocator.name=ideal", "uplink.name=ideal"], "uplink.name: ideal has no band to plan for"),
        (["data.proxy_fraction=0"], "data.proxy_fraction: the offline stage needs at least 4 proxy samples"),
        (["method.name=head_only", "model.lora.train_head=true"], "method.name: head_only trains no adapter"),
    ],
)
def test_what_cannot_be_planned_is_refused_in_one_sentence(words, sentence):
    with pytest.raises(ConfigError) as caught:
        make_plan(load_config("soft", [*TINY, *words]))
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "words",
    [
        ["plan.ranks=[]"],
        ["plan.ranks=[2,2]"],
        ["plan.ranks=[0]"],
        ["plan.alpha=free"],
        ["plan.repetitions=1"],
        ["plan.trim=0.5"],
        ["plan.weights.rank=-1"],
    ],
)
def test_bad_settings_of_the_plan_name_their_field(words):
    field = words[0].split("=")[0]
    with pytest.raises(ConfigError, match=rf"{field.rsplit('.', 1)[0]}"):
        load_config("soft", words)


@pytest.fixture(scope="module")
def plan():
    return make_plan(load_config("soft", [*TINY, "plan.ranks=[4,1,2,100]"]))


def test_the_score_is_the_weighted_sum_and_the_lowest_wins(plan):
    assert [one.rank for one in plan.candidates] == [1, 2, 4, 100]
    scored = [one for one in plan.candidates if one.score is not None]
    assert [one.rank for one in scored] == [1, 2, 4]
    for one in scored:
        c = plan.weights
        weighted = c["rank"] * one.phi + c["sparsification"] * one.sparsification + c["covariance"] * one.covariance
        assert one.score == pytest.approx(weighted)
        assert one.latency_mean_s <= plan.budget_s
        assert 0.0 < one.kept_fraction <= 1.0
        assert one.smallest_budget_s < plan.budget_s
    phi = [one.phi for one in plan.candidates]
    assert phi == sorted(phi, reverse=True)
    assert phi[-1] == 0.0
    best = min(scored, key=lambda one: one.score)
    assert plan.chosen_rank == plan.rank() == best.rank
    assert [one.verdict for one in plan.candidates].count(CHOSEN) == 1
    assert "no adapted matrix has a rank above 64" in plan.candidates[-1].reason


def test_the_same_seed_gives_the_same_plan_and_the_weights_decide(plan):
    words = [*TINY, "plan.ranks=[1,2,4,100]"]
    assert plan_json(make_plan(load_config("soft", words))) == plan_json(plan)
    other = make_plan(load_config("soft", [*words, "seed=1"]))
    assert plan_json(other) != plan_json(plan)
    only_rank = make_plan(load_config("soft", [*words, "plan.weights={sparsification: 0, covariance: 0}"]))
    assert only_rank.chosen_rank == 4
    assert [one.phi for one in only_rank.candidates] == [one.phi for one in plan.candidates]


def test_ranks_above_every_matrix_are_not_blamed_on_the_budget():
    with pytest.raises(ConfigError, match=r"plan\.ranks: rank 65: no adapted matrix has a rank above 64; give smaller"):
        make_plan(load_config("soft", [*TINY, "plan.ranks=[100,65]"])).rank()


def test_a_budget_that_suits_no_rank_names_the_smallest_one():
    config = load_config("soft", [*TINY, "plan.ranks=[1,8]", "allocator.latency_budget_s=0.02"])
    found = make_plan(config)
    assert found.chosen_rank is None
    assert all(one.verdict == "rejected" and one.reason for one in found.candidates)
    smallest, rank = found.smallest_budget()
    with pytest.raises(ConfigError, match=r"allocator\.latency_budget_s: 0\.02 s suits no candidate rank \(1, 8\)"):
        resolve_rank(
            config.model_copy(
                update={
                    "model": config.model.model_copy(
                        update={"lora": config.model.lora.model_copy(update={"rank": "plan"})}
                    )
                }
            )
        )
    enough = math.ceil(smallest * 1.05 * 1000) / 1000
    words = [*TINY, f"plan.ranks=[{rank}]", f"allocator.latency_budget_s={enough}"]
    assert make_plan(load_config("soft", words)).chosen_rank == rank


def test_csv_json_and_text_say_the_same(plan):
    data = json.loads(plan_json(plan))
    rows = list(csv.DictReader(io.StringIO(csv_text(plan))))
    assert [int(row["rank"]) for row in rows] == [one["rank"] for one in data["candidates"]]
    for row, one in zip(rows, data["candidates"], strict=True):
        assert row["score"] == ("" if one["score"] is None else repr(one["score"]))
    lines = table(plan).splitlines()
    assert len(lines) == 5
    assert [line.split()[0] for line in lines[1:]] == ["1", "2", "4", "100"]
    assert dict(summary_rows(plan))["chosen rank"].startswith(f"{plan.chosen_rank} (alpha")


def test_ties_go_to_the_smaller_rank_and_close_scores_are_remarked_on(plan):
    row = Candidate(
        2,
        2.0,
        4.0,
        0.1,
        kept_fraction=0.5,
        score=0.5,
        score_error=0.1,
        verdict=CHOSEN,
        bit_floor=0.01,
        smallest_budget_s=0.1,
    )
    near = replace(row, rank=4, score=0.6, verdict=FEASIBLE)
    far = replace(row, rank=8, score=0.9, verdict=FEASIBLE)
    made = RankPlan((row, near, far), 2, 0.3, plan.weights, plan.facts)
    assert dict(summary_rows(made))["chosen rank"].endswith("within two standard errors of it: rank 4")


def test_the_figure_is_the_same_bytes_for_the_same_plan(plan, tmp_path):
    for name in ("one.png", "two.png"):
        save_plan_figure(json.loads(plan_json(plan)), tmp_path / name)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()


def test_a_plan_does_not_move_into_a_folder_of_something_else(tmp_path):
    check_folder(tmp_path / "new")
    (tmp_path / "plan.json").write_text("{}")
    check_folder(tmp_path)
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(ConfigError, match=r"thesis\.tex"):
        check_folder(tmp_path)
    with pytest.raises(ConfigError, match="is a file"):
        check_folder(tmp_path / "thesis.tex")


@pytest.mark.parametrize("text", ["1,,2", "", "1,x", "1 2"])
def test_ranks_that_cannot_be_read_name_the_option(text):
    with pytest.raises(ConfigError, match=r"^--ranks: must be whole numbers with commas between them"):
        ranks_of(text)
