"""What happens in a trial's process and in the search, with Ray Tune itself left out: a stand-in is told."""

from __future__ import annotations

import itertools
import shutil
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
from ray import tune

from raysoft.config.presets import load_config
from raysoft.distributed.resources import Machine
from raysoft.rundir.reading import read_run
from raysoft.sweep.config import parse_sweep
from raysoft.sweep.driver import run_sweep
from raysoft.sweep.folder import opened
from raysoft.sweep.points import make_sweep
from raysoft.sweep.reports import MARKER, RUN, Reports
from raysoft.sweep.search import OptunaPoints, make_scheduler
from raysoft.sweep.trial import Setup, run_trial
from raysoft.sweep.work import Work, job_of
from tests.conftest import records as rows_of
from tests.conftest import summary
from tests.run_folders import make_run, records, run_config

SMALL = {
    "rounds": 3,
    "data": {"clients": 6},
    "cohort": {"size": 3},
    "train": {"steps": 1, "batch_size": 4},
    "actors": {"pack_size": 3},
    "tracking": {"tensorboard": False},
    "metrics": {"clients": False},
}


class Told:
    """Ray Tune as trials see it. `results`: what they have reported; checkpoints are kept as copies, as Tune would."""

    def __init__(self, place):
        self.results, self.place, self.number = [], place, itertools.count()
        self.trial = self.checkpoint = None

    def report(self, metrics, *, checkpoint=None):
        kept = None
        if checkpoint is not None:
            kept = self.place / f"kept-{next(self.number)}"
            shutil.copytree(checkpoint.path, kept)
        self.results.append({**metrics, "kept": kept})

    def get_checkpoint(self):
        return self.checkpoint and tune.Checkpoint.from_directory(str(self.checkpoint))

    def get_context(self):
        return SimpleNamespace(get_trial_name=lambda: self.trial)

    def hears(self, setup, job, trial, checkpoint=None):
        """The results of a process of `trial` that begins with `checkpoint`."""
        self.results, self.trial, self.checkpoint = [], trial, checkpoint
        run_trial(setup, job, self)
        return self.results


@pytest.fixture
def told(tmp_path):
    return Told(tmp_path)


@contextmanager
def sweep_folder(path, **more):
    tree = {
        "base": "soft",
        "overrides": SMALL,
        "space": {"train.lr": {"loguniform": [0.01, 0.3]}},
        "samples": 2,
        **more,
    }
    sweep = make_sweep(parse_sweep(tree))
    with opened(path, sweep.config, resume=False) as folder:
        yield sweep, folder


def setup_of(sweep, folder, **more):
    return Setup(sweep.tree, folder.path, sweep.config.metric, sweep.mode, (Machine(2, 10**10),), **more)


