"""Run folders: strict JSON, tolerance for a cut-off end, refusal to destroy anything, and the closing figures."""

from __future__ import annotations

import json
import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysoft.config.presets import load_config
from raysoft.errors import ConfigError, RaysoftError
from raysoft.rundir import folder as tracking
from raysoft.rundir.folder import Position, RunFolder, check_name, environment, strict
from raysoft.rundir.reading import read_run
from raysoft.rundir.summary import summarise
from raysoft.runs.run import to_yaml
from raysoft.types import RoundRecord
from tests.contract import ROUND_KEYS
from tests.event_files import read_events
from tests.run_folders import BUDGET_S, make_run, records, run_config

CONTRACT_SUMMARY_KEYS = {
    "final_accuracy",
    "best_accuracy",
    "base_accuracy",
    "rounds",
    "uplink_bits_total",
    "mean_round_latency_s",
    "latency_budget_s",
    "simulated_time_s",
    "energy_j_total",
    "wall_time_s",
    "client_updates_per_s",
    "adapter_sha256",
    "config_hash",
    "identity",
    "status",
    "metrics",
}


def refuse(name):
    raise ValueError(name)


# ------------------------------------------------------------------------------------------------------------ writing


def test_every_line_is_on_disk_when_append_returns_and_has_the_contract_keys(tmp_path):
    rows = records(rounds=3)
    with RunFolder(tmp_path / "run") as folder:
        for number, row in enumerate(rows, start=1):
            folder.append(row)
            lines = (tmp_path / "run" / "rounds.jsonl").read_text().splitlines()
            assert len(lines) == number
            assert list(json.loads(lines[-1])) == ROUND_KEYS


def test_numbers_survive_exactly(tmp_path):
    path = make_run(tmp_path / "run", rounds=5)
    for row, again in zip(records(rounds=5), read_run(path).records, strict=True):
        assert again["accuracy"] == row.accuracy
        assert again["simulated_time_s"] == row.simulated_time_s
        if row.round:
            assert again["metrics"]["clients"]["gain_db"] == row.metrics["clients"]["gain_db"].tolist()


json_like = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.floats().map(np.float64)
    | st.integers(-(2**31), 2**31).map(np.int64)
    | st.booleans().map(np.bool_)
    | st.lists(st.floats(), max_size=4).map(np.array),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


@given(json_like)
@settings(max_examples=200, deadline=None)
def test_strict_makes_json_that_every_parser_reads(value):
    text = json.dumps(strict(value), allow_nan=False)  # raises if a NaN or infinity is left
    assert json.loads(text, parse_constant=refuse) == strict(value)


@given(st.floats())
def test_strict_changes_nothing_but_non_finite_floats(value):
    assert strict(value) == (value if math.isfinite(value) else None)


def test_strict_refuses_what_json_has_no_word_for():
    with pytest.raises(TypeError, match="set"):
        strict({"a": {1, 2}})


def test_nan_in_a_record_becomes_null(tmp_path):
    row = records(rounds=1)[1]
    bad = RoundRecord(**{**vars(row), "loss": math.nan, "metrics": {"x": math.inf, "y": np.array([1.0, np.nan])}})
    with RunFolder(tmp_path / "run") as folder:
        folder.append(bad)
    text = (tmp_path / "run" / "rounds.jsonl").read_text()
    again = json.loads(text, parse_constant=refuse)
    assert again["loss"] is None
    assert again["metrics"] == {"x": None, "y": [1.0, None]}


