"""Callbacks: who is told what, what ends a run, and how their own faults are named."""

from pathlib import Path
from types import SimpleNamespace

import pytest

import raysoft
from raysoft.api.callbacks import CallbackError, Calls, Running
from raysoft.api.watching import BatchWatching, StopBatch, Watching
from raysoft.comparison.batch import BatchEvents, Job, JobOutcome
from raysoft.errors import ConfigError
from raysoft.runs.events import Events
from tests.run_folders import records, run_config

RUN = Running("mine", Path("x"), config=None)
RECORD = records(rounds=1)[1]


class Notes:
    def __init__(self, answer=None, only=()):
        self.heard, self.answer, self.only = [], answer, only

    def _say(self, hook, *args):
        self.heard.append(hook)
        return self.answer if hook in self.only else None

    def on_start(self, run):
        return self._say("start")

    def on_round(self, run, record):
        return self._say(record.round)

    def on_checkpoint(self, run, folder):
        return self._say(folder.name)

    def on_end(self, run, summary):
        return self._say(summary["status"])


class Half:
    def on_round(self, run, record):
        raise ValueError("no such figure")


class Gone:
    def on_round(self, run, record):
        raise SystemExit(3)


class Shouts:
    def on_round(self, run, record):
        return "STOP"


class Typo:
    def on_rounds(self, run, record):
        """Never called."""


def test_a_run_is_told_from_start_to_end(tmp_path):
    notes = Notes()
    watching = Watching("mine", tmp_path, Calls(notes), Events())
    with watching.until_the_end():
        watching.started(run_config(), {"model": "m"})
        watching.round(RECORD)
        watching.checkpoint(1, tmp_path / "round-1")
        watching.started(run_config(), {})  # a lost coordinator begins again
        (tmp_path / "summary.json").write_text('{"status": "stopped"}')
    assert notes.heard == ["start", 1, "round-1", "stopped"]
    assert watching.wish() is None


@pytest.mark.parametrize("hook", ["start", 1, "round-1"])
def test_stop_is_a_wish_that_lasts(tmp_path, hook):
    calls = Calls([Notes(), Notes("stop", [hook]), Notes()])
    for name, more in (("on_start", []), ("on_round", [RECORD]), ("on_checkpoint", [Path("round-1")])):
        calls.tell(name, RUN, *more)
    assert calls.wish == "stop"


@pytest.mark.parametrize(
    ("callback", "sentence"),
    [
        (Half(), "the callback Half.on_round raised ValueError: no such figure"),
        (Gone(), "the callback Gone.on_round raised SystemExit: 3"),
        (Shouts(), "the callback Shouts.on_round returned 'STOP', but may return \"stop\" or nothing"),
        (Notes(False, [1]), 'the callback Notes.on_round returned False, but may return "stop" or nothing'),
    ],
)
def test_a_fault_is_named_as_the_callbacks_own_and_nobody_else_is_asked(callback, sentence):
    after = Notes()
    calls = Calls([callback, after])
    calls.tell("on_round", RUN, RECORD)
    calls.tell("on_round", RUN, RECORD)
    assert str(calls.wish) == sentence
    assert calls.wish.exit_code == 1
    assert after.heard == []


def test_the_cause_of_a_fault_is_kept():
    calls = Calls(Half())
    calls.tell("on_round", RUN, RECORD)
    assert isinstance(calls.wish.__cause__, ValueError)


def test_a_fault_after_a_wish_to_stop_is_not_lost():
    calls = Calls([Notes("stop", [1]), Half()])
    calls.tell("on_round", RUN, RECORD)
    assert isinstance(calls.wish, CallbackError)


def test_everybody_is_told_of_the_end_whatever_one_raises(tmp_path):
    class Falls:
        def on_end(self, run, summary):
            raise KeyError("x")

    notes = Notes()
    watching = Watching("mine", tmp_path, Calls([Falls(), notes]), Events())
    with pytest.raises(CallbackError, match=r"Falls.on_end raised KeyError: 'x'"), watching.until_the_end():
        watching.started(run_config(), {})
    assert notes.heard == ["start", "failed"]  # no summary: the run has not got so far


