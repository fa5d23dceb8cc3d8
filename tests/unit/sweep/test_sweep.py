"""Sweeps without Ray: what a file may say, which trials follow, what of a folder is read back, what is left to do."""

from __future__ import annotations

import csv
import json
import re
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysoft.config.presets import load_config
from raysoft.config.yaml12 import parse_yaml
from raysoft.distributed.resources import Machine, plan_on_nodes, trial_bundles
from raysoft.errors import ConfigError, RaysoftError, ResourceError
from raysoft.rundir.folder import SUMMARY, check_name, record_row
from raysoft.sweep.best import best_yaml
from raysoft.sweep.config import Axis, dump, load_sweep, parse_sweep
from raysoft.sweep.folder import CHANGED, CHOSEN, FAILED, JOURNAL, STOPPED, check_folder, opened
from raysoft.sweep.metrics import lower_is_better, reading, values_so_far
from raysoft.sweep.placing import concurrency, share_of
from raysoft.sweep.points import draw, make_sweep
from raysoft.sweep.results import collect, write_results
from raysoft.sweep.shipped import describe_sweep, find_sweep, shipped_names
from raysoft.sweep.work import Work, all_trials
from tests.run_folders import make_run, records, run_config

LR = {"train.lr": {"grid": [0.1, 0.2]}}
CONFIGS = sorted((Path(__file__).parents[3] / "tune_configs").glob("*.yaml"))


def sweep_of(space=None, **more):
    return make_sweep(parse_sweep({"base": "soft", "space": space or LR, **more}))


# --------------------------------------------------------------------------------------------------------- what it says


@pytest.mark.parametrize(("tree", "sentence"), [
    ({"base": "soft"}, "space: is required"),
    ({"space": LR}, "base: is required"),
    ({"base": "soft", "space": {}}, "space"),
    ({"base": "softt", "space": LR}, "did you mean 'soft'"),
    ({"base": "soft", "space": {"train.lrr": {"grid": [1]}}}, "train.lrr: unknown key"),
    ({"base": "soft", "space": {"train.lr": {"grid": [1, 1]}}}, "appears twice"),
    ({"base": "soft", "space": {"train.lr": {"grid": []}}}, "1 to 1000 values"),
    ({"base": "soft", "space": {"train.lr": {"grid": [1], "choice": [1]}}}, "exactly one of"),
    ({"base": "soft", "space": {"train.lr": {"uniform": [1]}}}, "[low, high]"),
    ({"base": "soft", "space": {"train.lr": {"uniform": [2, 1]}}}, "must be below"),
    ({"base": "soft", "space": {"train.lr": {"loguniform": [0, 1]}}}, "must be positive"),
    ({"base": "soft", "space": {"train.lr": {"quniform": [0.1, 1, 5]}}}, "step"),
    ({"base": "soft", "space": {"train.steps": {"randint": [1, 2.5]}}}, "whole numbers"),
    ({"base": "soft", "space": {"rounds": {"randint": [1, 10**22]}}}, "from -2^62 to 2^62"),
    ({"base": "soft", "space": {"rounds": {"randint": [1, 10**400]}}}, "of numbers"),
    ({"base": "soft", "space": {"train.lr": {"quniform": [0, 1e100, 1e-100]}}}, "at most 2^62 steps"),
    ({"base": "soft", "space": {"train.lr": {"uniform": [-1, 1]}}, "samples": 1}, "train.lr"),
    ({"base": "soft", "space": {"model.lora.rank": {"grid": [8, 0]}}}, "rank"),
    ({"base": "soft", "space": {"seed": {"grid": [0, 1]}}}, "the sweep's own key seeds"),
    ({"base": "soft", "space": {"tracking.tensorboard": {"grid": [True]}}}, "does not name a setting"),
    ({"base": "soft", "space": {"model.lora": {"grid": [{"rank": 4}]}, "model.lora.rank": {"grid": [4]}}},
     "lies inside"),
    ({"base": "soft", "space": LR, "metric": "acuracy"}, "did you mean 'accuracy'"),
    ({"base": "soft", "space": LR, "metric": "bits_per_byte"}, "measured on text"),
    ({"base": "soft", "space": LR, "samples": 3}, "only grids"),
    ({"base": "soft", "space": LR, "seeds": 0}, "seeds"),
    ({"base": "soft", "space": LR, "seeds": [1, 1]}, "must differ"),
    ({"base": "soft", "space": LR, "scheduler": "ashaa"}, "choose from none, asha, hyperband, pbt"),
    ({"base": "soft", "space": LR, "scheduler": {"name": "asha", "grace": 1}}, "scheduler.grace: unknown key"),
    ({"base": "soft", "space": LR, "scheduler": "pbt"}, "pbt cannot explore"),
    ({"base": "soft", "space": {"train.lr": {"uniform": [0.1, 1]}}, "scheduler": "pbt"}, "at least 2 runs"),
    ({"base": "soft", "space": {"train.lr": {"uniform": [0.1, 1]}}, "scheduler": "pbt", "samples": 4, "seeds": 2},
     "one seed"),
    ({"base": "soft", "space": LR, "search": "optuna"}, "cannot be searched by optuna"),
    ({"base": "soft", "space": LR, "search": "bayes"}, "search"),
    ({"base": "soft", "space": LR, "executor": "cloud"}, "executor"),
    ({"base": "soft", "space": LR, "name": "../up"}, "name"),
    ({"base": "soft", "space": LR, "max_concurrent": 0}, "max_concurrent"),
    ({"base": "soft", "space": LR, "overrides": {"rounds": "x"}}, "rounds"),
    ({"base": "soft", "space": LR, "overrides": 3}, "overrides: must be a mapping"),
    ({"base": "soft", "space": LR, "nonsense": 3}, "nonsense: unknown key"),
    ({"base": "soft", "space": {"train.lr": {"loguniform": [0.1, 1]}}, "samples": 9999, "seeds": 2}, "more than 10000"),
])  # fmt: skip
def test_bad_input_is_one_sentence(tree, sentence):
    with pytest.raises(ConfigError) as caught:
        make_sweep(parse_sweep(tree))
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