def test_an_atomic_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "summary.json"
    tracking.write_atomic(path, "old")
    monkeypatch.setattr(tracking.os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(RaysoftError, match=r"summary\.json: cannot be written: No space"):
        tracking.write_atomic(path, "new and longer")
    assert path.read_text() == "old"
    assert [item.name for item in tmp_path.iterdir()] == ["summary.json"]


def test_environment_names_what_a_result_depends_on():
    found = environment(threads=3)
    assert found["threads"] == 3
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert found["libraries"]["numpy"] == np.__version__
    assert found["cpu"]
    json.dumps(found, allow_nan=False)


def test_environment_imports_none_of_the_libraries_it_names():
    code = (
        "import sys; from raysoft.rundir.folder import environment; environment(1); "
        "print([m for m in ('torch', 'transformers', 'ray', 'matplotlib', 'datasets', 'tensorboardX') "
        "if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


def test_tensorboard_gets_every_number_of_every_round(tmp_path):
    path = make_run(tmp_path / "run", rounds=3, tensorboard=True)
    events = list((path / "tensorboard").iterdir())
    assert len(events) == 1
    scalars = read_events(events[0])
    rows = records(rounds=3)
    assert [step for step, _ in scalars["round/accuracy"]] == [0, 1, 2, 3]
    for (_, value), row in zip(scalars["round/accuracy"], rows, strict=True):
        assert value == pytest.approx(row.accuracy, rel=1e-6)  # float32 on disk
    assert len(scalars["metrics/penalty"]) == 3
    assert not any("clients" in tag for tag in scalars)


# -------------------------------------------------------------------------------------------------- folders and names


def test_a_folder_with_content_is_refused_and_left_alone(tmp_path):
    path = make_run(tmp_path / "run", rounds=1)
    before = {item: item.read_bytes() for item in path.rglob("*") if item.is_file()}
    with pytest.raises(ConfigError, match=r"--out: .*not empty.*--overwrite"):
        RunFolder(path)
    assert {item: item.read_bytes() for item in path.rglob("*") if item.is_file()} == before


def test_overwrite_replaces_an_old_run_completely(tmp_path):
    path = make_run(tmp_path / "run", rounds=3, tensorboard=True)
    (path / "figures").mkdir()
    (path / "figures" / "accuracy.png").write_bytes(b"x")
    RunFolder(path, overwrite=True).close()
    assert [item.name for item in path.iterdir()] == ["rounds.jsonl"]
    assert (path / "rounds.jsonl").read_text() == ""


def test_a_refused_run_gives_the_overwritten_one_back(tmp_path):
    path = tmp_path / "run"
    with RunFolder(path) as old:
        old.write_config(to_yaml(load_config("soft")))
        old.write_environment()
        old.write_summary({"status": "done"})
    before = {item.name: item.read_bytes() for item in path.iterdir()}
    new = RunFolder(path, overwrite=True)
    new.write_config("seed: 2\n")
    new.discard()
    assert {item.name: item.read_bytes() for item in path.iterdir()} == before


def test_overwrite_never_removes_what_no_run_has_written(tmp_path):
    home = make_run(tmp_path / "home", rounds=1)
    (home / "thesis.tex").write_text("years of work")
    with pytest.raises(ConfigError, match=r"thesis\.tex"):
        RunFolder(home, overwrite=True)
    assert (home / "thesis.tex").exists()
    assert (home / "rounds.jsonl").exists()


def test_overwrite_does_not_touch_a_link(tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "kept").write_text("")
    path = make_run(tmp_path / "run", rounds=1)
    (path / "figures").symlink_to(elsewhere)
    with pytest.raises(ConfigError, match="'figures', which no run has written"):
        RunFolder(path, overwrite=True)
    assert (elsewhere / "kept").exists()


def test_an_empty_folder_is_welcome_and_a_file_is_not(tmp_path):
    (tmp_path / "empty").mkdir()
    RunFolder(tmp_path / "empty").close()
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="is a file"):
        RunFolder(tmp_path / "file")
    with pytest.raises(ConfigError, match=r"--out: .*cannot be written"):
        RunFolder(tmp_path / "file" / "below")


@pytest.mark.parametrize("name", ["soft", "a", "Soft-1.2_x", "0", "a" * 64])
def test_good_names(name):
    assert check_name(name) == name


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", ".hidden", "-x", "a b", "a" * 65, "ä", "a\n", "a\x00"])
def test_bad_names(name):
    with pytest.raises(ConfigError, match="--name"):
        check_name(name)


# ------------------------------------------------------------------------------------------------------------ reading


def test_a_half_written_last_line_is_ignored_and_reported(tmp_path):
    path = make_run(tmp_path / "run", rounds=3)
    rounds = path / "rounds.jsonl"
    text = rounds.read_text()
    last = len(text.splitlines()[-1]) + 1
    whole = read_run(path).records
    for cut in (2, last // 2, last - 1):  # anywhere inside the last line, up to its last character
        rounds.write_text(text[: len(text) - cut])
        run = read_run(path)
        assert run.records == whole[:3]
        assert run.notes[0] == "rounds.jsonl, line 4: half-written and ignored."


def test_a_whole_last_line_without_its_newline_counts(tmp_path):
    path = make_run(tmp_path / "run", rounds=3)
    text = (path / "rounds.jsonl").read_text()
    (path / "rounds.jsonl").write_text(text.rstrip("\n"))
    assert len(read_run(path).records) == 4


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{broken", "line 2: not valid JSON"),
        ("[1, 2]", "line 2: is not a round record"),
        ("{}", "line 2: is not"),
        ('{"round": NaN}', "line 2: not valid JSON"),
    ],
)
def test_a_broken_line_in_the_middle_is_named(tmp_path, line, message):
    path = make_run(tmp_path / "run", rounds=2)
    lines = (path / "rounds.jsonl").read_text().splitlines()
    lines[1] = line
    (path / "rounds.jsonl").write_text("\n".join(lines) + "\n")
    with pytest.raises(RaysoftError, match=message) as caught:
        read_run(path)
    assert str(path / "rounds.jsonl") in str(caught.value)


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(RaysoftError, match="no such run folder"):
        read_run(tmp_path / "nowhere")
    for name in ("config.yaml", "rounds.jsonl"):
        path = make_run(tmp_path / name.partition(".")[0], rounds=1)
        (path / name).unlink()
        with pytest.raises(RaysoftError, match=f"{name}: missing"):
            read_run(path)
    empty = make_run(tmp_path / "empty", rounds=1)
    (empty / "rounds.jsonl").write_text("")
    with pytest.raises(RaysoftError, match="line 1: holds no complete round"):
        read_run(empty)


def test_a_broken_summary_is_named_with_its_line(tmp_path):
    path = make_run(tmp_path / "run", rounds=1)
    (path / "summary.json").write_text('{\n  "rounds": ,\n}')
    with pytest.raises(RaysoftError, match=r"summary\.json, line 2"):
        read_run(path)


def test_a_run_without_summary_is_readable_and_says_so(tmp_path):
    run = read_run(make_run(tmp_path / "run", rounds=2, finished=False))
    assert run.summary is None
    assert any("interrupted" in note for note in run.notes)


def test_columns(tmp_path):
    run = read_run(make_run(tmp_path / "run", rounds=2))
    assert run.column("round").tolist() == [0.0, 1.0, 2.0]
    assert np.isnan(run.column("train_loss")[0])
    assert np.isfinite(run.column("metrics.penalty")[1:]).all()
    assert np.isnan(run.column("metrics.clients")).all()  # not a number
    assert np.isnan(run.column("no_such_key")).all()
    assert run.name == "run"


def test_reopen_continues_after_a_round(tmp_path):
    path = make_run(tmp_path / "run", rounds=5)
    rows = records(rounds=5)
    lines = (path / "rounds.jsonl").read_bytes().splitlines(keepends=True)
    with RunFolder.reopen(path, Position.of(b"".join(lines[:4]))) as folder:
        assert not (path / "summary.json").exists()
        folder.append(rows[4])
    again = read_run(path)
    assert again.column("round").tolist() == [0, 1, 2, 3, 4]
    assert again.records[4]["accuracy"] == rows[4].accuracy


def test_reopen_refuses_rounds_that_were_changed(tmp_path):
    path = make_run(tmp_path / "run", rounds=5)
    data = (path / "rounds.jsonl").read_bytes()
    (path / "rounds.jsonl").write_bytes(data.replace(b'"round":2', b'"round":7'))
    with pytest.raises(RaysoftError, match="does not hold the rounds"):
        RunFolder.reopen(path, Position.of(data))
    assert (path / "summary.json").exists()


def test_positions_are_those_of_the_file_and_rewind_goes_back(tmp_path):
    rows = records(rounds=4)
    with RunFolder(tmp_path / "run") as folder:
        positions = [folder.append(row) for row in rows]
        whole = (tmp_path / "run" / "rounds.jsonl").read_bytes()
        assert positions[-1] == Position.of(whole)
        folder.rewind(positions[1])
        assert (tmp_path / "run" / "rounds.jsonl").read_bytes() == whole[: positions[1].length]
        assert [folder.append(row) for row in rows[2:]] == positions[2:]
        assert (tmp_path / "run" / "rounds.jsonl").read_bytes() == whole


def test_one_writer_a_folder(tmp_path):
    with RunFolder(tmp_path / "run") as folder:
        folder.write_config(to_yaml(load_config("soft")))
        folder.append(records(rounds=1)[0])
        with pytest.raises(RaysoftError, match="another process is writing"):
            RunFolder(tmp_path / "run", overwrite=True)
    RunFolder(tmp_path / "run", overwrite=True).close()


# ------------------------------------------------------------------------------------------------------------ summary


def plain_records(accuracies, **changes):
    base = vars(records(rounds=1, detail=False)[1])
    return [
        RoundRecord(
            **{
                **base,
                "round": t,
                "accuracy": value,
                "round_latency_s": float(t),
                "simulated_time_s": 10.0 * t,
                "uplink_bits": 8 * t,
                "energy_j": 0.5 * t,
                "participants": 3 * (t > 0),
                "dropped": 1 * (t > 0),
                "wall_time_s": 2.0,
                "metrics": {},
                **changes,
            }
        )
        for t, value in enumerate(accuracies)
    ]


def test_summary_has_the_contract_keys_and_the_hand_computed_values():
    config = run_config()
    rows = plain_records([0.3, 0.5, None, 0.6, 0.7, 0.8, 0.9, 0.85])
    summary = summarise(rows, config, {"adapter_sha256": "ab", "wall_time_s": 99.0})
    assert set(summary) == CONTRACT_SUMMARY_KEYS
    assert summary["final_accuracy"] == pytest.approx((0.6 + 0.7 + 0.8 + 0.9 + 0.85) / 5)
    assert summary["best_accuracy"] == 0.9
    assert summary["base_accuracy"] == 0.3
    assert summary["rounds"] == 7
    assert summary["uplink_bits_total"] == 8 * 28
    assert summary["mean_round_latency_s"] == 4.0  # mean of 1..7: line 0 does not count
    assert summary["latency_budget_s"] == BUDGET_S
    assert summary["simulated_time_s"] == 70.0
    assert summary["energy_j_total"] == 14.0
    assert summary["wall_time_s"] == 99.0
    assert summary["client_updates_per_s"] == 4 * 7 / 14.0  # those that were dropped trained too
    assert summary["adapter_sha256"] == "ab"
    assert summary["config_hash"] == config.config_hash()
    assert summary["status"] == "done"


def test_the_base_is_no_result_unless_it_is_all_there_is():
    config = run_config()
    assert summarise(plain_records([0.1, 0.9]), config, {})["final_accuracy"] == 0.9
    assert summarise(plain_records([0.1]), config, {})["final_accuracy"] == 0.1
    empty = summarise([], config, {"status": "failed"})
    assert empty["final_accuracy"] is None
    assert empty["mean_round_latency_s"] is None
    assert empty["status"] == "failed"


def test_metrics_of_the_summary():
    rows = plain_records([0.1, 0.2, 0.3])
    rows = [
        RoundRecord(
            **{
                **vars(row),
                "loss": float(t),
                "metrics": {"bits_per_byte": 3.0 - t, "clients": {"id": [1]}, "dense_bits_total": 100 * t},
            }
        )
        for t, row in enumerate(rows)
    ]
    metrics = summarise(rows, run_config(), {"metrics": {"own": 1}})["metrics"]
    assert metrics == {
        "base_loss": 0.0,
        "final_loss": 1.5,
        "base_bits_per_byte": 3.0,
        "final_bits_per_byte": 1.5,
        "own": 1,
        "evaluations_in_mean": 2,
    }


def test_summary_refuses_keys_outside_the_contract():
    with pytest.raises(ValueError, match="acuracy"):
        summarise([], run_config(), {"acuracy": 1.0})


def test_summary_from_records_equals_summary_from_the_file(tmp_path):
    rows, config = records(rounds=7), run_config()
    with RunFolder(tmp_path / "run") as folder:
        folder.write_config("seed: 0\n")
        for row in rows:
            folder.append(row)
    assert summarise(read_run(tmp_path / "run").records, config, {}) == summarise(rows, config, {})
