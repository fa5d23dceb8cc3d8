"""raysoft from Python, as a script, a notebook and a page of documentation use it, with real runs."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import raysoft
from raysoft.errors import ConfigError, RaysoftError
from raysoft.rundir.summary import final_words
from tests.conftest import SMALL_RUN, records

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/python.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, flags=re.S)
LONG = ("raysoft.compare(", "raysoft.tune(", "raysoft.plan(", "raysoft.resume(")  # in blocks that take longer
NOTEBOOKS = sorted((ROOT / "docs/notebooks").glob("*.ipynb"))
QUICK = {"progress": False, "report": False}


def small(**more):
    return {"executor": "inline", **more}


class Until:
    """Ends a run after a round, by a word or by a fault."""

    def __init__(self, last, fault=None):
        self.last, self.fault, self.ends = last, fault, []

    def on_round(self, run, record):
        if record.round == self.last:
            if self.fault is not None:
                raise self.fault
            return "stop"
        return None

    def on_end(self, run, summary):
        self.ends.append(summary["status"])


def test_a_run_that_a_callback_ends_goes_on_as_if_nothing_had_happened(tmp_path):
    whole = raysoft.run("soft", SMALL_RUN, small(), out=tmp_path / "whole", **QUICK)
    seldom, never = ({"checkpoint": {"every": every}} for every in (50, None))  # none would be due
    stop = Until(1)
    stopped = raysoft.run("soft", SMALL_RUN, small(), seldom, out=tmp_path / "a", callbacks=stop, **QUICK)
    assert (stopped.status, stop.ends, len(stopped.rounds)) == ("stopped", ["stopped"], 2)
    assert stopped.summary["rounds"] == 1
    assert stopped.adapter.values  # it ends properly
    assert stopped.summary["adapter_sha256"]
    resumed = raysoft.resume(tmp_path / "a", **QUICK)
    assert resumed.status == "done"
    assert resumed.summary["adapter_sha256"] == whole.summary["adapter_sha256"]
    assert records(whole.folder) == records(resumed.folder)

    fault = Until(2, KeyError("x"))
    with pytest.raises(RaysoftError, match=r"^the callback Until.on_round raised KeyError: 'x'$"):
        raysoft.run("soft", SMALL_RUN, small(), never, out=tmp_path / "b", callbacks=[fault], **QUICK)
    failed = raysoft.open(tmp_path / "b")
    assert (failed.status, fault.ends, len(failed.rounds)) == ("failed", ["failed"], 3)
    assert failed.summary["metrics"]["error"] == "the callback Until.on_round raised KeyError: 'x'"
    resumed = raysoft.resume(tmp_path / "b", **QUICK)
    assert resumed.summary["adapter_sha256"] == whole.summary["adapter_sha256"]
    assert records(whole.folder) == records(resumed.folder)


def test_stop_at_the_last_round_or_before_the_first(tmp_path):
    at_end = raysoft.run("soft", SMALL_RUN, small(rounds=1), out=tmp_path / "a", callbacks=Until(1), **QUICK)
    assert at_end.status == "done"  # nothing was left

    class AtOnce:
        def on_start(self, run):
            return "stop"

    at_once = raysoft.run("soft", SMALL_RUN, small(rounds=1), out=tmp_path / "b", callbacks=AtOnce(), **QUICK)
    assert (at_once.status, len(at_once.rounds)) == ("stopped", 1)
    assert raysoft.resume(at_once, **QUICK).summary["adapter_sha256"] == at_end.summary["adapter_sha256"]


def test_a_run_stays_where_it_began_when_a_callback_changes_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "else").mkdir()

    class Leaves:
        def on_round(self, run, record):
            os.chdir(tmp_path / "else")

        def on_end(self, run, summary):
            self.heard = run.folder, summary["status"]

    found = raysoft.run("soft", SMALL_RUN, small(rounds=1), out="run", callbacks=(one := Leaves()), **QUICK)
    assert (found.folder, found.status, one.heard) == (tmp_path / "run", "done", (tmp_path / "run", "done"))
    assert len(found.rounds) == 2
    assert not list((tmp_path / "else").iterdir())


IN_THREADS = """
import json, sys, threading
import raysoft

def run(seed):
    found = raysoft.run("soft", json.loads(sys.argv[1]), seed=seed, out=f"run-{seed}", progress=False, report=False)
    print(found.status)