@given(
    st.dictionaries(
        st.sampled_from(
            ["base", "space", "overrides", "metric", "mode", "samples", "seeds", "scheduler", "search", "x"]
        ),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just("soft"),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from(["train.lr", "grid", "uniform", "name", "rounds", ""]), inner, max_size=3
                )
            ),
            max_leaves=6,
        ),
    )
)
@settings(max_examples=150, deadline=None)
def test_whatever_a_file_holds_is_a_sweep_or_a_config_error(tree):
    try:
        sweep = make_sweep(parse_sweep({"base": "soft", "space": LR, **tree}))
    except ConfigError as error:
        assert str(error).strip()
    else:
        assert sweep.count >= 1


def test_a_file_is_read_with_words_of_the_sweep_and_of_its_runs(tmp_path):
    (tmp_path / "mine.yaml").write_text("base: soft\nrounds: 7\n")
    (tmp_path / "s.yaml").write_text(
        "base: mine.yaml\noverrides: {rounds: 8, allocator: {latency_budget_s: 0.4}}\n"
        "space: {train.lr: {grid: [0.1]}}\n"
    )
    config = load_sweep(tmp_path / "s.yaml", ["seeds=[3, 5]", "cohort.size=10", "scheduler.name=asha"])
    sweep = make_sweep(config)
    run = sweep.run_config(sweep.points[0], 5)
    assert (run.rounds, run.cohort.size, run.seed, run.train.lr) == (8, 10, 5, 0.1)
    assert run.allocator.options()["latency_budget_s"] == 0.4
    assert run.allocator.options()["v"] == 2.0, "a mapping is laid over the section, as in a file"
    assert [trial.seed for trial in sweep.trials()] == [3, 5]
    assert config.scheduler.name == "asha"
    assert parse_sweep(dump(config)) == config
    with pytest.raises(ConfigError, match="key=value"):
        load_sweep(tmp_path / "s.yaml", ["nonsense"])


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_sweeps_that_come_with_raysoft_are_valid_and_scale_by_one_key(path):
    sweep = make_sweep(load_sweep(path, ["rounds=61"]))
    assert sweep.rounds() == 61
    assert len({trial.name for trial in sweep.trials()}) == sweep.count


