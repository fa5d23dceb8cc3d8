"""How the best point of a sweep was chosen: on which split, whether alone, and what is said of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from raysoft.sweep.best import choosing_split, chosen_on_test
from raysoft.sweep.config import load_sweep, parse_sweep
from raysoft.sweep.points import make_sweep
from raysoft.sweep.results import tied
from raysoft.terminal.sweep_console import print_sweep_plan, tie_text

CONFIGS = sorted((Path(__file__).parents[3] / "tune_configs").glob("*.yaml"))
LR = {"train.lr": {"grid": [0.1, 0.2]}}


def sweep_of(space=None, **more):
    return make_sweep(parse_sweep({"base": "soft", "space": space or LR, **more}))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_sweeps_that_come_along_do_not_choose_on_the_test_split(path):
    sweep = make_sweep(load_sweep(path))
    assert choosing_split(sweep) == "validation"
    assert chosen_on_test(sweep) is None


@pytest.mark.parametrize(
    ("more", "split", "careful"),
    [
        ({}, "test", True),
        ({"metric": "final_bits_per_byte", "base": "soft-text"}, "test", True),
        ({"metric": "uplink_bits_total"}, "test", False),  # is the same whatever is evaluated
        ({"metric": "train_loss"}, "test", False),
        ({"overrides": ["eval.split=validation"]}, "validation", False),
        ({"space": {"eval.split": {"grid": ["validation", "test"]}}}, "validation and test", True),
    ],
)
def test_who_chooses_on_the_test_split_is_told(more, split, careful):
    sweep = sweep_of(**more) if "base" not in more else make_sweep(parse_sweep({"space": LR, **more}))
    assert choosing_split(sweep) == split
    assert bool(chosen_on_test(sweep)) is careful
    if careful:
        assert "eval.split=validation" in chosen_on_test(sweep)


def test_a_plan_names_the_split(tmp_path):
    console = Console(width=200)
    with console.capture() as shown:
        print_sweep_plan(console, sweep_of(), tmp_path / "out")
    assert "largest final_accuracy, on the test split" in shown.get()


def test_points_that_are_shown_alike_are_tied():
    points = [{"done": done, "m": m} for done, m in ((1, 0.42091), (1, 0.42094), (1, 0.4211), (0, 0.42091), (1, None))]
    assert tied(points, points[0], "m") == 1
    assert tied(points, points[2], "m") == 0
    assert tie_text(0) == ""
    assert tie_text(1) == " (tied with 1 other: the first of them)"
    assert tie_text(3) == " (tied with 3 others: the first of them)"