def test_a_trial_tells_each_round_once_and_the_last_with_its_closing_figures(told, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with sweep_folder(tmp_path / "sweep") as (sweep, folder):
        trial = sweep.trials()[0]
        results = told.hears(setup_of(sweep, folder), job_of(trial, {}), trial.name)
        closing = summary(folder.run(trial.name))
        assert [(one["round"], one["status"]) for one in results] == [(1, "running"), (2, "running"), (3, "done")]
        assert results[-1]["final_accuracy"] == closing["final_accuracy"]
        assert results[-1]["done"]
        before = rows_of(folder.run(trial.name))

        again = setup_of(sweep, folder, replays=True)  # a second driver that has to hear of it
        results = told.hears(again, job_of(trial, {}), trial.name)
        assert [(one["round"], one["status"]) for one in results] == [(1, "running"), (2, "running"), (3, "done")]
        assert rows_of(folder.run(trial.name)) == before

        results = told.hears(again, job_of(trial, {trial.name: 2}), trial.name)  # one that was stopped stays stopped
        assert [(one["round"], one["status"]) for one in results] == [(1, "running"), (2, "running"), (3, "stopped")]


def test_a_trial_goes_on_from_another_ones_checkpoint_with_its_own_settings(told, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with sweep_folder(tmp_path / "sweep", scheduler="pbt") as (sweep, folder):
        donor, heir = sweep.trials()
        how = setup_of(sweep, folder, carries="run", explores=("train.lr",))
        first = next(one for one in told.hears(how, job_of(donor, {}), donor.name) if one["round"] == 1)
        assert {path.name for path in first["kept"].iterdir()} == {RUN, MARKER}

        changed = job_of(donor, {}) | {"values": {"train.lr": 0.123}}  # Tune hands over the donor's job, changed
        results = told.hears(how, changed, heir.name, first["kept"])
        assert results[-1]["status"] == "done", results[-1]
        assert {one["copied_from"] for one in results} == {donor.name}
        mine = read_run(folder.run(heir.name))
        assert mine.config["train"]["lr"] == 0.123
        theirs = rows_of(folder.run(donor.name))
        rows = rows_of(folder.run(heir.name))
        assert rows[:2] == theirs[:2], "the same up to the checkpoint"
        assert rows[2] != theirs[2], "then other settings"


def test_a_trial_without_the_sweeps_folder_says_what_is_needed(told, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with sweep_folder(tmp_path / "sweep") as (sweep, _folder):
        trial = sweep.trials()[0]
        away = Setup(sweep.tree, tmp_path / "elsewhere", "final_accuracy", "max", (Machine(2, 10**10),))
        (result,) = told.hears(away, job_of(trial, {}), trial.name)
    assert result["status"] == "failed"
    assert "`storage`" in result["reason"]
    assert result["final_accuracy"] < -1e20, "on the wrong side, so that no scheduler prefers it"


def test_the_run_folder_travels_through_storage(told, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with sweep_folder(tmp_path / "sweep") as (sweep, folder):
        trial = sweep.trials()[0]
        how = setup_of(sweep, folder, carries="run", storage=str(tmp_path / "store" / "sweep"))
        results = told.hears(how, job_of(trial, {}), trial.name)
        whole = rows_of(results[-1]["kept"] / RUN)
        assert len(whole) == 4
        assert summary(results[-1]["kept"] / RUN)["status"] == "done"
        assert not folder.run(trial.name).exists()
        stored = tmp_path / "store" / "sweep" / "attempt-1" / trial.name / "checkpoint_000000"
        shutil.copytree(results[0]["kept"], stored)

        last = told.hears(how, job_of(trial, {}), trial.name)[-1]  # a second driver: finds what the first one has left
        assert last["round"] == 3
        assert last["status"] == "done"
        assert rows_of(last["kept"] / RUN) == whole


def test_reports_say_the_last_known_value(told, tmp_path):
    folder = make_run(tmp_path / "run", rounds=5, finished=False)
    mine = Reports("x", "accuracy", "max", "nothing", tmp_path, told.report)
    mine.begin(run_config(rounds=5), folder, replay_to=3)
    assert [one["round"] for one in told.results] == [1, 2, 3]
    assert told.results[2]["accuracy"] == records(rounds=5)[3].accuracy
    mine.begin(run_config(rounds=5), folder, replay_to=3)
    assert len(told.results) == 3, "nothing is told twice"


def test_a_search_asks_once_a_point_and_again_for_those_of_an_interrupted_sweep():
    pytest.importorskip("optuna")
    space = {
        "train.lr": {"loguniform": [0.01, 0.3]},
        "codec.name": {"choice": ["ecsq", "topk"]},
        "train.steps": {"randint": [1, 4]},
    }
    sweep = make_sweep(parse_sweep({"base": "soft", "space": space, "samples": 4, "seeds": 2, "search": "optuna"}))

    def ask(chosen):
        noted = []
        work = Work((), tuple(chosen), frozenset(), {}, left=True)
        search = OptunaPoints(sweep, work, lambda point, values: noted.append((point, values)))
        jobs = []
        while isinstance(asked := search.suggest(f"t{len(jobs)}"), dict):
            jobs.append(asked["job"])
            name = f"t{len(jobs) - 1}"
            search.on_trial_complete(name, {"final_accuracy": asked["job"]["values"]["train.lr"], "status": "done"})
        return jobs, noted

    jobs, noted = ask([])
    assert len(jobs) == 8
    assert [job["point"] for job in jobs] == [0, 0, 1, 1, 2, 2, 3, 3]
    assert [job["seed"] for job in jobs[:2]] == [0, 1]
    assert jobs[0]["values"] == jobs[1]["values"]
    assert [values for _, values in noted] == [job["values"] for job in jobs[::2]]
    assert ask([])[0] == jobs, "seeded"
    again, noted_again = ask([values for _, values in noted[:2]])
    assert [job["values"] for job in again[:4]] == [job["values"] for job in jobs[:4]]
    assert [point for point, _ in noted_again] == [2, 3]


def test_what_pbt_explores_stays_in_the_space():
    space = {
        "train.lr": {"loguniform": [0.01, 0.3]},
        "train.steps": {"randint": [1, 4]},
        "codec.name": {"choice": ["ecsq", "topk"]},
    }
    sweep = make_sweep(parse_sweep({"base": "soft", "space": space, "samples": 4, "scheduler": "pbt"}))
    explore = make_scheduler(sweep)._custom_explore_fn
    job = {"trial": "x", "seed": 0, "values": {"train.lr": 0.36, "train.steps": 0, "codec.name": "topk"}}
    assert explore({"job": job})["job"] == {**job, "values": {"train.lr": 0.3, "train.steps": 1, "codec.name": "topk"}}


@pytest.mark.parametrize("scheduler", ["none", "asha", "hyperband"])
def test_schedulers_can_be_built(scheduler):
    sweep = make_sweep(parse_sweep({"base": "soft", "space": {"train.lr": {"grid": [0.1]}}, "scheduler": scheduler}))
    assert make_scheduler(sweep) is not None
    assert load_config("soft").rounds == sweep.rounds()


@pytest.mark.parametrize("gauges", [False, True])
def test_a_sweeps_own_ray_has_a_metrics_port_where_its_trials_show_gauges(gauges, monkeypatch, tmp_path):
    class Asked(Exception):
        pass

    def started(cpus, gauges):
        raise Asked(gauges)

    monkeypatch.setattr("raysoft.sweep.driver.running_ray", started)
    tree = {
        "base": "soft",
        "overrides": [f"tracking.prometheus={str(gauges).lower()}"],
        "space": {"train.lr": {"grid": [0.1]}},
    }
    with pytest.raises(Asked) as asked:
        run_sweep(parse_sweep(tree), tmp_path / "out", SimpleNamespace(preparing=lambda *_: None))
    assert asked.value.args == (gauges,)


def test_what_tune_carries_of_a_running_trial_keeps_the_wandb_id_and_no_open_file(told, tmp_path):
    run, scratch = tmp_path / "run", tmp_path / "scratch"
    scratch.mkdir()
    for name in ("config.yaml", "figures/a.png", "wandb/run_id", "wandb/begin.json", "wandb/offline-run-1/x.wandb"):
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_text("")
    (run / "wandb" / "latest-run").symlink_to("gone")
    reports = Reports("a", "accuracy", "max", "run", scratch, told.report)
    reports.begin(load_config("soft"), run)
    reports.checkpoint(1, run)
    reports.end("done")
    carried = []
    for kept in (one["kept"] / "run" for one in told.results):
        carried.append({item.relative_to(kept).as_posix() for item in kept.rglob("*") if item.is_file()})
    assert carried[0] == {"config.yaml", "wandb/run_id"}, "it is still writing"
    assert carried[1] == {"config.yaml", "wandb/run_id", "wandb/begin.json", "wandb/offline-run-1/x.wandb"}
