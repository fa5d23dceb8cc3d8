"""`--overwrite` takes away a run's own files and nothing else, on a disk or at a URI."""

import json
from pathlib import Path

import pytest

from raysoft.config.presets import load_config
from raysoft.errors import ConfigError
from raysoft.report.run.html import DRAWINGS, GONE
from raysoft.rundir.files import FIGURE_NAMES, check_overwrite, files_of, is_own
from raysoft.rundir.folder import RunFolder
from raysoft.rundir.remote import check_free, staged
from raysoft.runs.run import run, to_yaml
from tests.run_folders import records

SHORT = ["rounds=1", "executor=inline", "data.max_test_samples=20", "metrics.clients=false"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("done") / "run"
    run(load_config("soft", [*SHORT, "checkpoint.every=1", "tracking.wandb.mode=off"]), folder)
    return folder


@pytest.fixture
def ran(finished, tmp_path):
    import shutil

    return Path(shutil.copytree(finished, tmp_path / "run"))


def test_every_file_of_a_run_is_its_own_and_goes(ran):
    names = list(files_of(ran))
    assert len(names) > 10
    assert [name for name in names if not is_own(name)] == []
    with RunFolder(ran, overwrite=True) as folder:
        folder.append(records(rounds=1)[0])  # the new run has something: the old one is no longer needed
    assert list(files_of(ran)) == ["rounds.jsonl"]


def test_the_figures_are_those_that_reports_draw():
    assert {drawing.name for drawing in DRAWINGS} | {"plan", *GONE} == set(FIGURE_NAMES)


@pytest.mark.parametrize(
    "name",
    [
        "figures/mine.png",
        "model/weights.bin",
        "thesis.part",
        "checkpoints/notes.txt",
        "wandb/x",
        "notes/a.txt",
        "adapter/adapter_model.safetensors.bak",
        "tensorboard/mine.csv",
    ],
)
def test_a_foreign_file_in_a_run_is_named_and_stays(ran, name):
    (ran / name).parent.mkdir(exist_ok=True)
    (ran / name).write_text("mine")
    before = list(files_of(ran))
    with pytest.raises(ConfigError, match=rf"^--out: .*holds '{name}', which no run has written"):
        RunFolder(ran, overwrite=True)
    assert list(files_of(ran)) == before


def test_a_folder_that_only_looks_like_a_run_is_refused(tmp_path):
    for folder in ("checkpoints", "wandb", "figures", "model"):
        (tmp_path / folder).mkdir()
    (tmp_path / "config.yaml").write_text("x")
    with pytest.raises(ConfigError, match=r"holds 'config\.yaml', but no config\.yaml and environment\.json of a run"):
        RunFolder(tmp_path, overwrite=True)
    (tmp_path / "config.yaml").write_text(to_yaml(load_config("soft")))  # `raysoft show soft > config.yaml`
    with pytest.raises(ConfigError, match="of a run"):
        RunFolder(tmp_path, overwrite=True)
    (tmp_path / "model" / "config.json").write_text("{}")
    (tmp_path / "config.yaml").unlink()
    with pytest.raises(ConfigError, match=r"holds 'model/config\.json', but no"):
        RunFolder(tmp_path, overwrite=True)


def test_a_link_is_not_followed_and_not_ours(ran, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "accuracy.png").write_text("mine")
    (ran / "more").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="'more', which no run has written"):
        RunFolder(ran, overwrite=True)


@pytest.mark.parametrize("torn", ["environment.json", "rounds.jsonl"])
def test_one_torn_file_leaves_proof_enough(ran, torn):
    (ran / torn).write_text("{")
    check_overwrite(files_of(ran), lambda name: (ran / name).read_text(errors="replace"), "here", "--out")


def test_a_uri_is_held_to_the_same(ran):
    import fsspec

    store = fsspec.filesystem("memory")
    store.put(str(ran), "/runs/mine", recursive=True)
    with staged("memory://runs/mine", "--out", overwrite=True) as stage:
        assert not stage.folder.exists() or not list(files_of(stage.folder))
    store.pipe("/runs/other/figures/mine.png", b"mine")
    store.pipe("/runs/other/config.yaml", b"x")
    named = pytest.raises(ConfigError, match=r"'figures/mine\.png', which no run has written")
    with named, staged("memory://runs/other", "--out", overwrite=True):
        pass
    assert store.cat("/runs/other/figures/mine.png") == b"mine"
    store.pipe("/runs/third/environment.json", json.dumps({"libraries": {}}).encode())
    unproven = pytest.raises(ConfigError, match=r"but no config\.yaml")
    with unproven, staged("memory://runs/third", "--out", overwrite=True):
        pass


def test_a_dry_run_says_where_no_run_can_be_written(ran, tmp_path):
    (tmp_path / "file").write_text("x")
    below_a_file = tmp_path / "file" / "x"
    refused = {ran: "not empty", tmp_path / "file": "is a file", below_a_file: "not a folder", "nosuch://x": "nosuch"}
    for place, words in refused.items():
        with pytest.raises(ConfigError, match=words) as caught:
            check_free(place, "--out", overwrite=False)
        assert caught.value.field == "--out"
    check_free(ran, "--out", overwrite=True)
    check_free(tmp_path / "new" / "run", "--out", overwrite=False)
    assert not (tmp_path / "new").exists()