def test_the_main_sweep_is_rank_by_sparsity_by_budget():
    sweep = make_sweep(load_sweep(next(path for path in CONFIGS if path.stem == "rank_sparsity_latency")))
    assert list(sweep.labels.values()) == ["rank", "latency_budget_s", "min_kept_fraction"]
    assert sweep.count >= 24
    assert {sweep.run_config(values, 0).model.lora.scale() for values in sweep.points} == {2.0}


# --------------------------------------------------------------------------------------------------------------- points


def test_a_grid_is_crossed_and_everything_else_is_drawn_anew_for_each_point():
    space = {
        "model.lora.rank": {"grid": [4, 8]},
        "train.lr": {"loguniform": [1e-3, 1]},
        "codec.name": {"choice": ["ecsq", "topk"]},
    }
    sweep = sweep_of(space, samples=3, seeds=2)
    assert sweep.count == 12
    assert [values["model.lora.rank"] for values in sweep.points] == [4, 8] * 3
    assert len({values["train.lr"] for values in sweep.points}) == 6
    assert sweep == sweep_of(space, samples=3, seeds=2), "the same file is the same trials"
    names = [trial.name for trial in sweep.trials()]
    assert names[0].startswith("p0000-rank4-lr")
    assert names[0].endswith("-s0")
    assert names[1].endswith("-s1")
    assert all(len(name) <= 64 for name in names)


@pytest.mark.parametrize(
    ("axis", "check"),
    [
        ({"uniform": [0.5, 2]}, lambda x: 0.5 <= x <= 2),
        ({"loguniform": [1e-4, 1]}, lambda x: 1e-4 <= x <= 1),
        ({"quniform": [0.1, 1, 0.3]}, lambda x: min(abs(x - y) for y in (0.1, 0.4, 0.7, 1.0)) < 1e-9),
        ({"quniform": [2, 9, 3]}, lambda x: x in (2, 5, 8) and isinstance(x, int)),
        ({"randint": [1, 3]}, lambda x: x in (1, 2, 3)),
        ({"choice": ["a", None]}, lambda x: x in ("a", None)),
    ],
)
def test_draws_stay_in_their_axis_and_reach_all_of_it(axis, check):
    drawn = [draw(Axis(**axis), np.random.default_rng(n)) for n in range(300)]
    assert all(check(value) for value in drawn)
    kind = next(iter(axis))
    if kind == "loguniform":
        assert 0.35 < np.mean(np.array(drawn) < 1e-2) < 0.65, "half of the draws lie below the geometric middle"
    elif kind == "uniform":
        assert abs(np.mean(drawn) - 1.25) < 5 * 1.5 / 12**0.5 / 300**0.5
    else:
        assert len(set(drawn)) == {"quniform": 4 if isinstance(drawn[0], float) else 3, "randint": 3, "choice": 2}[kind]


def test_a_value_may_be_a_mapping_of_several_keys():
    space = {
        "model.lora": {"grid": [{"rank": 4, "alpha": 8}, {"rank": 16, "alpha": 32}]},
        "train.steps": {"grid": [{"low": 1, "high": 3}, 5]},
    }
    sweep = sweep_of(space)
    run = sweep.run_config(sweep.points[0], 0)
    assert (run.model.lora.rank, run.model.lora.alpha, run.model.lora.targets) == (4, 8.0, "attention")
    assert (run.train.steps.low, run.train.steps.high) == (1, 3)
    assert sweep.labels == {"model.lora": "rank", "train.steps": "steps"}


def test_axes_with_the_same_last_word_are_told_apart():
    sweep = sweep_of({"codec.name": {"grid": ["ecsq"]}, "method.name": {"grid": ["soft"]}, "train.lr": {"grid": [0.1]}})
    assert list(sweep.labels.values()) == ["codec", "method", "lr"]


# -------------------------------------------------------------------------------------------------------------- metrics


