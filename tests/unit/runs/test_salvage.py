"""A damaged rounds.jsonl does not throw the model away: the run goes on, and says which records are lost."""

import shutil
import threading

import pytest

from raysoft.config.presets import load_config
from raysoft.errors import DiskHungError, RaysoftError
from raysoft.rundir.files import is_own
from raysoft.rundir.folder import RunFolder
from raysoft.rundir.reading import read_run
from raysoft.runs.run import Events, resume, run
from tests.conftest import SMALL_RUN, records, summary

GONE = r"run: was removed while the run went on, so nothing of it is kept|cannot be written"
SETTINGS = [*SMALL_RUN, "executor=inline", "rounds=4", "tracking.tensorboard=false"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of four rounds, and the same one of six."""
    place = tmp_path_factory.mktemp("whole")
    run(load_config("soft", SETTINGS), place / "four", report=False)
    shutil.copytree(place / "four", place / "six")
    resume(place / "six", ["rounds=6"], report=False)
    return place


def first_line(lines):
    return [lines[0].replace('"round"', '"rxund"'), *lines[1:]]


def middle(lines):
    return [lines[0], lines[1], "\x00" * 40, lines[3], lines[4]]


def nothing(lines):
    return []


def shuffled(lines):
    """Everything can be read, but it is not what was written."""
    return [lines[1], lines[0], *lines[2:]]


@pytest.mark.parametrize(
    ("damage", "lost", "said"),
    [
        pytest.param(first_line, [0], "the records of rounds 0 are lost", marks=pytest.mark.slow),
        (middle, [2], "rounds 2 are lost"),
        pytest.param(nothing, [0, 1, 2, 3, 4], "rounds 0-4 are lost", marks=pytest.mark.slow),
        (shuffled, [], "every line can be read"),
    ],
)
def test_the_state_goes_on_and_the_lost_records_are_named(whole, tmp_path, caplog, damage, lost, said):
    folder = shutil.copytree(whole / "four", tmp_path / "run")
    path = folder / "rounds.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("".join(line + "\n" for line in damage(lines)))
    was = path.read_bytes()
    resume(folder, ["rounds=6"])
    assert any(said in one.message and "intact" in one.message for one in caplog.records)
    assert (folder / "rounds.jsonl.damaged").read_bytes() == was
    assert is_own("rounds.jsonl.damaged")  # --overwrite takes it for what it is
    assert summary(folder)["adapter_sha256"] == summary(whole / "six")["adapter_sha256"]
    rows, wanted = records(folder), records(whole / "six")
    assert [row["round"] for row in rows] == list(range(7))
    for tick, row in enumerate(rows):
        if tick in lost:
            assert row == {"round": tick, "metrics": {"lost": True}, "drop_reasons": {}}
        else:
            assert row == wanted[tick]
    found = summary(folder)
    for key in ("rounds", "simulated_time_s", "config_hash", "status"):
        assert found[key] == summary(whole / "six")[key]
    for key in ("uplink_bits_total", "energy_j_total", "mean_round_latency_s", "best_accuracy"):
        assert found[key] == (None if lost else summary(whole / "six")[key])
    assert found["metrics"].get("rounds_lost") == (len(lost) or None)
    assert found["metrics"]["uplink_share_of_dense32"] == (
        None if lost else summary(whole / "six")["metrics"]["uplink_share_of_dense32"]
    )
    assert not [key for key in found["metrics"] if key.endswith("_lost") and key != "rounds_lost"]
    assert (folder / "report.html").is_file()
    assert len(read_run(folder).records) == 7


def test_a_deleted_file_is_one_whose_records_are_all_lost(whole, tmp_path, caplog):
    folder = shutil.copytree(whole / "four", tmp_path / "run")
    (folder / "rounds.jsonl").unlink()
    resume(folder, ["rounds=5"], report=False)
    assert any("rounds 0-4 are lost" in one.message for one in caplog.records)
    assert not (folder / "rounds.jsonl.damaged").exists()
    assert [row["metrics"].get("lost") for row in records(folder)] == [True] * 5 + [None]
    again = shutil.copytree(folder, tmp_path / "again")
    (again / "rounds.jsonl").write_text("")
    resume(again, ["rounds=6"], report=False)
    assert summary(again)["metrics"]["rounds_lost"] == 6
    assert summary(again)["adapter_sha256"] == summary(whole / "six")["adapter_sha256"]


def test_a_folder_that_is_removed_during_the_run_is_not_made_again(tmp_path):
    class Remove(Events):
        def round(self, record):
            if record.round == 2:
                shutil.rmtree(tmp_path / "run")

    with pytest.raises(RaysoftError, match=GONE):
        run(load_config("soft", SETTINGS), tmp_path / "run", events=Remove())
    assert not (tmp_path / "run").exists()


def test_removed_files_are_noticed_where_the_folder_is_there_again(tmp_path):
    class Replace(Events):
        def round(self, record):
            if record.round == 2:
                shutil.rmtree(tmp_path / "run")
                (tmp_path / "run").mkdir()

    with pytest.raises(RaysoftError, match=GONE):
        run(load_config("soft", SETTINGS), tmp_path / "run", events=Replace())
    assert not (tmp_path / "run/summary.json").exists()


def test_a_disk_that_takes_no_record_is_not_waited_for_without_end(tmp_path, monkeypatch):
    never, append = threading.Event(), RunFolder.append

    def hang(folder, record):
        if record.round == 2:
            never.wait()
        return append(folder, record)

    monkeypatch.setattr(RunFolder, "append", hang)
    config = load_config("soft", [*SETTINGS, "actors.timeout_s=2"])
    with pytest.raises(DiskHungError, match=r"rounds.jsonl: round 2 was not on disk within actors.timeout_s=2 seconds"):
        run(config, tmp_path / "run")
    never.set()
    assert summary(tmp_path / "run")["status"] == "failed"
    assert [row["round"] for row in records(tmp_path / "run")][:2] == [0, 1]