threads = [threading.Thread(target=run, args=(seed,)) for seed in (1, 2)]
[one.start() for one in threads]
[one.join() for one in threads]
"""


def test_two_first_runs_of_a_process_may_begin_in_threads(tmp_path):
    words = json.dumps([*SMALL_RUN, "rounds=0", "executor=inline"])
    done = subprocess.run(
        [sys.executable, "-c", IN_THREADS, words], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == ["done", "done"], done.stderr[-2000:]


def test_a_run_that_ends_with_a_round_without_evaluation_vouches_for_no_accuracy(tmp_path):
    for name, last, words in (("a", 1, "no round was evaluated"), ("b", 3, "the saved adapter was not evaluated")):
        stopped = raysoft.run(
            "soft", SMALL_RUN, small(rounds=9), eval={"every": 2}, out=tmp_path / name, callbacks=Until(last), **QUICK
        )
        assert stopped.summary["metrics"]["last_accuracy"] is None
        assert words in final_words(stopped.summary["metrics"], "-")


def test_a_finished_run_is_drawn_as_resume_is_told(tmp_path):
    raysoft.run("soft", SMALL_RUN, small(rounds=0), out=tmp_path / "run", **QUICK)
    kept = [tmp_path / "run" / name for name in ("summary.json", "rounds.jsonl")]
    before = [path.read_bytes() for path in kept]
    drawn = raysoft.resume(tmp_path / "run", {"report": {"formats": ["csv"]}}, progress=False)
    assert {path.suffix for path in (drawn.folder / "figures").iterdir()} == {".csv"}
    assert drawn.config.report.formats == ["csv"]
    assert [path.read_bytes() for path in kept] == before


def test_what_0_1_could_do_goes_on_working(tmp_path):
    config = raysoft.load_config("soft", [*SMALL_RUN, "rounds=0", "executor=inline"])
    result = raysoft.run(config, tmp_path / "run", report=False)
    assert (result.folder, result.report, result.notes) == (tmp_path / "run", None, {})
    assert raysoft.resume(str(tmp_path / "run"), ["rounds=1"], report=False).summary["rounds"] == 1
    with pytest.raises(ConfigError, match=r"--out: .*exists and is not empty"):
        raysoft.run(config, tmp_path / "run")
    with pytest.raises(ConfigError, match="--out: the folder is given twice"):
        raysoft.run(config, tmp_path / "a", out=tmp_path / "b")


def test_a_refused_run_leaves_no_folder_and_tells_no_callback(tmp_path):
    watcher = Until(0)
    with pytest.raises(ConfigError, match=r"cohort.size"):
        raysoft.run("soft", SMALL_RUN, small(cohort={"size": 13}), out=tmp_path / "run", callbacks=watcher, **QUICK)
    assert (watcher.ends, (tmp_path / "run").exists()) == ([], False)


BEFORE_AND_AFTER = """
import json, logging, os, signal, sys, threading, warnings
import torch
import raysoft

def state():
    root = logging.getLogger()
    return {
        "environment": dict(os.environ), "threads": sorted(one.name for one in threading.enumerate()),
        "handlers": [repr(signal.getsignal(number)) for number in sorted(signal.valid_signals())],
        "root": [root.level, list(map(repr, root.handlers))], "torch": torch.get_num_threads(),
        "filters": list(map(repr, warnings.filters)), "folder": os.getcwd(), "hook": repr(sys.excepthook),
    }

torch.set_num_threads(2)
before = state()
raysoft.run("soft", json.loads(sys.argv[1]), out="run", progress=True)
after = state()
print("changed:", {key: (before[key], after[key]) for key in before if before[key] != after[key]})
"""


def left_behind(executor, folder):
    words = [*SMALL_RUN, "rounds=1", f"executor={executor}"]
    command = [sys.executable, "-c", BEFORE_AND_AFTER, json.dumps(words)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr
    assert "round    1  accuracy" in done.stdout
    assert "\x1b" not in done.stdout
    return done.stdout.splitlines()[-1]


def test_a_run_leaves_the_process_as_it_was(tmp_path):
    assert left_behind("inline", tmp_path) == "changed: {}"


@pytest.mark.slow
def test_a_run_on_ray_leaves_the_process_as_it_was(tmp_path):
    assert left_behind("ray", tmp_path) == "changed: {}"


# ------------------------------------------------------------------------------------------------ page and notebooks


def run_blocks(blocks, folder, monkeypatch):
    monkeypatch.chdir(folder)
    names = {"__name__": "examples"}
    for number, block in enumerate(blocks):
        exec(compile(block, f"docs/python.md, example {number + 1}", "exec"), names)
    return names


def test_the_examples_of_the_page_run(tmp_path, monkeypatch):
    quick = [block for block in BLOCKS if not any(call in block for call in LONG)]
    assert len(quick) == 4
    names = run_blocks(quick, tmp_path, monkeypatch)
    assert names["result"].status == "done"
    assert (tmp_path / "accuracy.pdf").is_file()


@pytest.mark.slow
def test_all_examples_of_the_page_run(tmp_path, monkeypatch):
    assert any("raysoft.tune(" in block for block in BLOCKS)
    names = run_blocks(BLOCKS, tmp_path, monkeypatch)
    assert len(names["found"].runs) == 4


def test_the_page_names_everything_that_is_offered():
    for name in raysoft.__all__:
        assert name.startswith("_") or name in PAGE, name


@pytest.mark.slow
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_notebooks_run(notebook, tmp_path, monkeypatch):
    import nbformat
    from nbclient import NotebookClient

    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    for name in ("CONFIG", "DATA", "RUNTIME"):
        monkeypatch.setenv(f"JUPYTER_{name}_DIR", str(tmp_path / "jupyter" / name.lower()))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    notes = nbformat.read(notebook, as_version=4)
    work = tmp_path / "work"
    work.mkdir()
    place = {"metadata": {"path": str(work)}}
    done = NotebookClient(notes, timeout=250, kernel_name="python3", resources=place).execute()
    outputs = [output for cell in done.cells if cell.cell_type == "code" for output in cell.outputs]
    kinds = {kind for output in outputs for kind in output.get("data", {})}
    assert {"image/png", "text/html"} <= kinds
    assert not [output for output in outputs if output.output_type == "error"]
    displays = [output for output in outputs if output.output_type == "display_data"]
    assert any("ended after" in output["data"].get("text/html", "") for output in displays)


def test_there_are_two_notebooks():
    assert [path.stem for path in NOTEBOOKS] == ["comparison", "first_run"]