def test_a_metric_is_read_from_records_as_from_the_summary():
    rows, config = [record_row(row) for row in records(rounds=8, text=True)], run_config()
    values = values_so_far(rows[:4], config)
    assert reading("accuracy", values) == rows[3]["accuracy"]
    assert reading("final_accuracy", values) == pytest.approx(np.mean([row["accuracy"] for row in rows[1:4]]))
    assert reading("metrics.bits_per_byte", values) == rows[3]["metrics"]["bits_per_byte"]
    assert reading("mean_round_latency_s", values) == pytest.approx(
        np.mean([row["round_latency_s"] for row in rows[1:4]])
    )
    assert reading("metrics.unheard_of", values) is None


def test_the_direction_follows_the_metric():
    assert sweep_of(metric="final_accuracy").mode == "max"
    assert sweep_of(metric="mean_round_latency_s").mode == "min"
    assert sweep_of(metric="final_accuracy", mode="min").mode == "min"
    assert lower_is_better("final_bits_per_byte")
    assert not lower_is_better("worst10_client_accuracy")


# -------------------------------------------------------------------------------------------------------------- folders


def test_an_existing_sweep_is_refused_and_resumed_only_as_itself(tmp_path):
    config = parse_sweep({"base": "soft", "space": LR})
    here = tmp_path / "a"
    with (
        opened(here, config, resume=False),
        pytest.raises(ConfigError, match="another"),
        opened(here, config, resume=True),
    ):
        pass
    with pytest.raises(ConfigError, match="--resume"), opened(tmp_path / "a", config, resume=False):
        pass
    with opened(tmp_path / "a", config.model_copy(update={"max_concurrent": 1, "executor": "ray"}), resume=True):
        pass
    other = parse_sweep({"base": "soft", "space": LR, "seeds": 2})
    with pytest.raises(ConfigError, match="seeds is 1 there, 2 now"), opened(tmp_path / "a", other, resume=True):
        pass
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "thesis.tex").write_text("mine")
    with pytest.raises(ConfigError, match="not the folder of a sweep"), opened(tmp_path / "b", config, resume=True):
        pass
    with opened(tmp_path / "c", config, resume=True) as folder:
        assert folder.trials.is_dir(), "--resume starts a sweep where there is none"


def test_a_dry_run_sees_what_is_no_place_for_a_sweep(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"^--name: .*file is a file"):
        check_folder(tmp_path / "file", sweep_of().config, resume=False)
    with pytest.raises(ConfigError, match="is not a folder that may be written to"):
        check_folder(tmp_path / "file" / "x", sweep_of().config, resume=False)


def test_the_journal_survives_a_write_that_was_cut_short(tmp_path):
    config = parse_sweep({"base": "soft", "space": LR})
    with opened(tmp_path / "a", config, resume=False) as folder:
        folder.note(CHOSEN, point=0, values={"train.lr": 0.1})
        folder.note(STOPPED, trial="x", round=3, reason="asha")
        folder.note(FAILED, trial="y", round=0, reason="why")
        folder.note(CHANGED, trial="x", round=2, values={"train.lr": 0.3})
        with (folder.path / JOURNAL).open("a") as file:
            file.write('{"event": "stop')
        known = folder.remembered()
    with opened(tmp_path / "a", config, resume=True) as folder:
        folder.note(STOPPED, trial="z", round=1, reason="asha")
        again = folder.remembered()
    assert known.ended["x"]["round"] == 3
    assert known.ended["y"]["reason"] == "why"
    assert known.chosen[0]["values"] == {"train.lr": 0.1}
    assert known.values == {"x": {"train.lr": 0.3}}
    assert set(again.ended) == {"x", "y", "z"}
    (tmp_path / "a" / JOURNAL).write_text("nonsense\n{}\n")
    with pytest.raises(RaysoftError, match="line 1"), opened(tmp_path / "a", config, resume=True) as folder:
        folder.remembered()


@pytest.fixture
def some_runs(tmp_path):
    """A sweep of two points and two seeds: done, done; stopped early, failed before its first round."""
    sweep = sweep_of(seeds=2)
    with opened(tmp_path / "sweep", sweep.config, resume=False) as folder:
        names = [trial.name for trial in sweep.trials()]
        for seed, name in enumerate(names[:2]):
            make_run(folder.run(name), seed=seed, rounds=6)
        make_run(folder.run(names[2]), rounds=6, finished=False)
        folder.note(STOPPED, trial=names[2], round=4, reason="stopped early at round 4 by asha")
        folder.note(FAILED, trial=names[3], round=0, reason="no memory, said the sky")
        yield sweep, folder, names


