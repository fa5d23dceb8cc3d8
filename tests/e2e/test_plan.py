"""`raysoft plan` and `model.lora.rank=plan` as a user meets them."""

import csv
import json

import yaml

from raysoft.config.presets import load_config
from raysoft.planning.stage import make_plan
from raysoft.planning.table import write_plan
from raysoft.runs.run import run
from tests.command import raysoft
from tests.conftest import SMALL_RUN, records, summary

TINY = ["plan.pilot_rounds=1", "plan.repetitions=2", "plan.pilot_steps=3", "plan.draws=32", "train.steps=2"]


def test_a_plan_prints_a_table_and_leaves_three_files(tmp_path):
    out = tmp_path / "mine"
    done = raysoft("plan", "soft", *TINY, "--ranks", "1,2,4", "--out", str(out))
    assert done.returncode == 0, done.stderr
    assert sorted(item.name for item in out.iterdir()) == ["plan.json", "plan.png", "table.csv"]
    plan = json.loads((out / "plan.json").read_text())
    rows = list(csv.DictReader((out / "table.csv").open()))
    assert [row["rank"] for row in rows] == ["1", "2", "4"]
    scores = {int(row["rank"]): float(row["score"]) for row in rows if row["score"]}
    assert plan["chosen_rank"] == min(scores, key=lambda rank: (scores[rank], rank))
    assert f"chosen rank  {plan['chosen_rank']} " in done.stdout
    for word in ("bit floor", "smallest feasible one is", "0.27 phi + 1 eps + 4.3 kappa", "proxy samples", "chosen"):
        assert word in done.stdout, word
    assert "replaced" not in done.stdout
    here = make_plan(load_config("soft", [*TINY, "plan.ranks=[1,2,4]"]))
    write_plan(out, here)
    assert json.loads((out / "plan.json").read_text()) == plan, "another process, the same plan"


def test_a_hopeless_budget_shows_the_table_and_exits_2(tmp_path):
    words = (*TINY, "allocator.latency_budget_s=0.01", "--ranks", "1,2", "--out", str(tmp_path / "x"))
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "plan.json").write_text("{}")
    done = raysoft("plan", "soft", *words)
    assert done.returncode == 2
    assert "(its earlier plan was replaced)" in done.stdout
    assert "rejected" in done.stdout
    assert "the smallest feasible budget is about" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_run_plans_first_and_equals_the_run_with_that_rank(tmp_path):
    words = [*SMALL_RUN, *TINY, "plan.ranks=[2,4]"]
    done = raysoft("run", "soft", *words, "model.lora.rank=plan", "--executor", "inline", "--out", str(tmp_path / "p"))
    assert done.returncode == 0, done.stderr
    plan = json.loads((tmp_path / "p" / "plan.json").read_text())
    assert f"the plan chose rank {plan['chosen_rank']} of 2, 4; plan.json" in done.stdout
    assert f"rank  {plan['chosen_rank']}, chosen by the plan of 2, 4: {tmp_path / 'p' / 'plan.json'}" in done.stdout
    lora = yaml.safe_load((tmp_path / "p" / "config.yaml").read_text())["model"]["lora"]
    assert lora["rank"] == plan["chosen_rank"]
    assert lora["alpha"] == 2.0 * plan["chosen_rank"]
    given = [f"model.lora.rank={lora['rank']}", f"model.lora.alpha={lora['alpha']}"]
    config = load_config("soft", [*words, *given], "inline")
    run(config, tmp_path / "g")
    assert records(tmp_path / "p") == records(tmp_path / "g")
    for key in ("config_hash", "adapter_sha256"):
        assert summary(tmp_path / "p")[key] == summary(tmp_path / "g")[key]
    assert not (tmp_path / "g" / "plan.json").exists()
    run(config.model_copy(update={"rounds": 0}), tmp_path / "p", overwrite=True)
    assert not (tmp_path / "p" / "plan.json").exists(), "an old run's plan goes with it"


def test_show_and_dry_run_know_a_rank_to_be_planned():
    shown = raysoft("show", "soft", "model.lora.rank=plan")
    assert shown.returncode == 0, shown.stderr
    assert yaml.safe_load(shown.stdout)["model"]["lora"]["rank"] == "plan"
    dry = raysoft("run", "soft", "model.lora.rank=plan", "--dry-run")
    assert dry.returncode == 0, dry.stderr
    assert "LoRA rank plan" in dry.stdout
