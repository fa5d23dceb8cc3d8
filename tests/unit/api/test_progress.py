"""What is shown meanwhile: plain lines in a script, one display that moves in a notebook, nothing where nobody asks."""

import sys
from types import SimpleNamespace

import pytest

from raysoft.api import progress
from raysoft.api.progress import Cell, Lines, RunProgress, Silence, board, in_notebook
from raysoft.api.progress_of_many import BatchProgress, SweepProgress
from raysoft.comparison.batch import Job, JobOutcome
from tests.run_folders import records, run_config


def show_a_run(shown):
    events = RunProgress(shown)
    events.preparing(0.0, "loading model and data")
    events.preparing(0.0, "loading model and data")
    events.preparing(0.5, "pretraining")
    events.rank_chosen(4, [2, 4])
    events.started(run_config(rounds=2), {"model": "ViT"})
    for record in records(rounds=2):
        events.round(record)
    events.preparing(0.0, "drawing the report")
    shown.close()


def test_a_script_prints_lines_without_control_codes(capsys):
    show_a_run(Lines())
    text = capsys.readouterr().out
    lines = text.splitlines()
    assert not any(char in text for char in "\x1b\r\b")
    assert lines[0] == "loading model and data"
    assert lines[1].startswith("the plan chose rank 4 of 2, 4")
    assert lines[2] == "    model: ViT"
    assert [line.split()[:2] for line in lines[3:6]] == [["round", "0"], ["round", "1"], ["round", "2"]]
    assert lines[6:] == ["drawing the report"]


class Handle:
    def __init__(self, bundle):
        self.shown = [bundle]

    def update(self, bundle, raw):
        assert raw
        self.shown.append(bundle)


@pytest.fixture
def notebook(monkeypatch):
    """IPython as a kernel has it, as far as it is asked."""
    handles = []

    def display(bundle, raw, display_id):
        assert raw
        assert display_id
        handles.append(Handle(bundle))
        return handles[-1]

    shell = SimpleNamespace(kernel=object())
    ipython = SimpleNamespace(get_ipython=lambda: shell, display=SimpleNamespace(display=display), __path__=[])
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setattr(progress, "GAP_S", 0.0)
    return handles


def test_a_notebook_has_one_display_that_moves(notebook, capsys):
    assert in_notebook()
    show_a_run(board(True))
    (handle,) = notebook
    assert capsys.readouterr().out == ""
    pages = [one["text/html"] for one in handle.shown]
    assert len(pages) > 5
    assert any('value="1" max="2"' in page and "round 1 / 2" in page for page in pages)
    assert "drawing the report" in pages[-2]
    assert "ended after" in pages[-1]
    assert "<progress" not in pages[-1]  # it would go on moving
    assert "accuracy 0." in handle.shown[-1]["text/plain"]


def test_text_is_no_markup_in_a_notebook(notebook):
    shown = Cell()
    shown.say("<b>bold</b>")
    shown.close()
    assert "&lt;b&gt;" in notebook[0].shown[-1]["text/html"]


def test_a_notebook_is_not_flooded(notebook, monkeypatch):
    monkeypatch.setattr(progress, "GAP_S", 1e9)
    show_a_run(Cell())
    assert len(notebook[0].shown) == 2  # the first and the last


def test_it_can_be_switched_off(capsys):
    assert isinstance(board(False), Silence)
    show_a_run(board(False))
    assert capsys.readouterr().out == ""


def test_a_terminal_session_of_ipython_is_no_notebook(monkeypatch):
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: SimpleNamespace()))
    assert not in_notebook()
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: None))
    assert not in_notebook()
    monkeypatch.delitem(sys.modules, "IPython")
    assert isinstance(board(True), Lines)


def test_runs_of_a_comparison_and_trials_of_a_sweep_have_a_line_each(capsys, tmp_path):
    batch, jobs = BatchProgress(Lines()), [Job("soft", run_config(seed=seed)) for seed in (0, 1, 2)]
    batch.planned(3, 1, 80)
    batch.finished(JobOutcome(jobs[0], tmp_path, reused=True))
    batch.round(jobs[1], 0)
    batch.round(jobs[1], 1)
    batch.finished(JobOutcome(jobs[1], tmp_path))
    batch.finished(JobOutcome(jobs[2], None, error="no memory"))
    batch.waiting(1)
    sweep = SweepProgress(Lines())
    sweep.planned(2, 0, None)
    sweep.finished("p0", "done", "final_accuracy 0.5")
    sweep.finished("p1", "failed", "no memory")
    assert capsys.readouterr().out.splitlines() == [
        "3 runs, 1 of them done before; 80 rounds to go",
        "[2/3] soft, seed 1: done",
        "[3/3] soft, seed 2: FAILED: no memory",
        "waiting for 1 runs that another process is computing",
        "2 trials; as many as nodes come side by side",
        "[1/2] p0: final_accuracy 0.5",
        "[2/2] p1: FAILED: no memory",
    ]
