"""The line that closes a run: over how many evaluations the mean is, what the accuracy is called."""

from dataclasses import replace

import pytest

from raysoft.report import closing_rows
from raysoft.rundir.reading import read_run
from raysoft.rundir.summary import summarise
from raysoft.runs.run import RunResult
from raysoft.terminal.console import closing_table, round_line
from tests.run_folders import make_run, records, run_config


def line(tmp_path, rounds, task="digits", split="test"):
    summary = summarise(records(rounds=rounds), run_config(), {"metrics": {"last_accuracy": 0.5}})
    return closing_table(RunResult(tmp_path, summary, None, task=task, split=split)).splitlines()[0].strip()


@pytest.mark.parametrize(
    "rounds, end",
    [
        (0, "0.320 (the base; no round was evaluated)"),
        (1, "(the only evaluation)"),
        (2, "(mean of the last 2 evaluations; the saved adapter: 0.500)"),
        (5, "(mean of the last 5 evaluations; the saved adapter: 0.500)"),
        (9, "(mean of the last 5 evaluations; the saved adapter: 0.500)"),
    ],
)
def test_it_says_over_how_many_evaluations_the_mean_is(tmp_path, rounds, end):
    text = line(tmp_path, rounds)
    assert text.startswith("accuracy  0.320")
    assert text.endswith(end)
    assert ("->" in text) == (rounds > 0)


@pytest.mark.parametrize("rounds", [1, 2, 5, 7])
def test_the_untouched_base_is_no_part_of_the_mean(rounds):
    rows = records(rounds=rounds)
    found = summarise(rows, run_config(), {})
    last = [row.accuracy for row in rows[1:]][-5:]
    assert found["final_accuracy"] == pytest.approx(sum(last) / len(last), rel=1e-12)
    assert found["metrics"]["evaluations_in_mean"] == len(last)
    other_base = summarise([replace(rows[0], accuracy=0.99), *rows[1:]], run_config(), {})
    assert other_base["final_accuracy"] == found["final_accuracy"]


def test_rounds_that_were_not_evaluated_do_not_count():
    rows = [replace(row, accuracy=None) if row.round % 3 else row for row in records(rounds=7)]
    assert summarise(rows, run_config(), {})["metrics"]["evaluations_in_mean"] == 2


@pytest.mark.parametrize(
    "task, name",
    [("digits", "accuracy"), ("causal-lm", "next-token accuracy"), ("python-source", "next-byte accuracy")],
)
def test_accuracy_is_called_what_it_is(tmp_path, task, name):
    assert line(tmp_path, 5, task).startswith(f"{name}  0.320 -> ")
    assert line(tmp_path, 5, task, "validation").startswith(f"validation {name}  0.320 -> ")
    assert f"  {name} 0.320" in round_line(records(rounds=0)[0], name)
    run = read_run(make_run(tmp_path / "run", rounds=2, config={"data": {"task": task, "path": None, "clients": 100}}))
    assert closing_rows(run)[0][0] == f"{name.capitalize()}, before and after"
    chosen = replace(run, config={**run.config, "eval": {"split": "validation"}})
    assert closing_rows(chosen)[0][0] == f"Validation {name}, before and after"


def test_the_rank_of_a_plan_is_told_with_the_ranks_it_was_chosen_of(tmp_path):
    run = read_run(make_run(tmp_path / "run", rounds=2))
    summary = summarise(records(rounds=2), run_config(), {})
    assert "LoRA rank" not in dict(closing_rows(run))
    assert " rank  " not in closing_table(RunResult(run.path, summary, None))
    (run.path / "plan.json").write_text('{"chosen_rank": 8, "candidates": [{"rank": 4}, {"rank": 8}]}')
    assert dict(closing_rows(run))["LoRA rank"] == "8, chosen by the plan of 4, 8; plan.json says why"
    assert " rank  8, chosen by the plan of 4, 8: " in closing_table(RunResult(run.path, summary, None))
    (run.path / "plan.json").write_text("[]")
    assert "LoRA rank" not in dict(closing_rows(run))


def test_a_metric_called_evaluations_does_not_change_the_count():
    rows = [replace(row, metrics={**row.metrics, "evaluations": 40.0 + row.round}) for row in records(rounds=7)]
    metrics = summarise(rows, run_config(), {})["metrics"]
    assert metrics["evaluations_in_mean"] == 5
    assert metrics["final_evaluations"] == 45.0  # tsfa's solver has such a metric: the mean of rounds 3 to 7


def test_lines_wrap_between_words_on_a_terminal_and_not_at_all_elsewhere():
    import io

    from rich.console import Console

    from raysoft.terminal.console import progress_bar, say

    text = f"{'clients':>9}: one two three four five six seven eight nine ten eleven twelve a-hyphenated-word thirteen"
    shown = io.StringIO()
    say(Console(file=shown, force_terminal=True, width=40, color_system=None), text, indent=11)
    lines = shown.getvalue().rstrip().split("\n")
    assert len(lines) > 2
    assert all(len(line) <= 40 for line in lines)
    assert all(line.startswith(" " * 11) for line in lines[1:])
    assert " ".join(" ".join(lines).split()) == " ".join(text.split())
    plain = io.StringIO()
    say(Console(file=plain, width=40), text, indent=11)
    assert plain.getvalue() == text + "\n"
    bar = io.StringIO()
    with progress_bar(Console(file=bar, force_terminal=True, width=100)) as progress:
        progress.add_task("loading", total=None)
        progress.refresh()
    assert "/?" not in bar.getvalue()
