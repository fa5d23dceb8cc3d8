"""Runs stand in one table only where their figures stand on the same task, data, evaluation split and base."""

import json

import pytest

from raysoft.comparison.compare import plan_comparison
from raysoft.errors import ConfigError
from raysoft.report import write_report
from raysoft.rundir.comparable import grounds_of, refusal
from tests.run_folders import config_tree, make_run


def plan(tmp_path, *arms):
    return plan_comparison(arms, seeds=1, out=tmp_path / "out", store=tmp_path / "store")


def test_arms_of_two_tasks_are_refused_before_anything_runs(tmp_path):
    with pytest.raises(ConfigError, match=r"'soft' and 'soft-text' cannot be compared.*data.task is digits, version 1"):
        plan(tmp_path, "soft", "ideal", "soft-text")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "setting, what",
    [
        ("eval.split=validation", "eval.split is test and validation"),
        ("data.test_fraction=0.5", "data.test_fraction is 0.25 and 0.5"),
        ("data.max_test_samples=64", "data.max_test_samples is not set and 64"),
    ],
)
def test_another_set_of_test_samples_is_refused(tmp_path, setting, what):
    with pytest.raises(ConfigError) as caught:
        plan(tmp_path, "soft", f"b: soft {setting}")
    assert str(caught.value).endswith(f": {what}")


def test_what_is_simulated_may_differ(tmp_path):
    plan(tmp_path, "soft", "b: soft data.partition=iid data.clients=50 model.lora.rank=2 channel.name=rician", "ideal")


def test_text_of_another_length_is_another_test(tmp_path):
    plan(tmp_path, "soft", "b: soft data.max_length=32")  # digits have no length
    with pytest.raises(ConfigError, match=r"data.max_length is 128 and 32"):
        plan(tmp_path, "soft-text", "b: soft-text data.max_length=32")


@pytest.fixture
def mine(tmp_path):
    for name, text in (("a", "one"), ("same", "one"), ("other", "two")):
        (tmp_path / f"{name}.csv").write_text(f"text,label\n{text},x\n")
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "config.json").write_text("{}")
    common = f"model.name={tmp_path / 'base'} model.lora.train_head=true data.task=sequence-classification"
    return lambda name: f"{name}: soft {common} data.path={tmp_path / name}.csv"


def test_content_of_data_counts_and_not_its_path(tmp_path, mine):
    plan(tmp_path / "c", mine("a"), mine("same"))
    with pytest.raises(ConfigError, match=r"data.path is .*a\.csv \(blake2b [0-9a-f]{32}\) and .*other\.csv \(blake2b"):
        plan(tmp_path / "c", mine("a"), mine("other"))


def test_where_the_content_is_not_known_the_path_has_to_do():
    def side(path, content):
        data = {"task": "causal-lm", "path": path, "clients": 5}
        return grounds_of(config_tree(data=data), {"data.path": content})

    known, unknown, elsewhere = side("a", "blake2b 0"), side("a", None), side("b", None)
    assert refusal("kue", [known, unknown, unknown]) is None
    assert "data.path is a (blake2b 0) and b" in str(refusal("ke", [known, elsewhere]))


def test_reports_of_incomparable_runs_are_refused(tmp_path):
    one, two = make_run(tmp_path / "one"), make_run(tmp_path / "two")
    old = json.loads((two / "summary.json").read_text())
    other = {"data.task": "digits, version 2", "model.name": "embedded/vit-digits, version 1"}
    (two / "summary.json").write_text(json.dumps(old | {"identity": other}))
    with pytest.raises(ConfigError, match=r"two' cannot be compared.*digits, version 1 and digits, version 2"):
        write_report([one, two])
    assert not (tmp_path / "comparison.html").exists()
