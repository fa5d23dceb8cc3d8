"""`raysoft resume` of a folder that somebody has damaged: mended from what is there, or refused in one sentence."""

import json
import shutil
from dataclasses import replace

import pytest

from raysoft.config.presets import load_config
from raysoft.errors import ConfigError, RaysoftError
from raysoft.rundir.reading import read_run
from raysoft.runs.checkpoint import CHECKPOINTS, newest, save
from raysoft.runs.resuming import find_resumable
from raysoft.runs.run import resume, run
from raysoft.terminal import endings
from tests.conftest import SMALL_RUN, records, summary

SETTINGS = [*SMALL_RUN, "executor=inline", "rounds=2", "checkpoint.every=1", "checkpoint.keep=5"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished") / "run"
    run(load_config("soft", SETTINGS), folder, report=False)
    return folder


@pytest.fixture
def mine(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "run")


def change_summary(folder, **values):
    (folder / "summary.json").write_text(json.dumps({**summary(folder), **values}))


@pytest.mark.parametrize("values", [{"final_accuracy": "high"}, {"metrics": "x"}, {"rounds": 2, "energy_j_total": []}])
def test_a_summary_of_the_wrong_types_is_written_again(finished, mine, caplog, values):
    change_summary(mine, **values)
    resume(mine, report=False)
    assert "it is left out of account" in caplog.text
    assert {**summary(mine), "wall_time_s": 0} == {**summary(finished), "wall_time_s": 0}


def test_a_record_that_an_older_checkpoint_can_give_again_is_computed(finished, mine, caplog):
    lines = (mine / "rounds.jsonl").read_text().splitlines()
    (mine / "rounds.jsonl").write_text("\n".join([*lines[:2], "garbage", ""]))
    resume(mine, report=False)
    assert "Going on from the checkpoint of round 1" in caplog.text
    assert records(mine) == records(finished)


def test_records_that_nobody_can_give_again_are_mended_once_and_the_summary_stays(finished, mine, caplog):
    (mine / "rounds.jsonl").unlink()
    before = (mine / "summary.json").read_bytes()
    resume(mine, report=False)
    assert "records of rounds 0-2 are lost. summary.json stays." in caplog.text
    assert (mine / "summary.json").read_bytes() == before
    assert [row["metrics"] for row in read_run(mine).records] == [{"lost": True}] * 3
    resume(mine, report=False)
    assert not (mine / "rounds.jsonl.damaged").exists()


def test_a_missing_adapter_is_written_again(finished, mine, caplog):
    shutil.rmtree(mine / "adapter")
    resume(mine, report=False)
    assert "adapter_config.json: is missing. Going on from the checkpoint of round 2" in caplog.text
    for path in (finished / "adapter").iterdir():
        assert (mine / "adapter" / path.name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("name", ["adapter", "rounds.jsonl"])
def test_a_finished_run_that_cannot_be_mended_is_refused(mine, name):
    shutil.rmtree(mine / "checkpoints")
    (mine / name).rename(mine.parent / name)
    with pytest.raises(
        RaysoftError, match=rf"{name}.*: (is missing|cannot be read).* holds no checkpoint, so nothing can be mended"
    ):
        resume(mine)
    assert summary(mine)["status"] == "done"


def test_a_damaged_checkpoint_of_a_finished_run_is_told_and_not_gone_on_from(mine):
    (mine / "checkpoints/round-000002/state.safetensors").write_bytes(b"")
    found = find_resumable(mine)
    assert found.done is not None
    assert not found.mend
    (note,) = found.notes
    assert "is damaged" in note
    assert "Going on" not in note


def test_it_is_said_that_a_run_without_checkpoints_begins_again(mine):
    shutil.rmtree(mine / "checkpoints")
    assert find_resumable(mine).notes == ()
    assert f"{mine} holds no checkpoint; it begins again at round 0." in find_resumable(mine, ["rounds=3"]).notes


def test_a_file_in_the_place_of_the_checkpoints_is_refused(mine):
    shutil.rmtree(mine / "checkpoints")
    (mine / "checkpoints").write_text("")
    with pytest.raises(RaysoftError, match="checkpoints: is not a folder"):
        find_resumable(mine, ["rounds=3"])


def test_a_bad_value_in_the_folder_is_named_with_its_file(mine):
    path = mine / "config.yaml"
    path.write_text(path.read_text().replace("rounds: 2", "rounds: x"))
    with pytest.raises(ConfigError, match=r"config\.yaml: rounds: .*got 'x'"):
        find_resumable(mine)


def begin_and_fail(folder):
    (folder / "config.yaml").write_text("begun: again\n")
    raise RaysoftError("ended early")


def test_a_refused_resume_does_not_advise_to_resume(mine):
    endings.forget()
    with pytest.raises(RaysoftError), endings.resumable(mine, mine, resuming=True):
        raise RaysoftError("refused")
    assert endings.how_to_go_on == []
    with pytest.raises(RaysoftError), endings.resumable(mine, mine, resuming=True):
        begin_and_fail(mine)
    assert endings.how_to_go_on == [f"go on with: raysoft resume {mine}"]
    endings.forget()


def test_another_plug_in_is_named_as_such(mine):
    with pytest.raises(ConfigError, match=r"keeps its configuration, but .*method\.name was 'soft', is 'fedit'"):
        find_resumable(mine, ["rounds=3", "method.name=fedit"])


def test_an_option_that_came_later_is_completed_with_its_default(mine):
    """A checkpoint of a version without `train.momentum`: at the default it goes on, at another value it does not."""
    before, _ = newest(mine / CHECKPOINTS, mine / "rounds.jsonl")
    train = {key: value for key, value in before.config["train"].items() if key != "momentum"}
    save(replace(before, config={**before.config, "train": train}), mine / CHECKPOINTS)
    assert find_resumable(mine, ["rounds=3"]).config.train.momentum == 0.9
    with pytest.raises(ConfigError, match=r"train\.momentum was None, is 0\.5"):
        find_resumable(mine, ["rounds=3", "train.momentum=0.5"])
