"""A comparison of which something failed compares what finished and says the rest; where its folders go."""

import json
import sys

import pytest

from raysoft.comparison import compare as comparison
from raysoft.comparison.batch import JobOutcome
from raysoft.comparison.compare import carry_out, plan_comparison
from raysoft.errors import ConfigError, RaysoftError
from raysoft.terminal import cli
from tests.run_folders import make_run


def planned(tmp_path, *arms, reference=None, out="out", store="store"):
    out, store = (None if place is None else tmp_path / place for place in (out, store))
    return plan_comparison(arms, seeds=2, out=out, store=store, reference=reference)


@pytest.fixture
def failing(tmp_path, monkeypatch):
    """Arms whose label holds `broken` fail with every seed, `half` with seed 1."""

    def run_batch(jobs, store, workers, events):
        return [outcome(job) for job in jobs]

    def outcome(job):
        seed = job.config.seed
        if "broken" in job.label or ("half" in job.label and seed):
            return JobOutcome(job, None, error="train.lr: too large")
        return JobOutcome(job, make_run(tmp_path / f"{job.label}-{seed}", seed=seed, rounds=6))

    monkeypatch.setattr(comparison, "run_batch", run_batch)


def test_what_finished_is_compared_and_what_failed_is_said(tmp_path, failing):
    found = carry_out(planned(tmp_path, "ideal", "broken: soft", "half: soft"), 1)
    assert [arm["label"] for arm in found.data["arms"]] == ["ideal", "half"]
    assert [len(arm["runs"]) for arm in found.data["arms"]] == [2, 1]
    assert found.notes == ("Arm 'broken' is left out: none of its runs finished.",)
    assert [(one.job.label, one.job.config.seed) for one in found.failed] == [("broken", 0), ("broken", 1), ("half", 1)]
    told = json.loads((tmp_path / "out" / "comparison.json").read_text())["notes"]
    assert told == [
        *found.notes,
        *(f"Failed: {run}: train.lr: too large" for run in ("broken, seed 0", "broken, seed 1", "half, seed 1")),
    ]
    assert "half, seed 1: train.lr: too large" in found.report.read_text()


def test_another_reference_is_said(tmp_path, failing):
    found = carry_out(planned(tmp_path, "soft", "b: soft rounds=3", "broken: ideal", reference="broken"), 1)
    assert found.data["reference"] == "soft"
    assert found.notes[-1] == "So the reference is 'soft', not 'broken'."
    assert {pair["arm"] for pair in found.data["pairs"]} == {"b"}


def test_nothing_finished_is_an_error_with_the_reasons(tmp_path, failing):
    with pytest.raises(RaysoftError, match=r"no run finished, so nothing is compared\n  broken, seed 0: train.lr"):
        carry_out(planned(tmp_path, "broken: soft"), 1)


def test_the_command_prints_the_tables_and_ends_with_1(tmp_path, failing, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["raysoft", "compare", "soft", "broken: ideal", "--seeds", "1"])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 1
    text = capsys.readouterr().out
    assert "accuracy %" in text
    assert "Arm 'broken' is left out" in text
    assert "broken, seed 0: train.lr: too large" in text


def test_folder_and_store_follow_the_variable(tmp_path, monkeypatch):
    monkeypatch.setenv("RAYSOFT_OUTPUTS", str(tmp_path / "else"))
    plan = planned(tmp_path, "soft", "ideal", out=None, store=None)
    assert plan.folder == tmp_path / "else" / "soft-vs-ideal"
    assert plan.store == tmp_path / "else" / "runs"
    given = planned(tmp_path, "soft", "ideal")
    assert (given.folder, given.store) == (tmp_path / "out", tmp_path / "store")
    monkeypatch.setenv("RAYSOFT_OUTPUTS", "s3://bucket/runs")
    with pytest.raises(ConfigError, match=r"RAYSOFT_OUTPUTS: s3://bucket/runs/soft-vs-ideal: .*give --out a path"):
        planned(tmp_path, "soft", "ideal", out=None)
    with pytest.raises(ConfigError, match=r"RAYSOFT_OUTPUTS: s3://bucket/runs/runs: .*give --store a path"):
        planned(tmp_path, "soft", "ideal", store=None)