def test_results_keep_figures_and_reasons(some_runs):
    sweep, folder, names = some_runs
    known = folder.remembered()
    found = collect(sweep, folder, all_trials(sweep, known), known)
    assert [row["status"] for row in found.rows] == ["done", "done", "stopped", "failed"]
    assert [row["rounds"] for row in found.rows] == [6, 6, 4, None]
    assert found.rows[2]["reason"] == "stopped early at round 4 by asha"
    assert found.rows[3]["reason"] == "no memory, said the sky"
    first = [json.loads((folder.run(name) / SUMMARY).read_text())["final_accuracy"] for name in names[:2]]
    assert [row["final_accuracy"] for row in found.rows[:2]] == first
    assert found.points[0]["final_accuracy"] == pytest.approx(np.mean(first))
    assert found.points[0]["std"]["final_accuracy"] == pytest.approx(np.std(first, ddof=1))
    assert found.points[1]["done"] == 0
    assert found.points[1]["stopped"] == 1
    assert found.best is not None
    assert found.best["point"] == 0, "a point without a finished run cannot be the best"


def test_tables_are_the_same_in_every_format(some_runs):
    sweep, folder, names = some_runs
    known = folder.remembered()
    write_results(folder, sweep, collect(sweep, folder, all_trials(sweep, known), known))
    table = pyarrow.parquet.read_table(folder.path / "results.parquet").to_pylist()
    with (folder.path / "results.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [row["trial"] for row in table] == [line["trial"] for line in lines] == names
    for row, line in zip(table, lines, strict=True):
        for key, value in row.items():
            shown = "" if value is None else str(value)
            assert line[key] == shown or float(line[key]) == value, key
    assert {"point", "lr", "final_accuracy", "final_accuracy_std", "done"} <= set(
        next(csv.reader((folder.path / "points.csv").open()))
    )


def test_the_best_point_is_ready_for_its_final_test(some_runs):
    sweep, folder, names = some_runs
    known = folder.remembered()
    write_results(folder, sweep, collect(sweep, folder, all_trials(sweep, known), known))
    best = folder.path / "best.yaml"
    trial, found, text = (
        load_config(str(folder.run(names[0]) / "config.yaml")),
        load_config(str(best)),
        best.read_text(),
    )
    full = load_config(sweep.config.base).rounds
    assert trial.rounds < full
    assert (found.rounds, found.eval.split, found.executor) == (full, "test", "ray")
    changed = {"rounds": full, "executor": "ray", "eval": {**trial.eval.model_dump(), "split": "test"}}
    assert found.model_dump() == trial.model_dump() | changed, "and nothing else"
    assert not any(name in text for name in names), "no run of the sweep is meant"
    (command,) = re.findall(r"ready for its final test: raysoft run (.*) --name (.*)\n", text)
    assert shlex.split(command[0]) == [str(best)]
    assert check_name(command[1]).endswith("-best")
    assert f"rounds: {full}, those of soft; the sweep's had {trial.rounds}" in text


def test_rounds_that_a_sweep_varies_are_those_of_the_final_test(some_runs):
    sweep, folder, names = some_runs
    trial = folder.run(names[0]) / "config.yaml"
    axis = {"rounds": Axis(grid=[3, 4])}
    varied = replace(sweep, config=sweep.config.model_copy(update={"space": axis}), labels={"rounds": "rounds"})
    text = best_yaml(varied, folder.path, {"rounds": 4, "final_accuracy": 0.5}, trial)
    assert parse_yaml(text, "best")["rounds"] == load_config(str(trial)).rounds
    assert "those of" not in text


def test_work_leaves_out_what_has_ended_and_tries_again_what_failed(some_runs):
    sweep, folder, names = some_runs
    work = Work.of(sweep, folder)
    assert work.ended == set(names[:3])
    assert work.left
    assert [job["trial"] for job in work.jobs] == names[3:]
    halving = sweep_of(seeds=2, scheduler="asha")
    jobs = Work.of(halving, folder).jobs
    assert [job["trial"] for job in jobs] == names, "a scheduler hears of all of them, ended ones first"
    assert jobs[2]["until"] == 4
    assert "until" not in jobs[3]


# --------------------------------------------------------------------------------------------------------------- places


def test_a_trial_asks_for_what_its_actors_were_sized_to():
    nodes = [Machine(cpus=16, memory_bytes=10**11, gpus=4.0)]
    sweep = sweep_of(executor="ray", overrides={"actors": {"cpus": 4, "pack_size": 5, "gpus": 0.5}})
    run = sweep.run_config(sweep.points[0], 0)
    plan = plan_on_nodes(run, nodes)
    assert trial_bundles(run, nodes) == [{}] + [plan.bundle()] * plan.actors
    assert (plan.actors, plan.bundle()["CPU"], plan.bundle()["GPU"]) == (4, 1.0, 0.5)
    assert concurrency(nodes, sweep.config, run) == 2, "8 half GPUs are two trials of four actors"
    whole = sweep_of(executor="ray", overrides={"actors": {"cpus": 4, "pack_size": 5, "gpus": 2}})
    bundles = trial_bundles(whole.run_config(sweep.points[0], 0), nodes)
    assert [bundle.get("GPU") for bundle in bundles] == [None, 2.0, 2.0]
    inline = sweep_of(overrides={"actors": {"threads": 3, "gpus": 1}})
    run = inline.run_config(inline.points[0], 0)
    assert trial_bundles(run, nodes) == [{"CPU": 3.0, "GPU": 1.0}]
    assert concurrency(nodes, inline.config, run) == 4
    with pytest.raises(ResourceError, match=r"actors\.threads=2"):
        trial_bundles(run, [Machine(cpus=2, memory_bytes=10**11, gpus=1)])
    with pytest.raises(ResourceError, match="start worker nodes"):
        trial_bundles(run, [Machine(cpus=0, memory_bytes=10**11, gpus=1)])


def test_a_cluster_that_may_grow_is_asked_for_what_a_run_would_ask():
    empty = [Machine(cpus=0, memory_bytes=10**10)]
    for executor, bundles in (("inline", 1), ("ray", 5)):
        sweep = sweep_of(executor=executor, overrides={"actors": {"wait_for_nodes_s": 600, "pack_size": 5}})
        run = sweep.run_config(sweep.points[0], 0)
        assert len(trial_bundles(run, empty)) == bundles
        assert concurrency(empty, sweep.config, run) is None


def test_max_concurrent_shares_the_cluster_out_on_few_nodes():
    nodes = [Machine(cpus=4, memory_bytes=10**10), Machine(cpus=8, memory_bytes=4 * 10**10, gpus=2)]
    share = share_of(nodes, sweep_of(max_concurrent=6).config)
    assert share == (Machine(2, 10**10, 0.5),), "a sixth of twelve cores, on the larger node"
    share = share_of(nodes, sweep_of(max_concurrent=1).config)
    assert sorted(node.cpus for node in share) == [4, 8]
    sweep = sweep_of(executor="ray", max_concurrent=4)
    run = sweep.run_config(sweep.points[0], 0)
    assert len(trial_bundles(run, share_of(nodes[1:], sweep.config))) == 3
    assert concurrency(nodes[1:], sweep.config, run) == 4
    little = [Machine(cpus=8, memory_bytes=3 * 10**9)]
    run = run.model_copy(update={"executor": "inline"})
    assert concurrency(little, sweep_of().config, run) == 6, "memory for six"


def test_a_sweep_that_comes_along_is_found_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert shipped_names() == [path.stem for path in CONFIGS]
    (tmp_path / "smoke").write_text("base: nothing\n")
    assert load_sweep("smoke").base == "soft"  # as with presets: ./smoke is the file
    assert find_sweep("./smoke") == Path("smoke")
    assert describe_sweep("smoke").startswith("A minute of everything")
    for wrong, hint in (("smok", "did you mean smoke?"), ("tune_configs/rank.yaml", "did you mean rank?")):
        with pytest.raises(ConfigError, match=re.escape(hint)):
            load_sweep(wrong)