def test_the_reason_of_a_run_is_not_hidden_behind_a_callback(tmp_path, caplog):
    class Falls:
        def on_start(self, run):
            """Nothing."""

        def on_end(self, run, summary):
            raise KeyError("x")

    watching = Watching("mine", tmp_path, Calls(Falls()), Events())

    def run():
        with watching.until_the_end():
            watching.started(run_config(), {})
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run()
    assert "Falls.on_end raised KeyError" in caplog.text


def test_who_was_not_told_of_a_start_is_not_told_of_an_end(tmp_path):
    notes = Notes()
    watching = Watching("mine", tmp_path, Calls(notes), Events())
    with pytest.raises(ConfigError), watching.until_the_end():
        raise ConfigError("rounds", "refused")
    assert notes.heard == []


@pytest.mark.parametrize(
    ("callback", "sentence"),
    [
        (Typo(), "Typo has on_rounds, but is asked for on_start, on_round, on_checkpoint, on_end only"),
        (Notes, "Notes is a class; give an object of it"),
        (print, "has none of on_start"),
        ([Notes(), 3], "int has none of on_start"),
    ],
)
def test_an_object_that_would_never_be_called_is_refused(callback, sentence):
    with pytest.raises(ConfigError, match=f"callbacks: .*{sentence}"):
        Calls(callback)


def test_the_base_class_asks_for_nothing():
    calls = Calls(raysoft.Callback())
    calls.tell("on_start", RUN)
    calls.tell("on_round", RUN, RECORD)
    calls.tell("on_checkpoint", RUN, Path("x"))
    assert calls.wish is None
    assert calls.tell_end(RUN, {"status": "done"}) is None


# --------------------------------------------------------------------------------------------------------- many runs


def batch(callback):
    return BatchWatching(Path("store"), Calls(callback), BatchEvents())


def test_a_comparison_tells_of_its_runs_and_of_those_found_says_nothing(tmp_path):
    notes = Notes()
    (tmp_path / "summary.json").write_text('{"status": "done"}')
    watching, job, found = batch(notes), Job("soft", run_config()), Job("found", run_config(seed=1))
    watching.finished(JobOutcome(found, tmp_path, reused=True))
    watching.begun(job)
    watching.record(job, RECORD)
    watching.round(job, 1)
    watching.finished(JobOutcome(job, tmp_path))
    other = Job("other", run_config(seed=2))
    watching.begun(other)
    watching.finished(JobOutcome(other, None, error="out of memory"))
    assert notes.heard == ["start", 1, "done", "start", "failed"]


def test_stop_and_faults_end_a_comparison():
    job = Job("soft", run_config())
    with pytest.raises(StopBatch):
        batch(Notes("stop", ["start"])).begun(job)
    watching = batch(Half())
    watching.begun(job)
    with pytest.raises(CallbackError, match=r"Half.on_round raised ValueError"):
        watching.record(job, RECORD)


def test_a_comparison_that_ends_early_tells_of_the_end_of_every_run_and_keeps_what_had_failed():
    notes = Notes()
    watching, going, failed = batch(notes), Job("soft", run_config()), Job("other", run_config(seed=2))
    with pytest.raises(StopBatch), watching.until_the_end():  # noqa: PT012 - what goes on before belongs to it
        for job in (going, failed):
            watching.begun(job)
        watching.finished(JobOutcome(failed, None, error="out of memory"))
        raise StopBatch
    assert notes.heard == ["start", "start", "failed", "interrupted"]
    assert [outcome.job for outcome in watching.failed] == [failed]


def test_a_run_of_a_comparison_is_known_by_its_arm_and_seed():
    seen = []
    watching = batch(SimpleNamespace(on_start=lambda run: seen.append((run.name, run.seed, run.folder.parent.name))))
    watching.begun(Job("soft", run_config(seed=4)))
    assert seen == [("soft", 4, "store")]
