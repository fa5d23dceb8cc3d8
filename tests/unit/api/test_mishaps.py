"""What a caller of the Python API gets wrong is one sentence of raysoft's, and what a callback does to the process."""

import os
import shutil
from pathlib import Path

import pytest

import raysoft
from raysoft.api.callbacks import Calls, Running
from raysoft.api.settings import load
from raysoft.config.plugin_file import copy_name
from raysoft.errors import ConfigError, RaysoftError
from raysoft.rundir.folder import RunFolder
from raysoft.rundir.plugin_files import PLUGINS
from raysoft.runs.conformance.new import write_template
from raysoft.runs.resuming import _refuse_changed_copies
from tests.run_folders import make_run, records

NO_FOLDER = "must be a folder, as text or a path, got "


@pytest.mark.parametrize("wrong", [None, 3, b"x", ["x"]])
@pytest.mark.parametrize(
    "call",
    [
        raysoft.open,
        raysoft.resume,
        raysoft.report,
        lambda wrong: raysoft.report("x", out=wrong) if wrong is not None else raysoft.report(wrong),
        lambda wrong: raysoft.run("soft", out=wrong) if wrong is not None else raysoft.open(wrong),
    ],
)
def test_what_is_no_folder_is_refused_by_its_value(call, wrong):
    with pytest.raises(ConfigError, match=NO_FOLDER) as caught:
        call(wrong)
    assert str(caught.value).endswith(repr(wrong))


def test_what_is_no_number_of_the_rounds_is_refused(tmp_path):
    result = raysoft.open(make_run(tmp_path / "run"))
    for metric, x, said in [
        (None, "rounds", "metric: no round has a number None"),
        (["loss"], "rounds", r"metric: no round has a number \['loss'\]"),
        ("round", "rounds", "metric: no round has a number 'round'"),
        ("accuracy", None, "x: must be one of .*, got None"),
        ("accuracy", ["mb"], r"x: must be one of .*, got \['mb'\]"),
    ]:
        with pytest.raises(ConfigError, match=said):
            result.plot(metric, x=x)


def test_settings_that_are_none_are_named_as_they_were_given(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    itself = {}
    itself["train"] = itself
    for setting, said in [
        (itself, "train: is nested too deeply, or contains itself"),
        ({"train..lr": 4}, r"settings: keys are text such as 'train\.lr', got 'train\.\.lr'"),
        ({"": 4}, r"settings: keys are text such as 'train\.lr', got ''"),
        ({"train.lr": float("nan")}, r"train\.lr: .* got nan$"),
        ({"train.lr": float("-inf")}, r"train\.lr: .* got -inf$"),
    ]:
        with pytest.raises(ConfigError, match=said):
            load("soft", setting)
    make_run(tmp_path / "x")
    with pytest.raises(
        ConfigError, match=r"'x' is the folder of a run; its settings are x/config\.yaml, .*raysoft\.open"
    ):
        load("x")


def test_a_fault_of_a_callback_is_one_line():
    class Two:
        def on_round(self, run, record):
            raise ValueError("one\n  two")

    calls = Calls([Two()])
    calls.tell("on_round", Running("mine", Path("x"), config=None), records(rounds=1)[1])
    assert str(calls.wish) == f"the callback {Two.__qualname__}.on_round raised ValueError: one two"


def test_a_run_is_where_it_began_when_the_current_folder_changes(tmp_path, monkeypatch):
    (tmp_path / "else").mkdir()
    monkeypatch.chdir(tmp_path)
    with RunFolder("run") as out:
        os.chdir(tmp_path / "else")
        for record in records(rounds=1):
            out.append(record)
        out.write_summary({"status": "done"})
        assert out.path == tmp_path / "run"
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["rounds.jsonl", "summary.json"]
    os.chdir(tmp_path)
    with RunFolder("gone") as out:
        shutil.rmtree(out.path)
        with pytest.raises(RaysoftError, match=r"^gone: was removed"):
            out.append(records(rounds=1)[0])


def test_a_changed_copy_of_a_plug_in_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_template("channel", "air")
    config = load("fedit", channel={"name": "./air.py"})
    copy = tmp_path / "run" / PLUGINS / copy_name("./air.py")
    copy.parent.mkdir(parents=True)
    copy.write_text(Path("air.py").read_text() + "# longer\n")
    Path("air.py").write_bytes(copy.read_bytes())
    changed = load("fedit", channel={"name": "./air.py"})
    _refuse_changed_copies(tmp_path / "run", config.result_keys(), config, config, ())
    with pytest.raises(
        ConfigError, match=r"channel\.name: .*/run/plugins/air-\w+\.py, the run's copy of \./air\.py, was ch"
    ):
        _refuse_changed_copies(tmp_path / "run", config.result_keys(), changed, changed, ())
    _refuse_changed_copies(tmp_path / "run", config.result_keys(), changed, changed, ["channel"])
