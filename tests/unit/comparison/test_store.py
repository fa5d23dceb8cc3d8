"""Runs found again by what determines their result, and claims that end with their process."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from raysoft.comparison.store import claim, find, find_claimed, key_of, open_store, run_name, settled, slug
from raysoft.config import RunConfig
from raysoft.config.identity import TASK_VERSIONS
from raysoft.config.presets import load_config
from raysoft.errors import ConfigError
from raysoft.federation.content import identity_of
from raysoft.federation.workload import TINY_VALUES, auto_pack_size, embedded_pack_size
from raysoft.rundir.folder import RunFolder
from raysoft.rundir.summary import summarise
from raysoft.runs.run import to_yaml
from raysoft.wireless import rayleigh
from tests.run_folders import records


def config(*overrides: str, target: str = "soft") -> RunConfig:
    return load_config(target, overrides)


def put(folder: Path, ran: RunConfig, status: str = "done") -> Path:
    """A run folder as a run of `ran` leaves it."""
    with RunFolder(folder) as out:
        out.write_config(to_yaml(ran))
        for row in records(rounds=2, clients=20, cohort=5):
            out.append(row)
        extra = {"status": status, "identity": identity_of(ran)}
        out.write_summary(summarise(records(rounds=2, clients=20, cohort=5), ran, extra))
    return folder


def search(store: Path, *wanted: RunConfig) -> list[Path | None]:
    found = find(store, {key_of(one): one for one in wanted})
    return [found.get(key_of(one)) for one in wanted]


def test_a_run_is_found_whatever_it_is_called(tmp_path):
    one = put(tmp_path / "by-hand", settled(config("rounds=3")))
    two = put(tmp_path / "another", settled(config("rounds=3", "seed=1")))
    wanted = config("rounds=3", "executor=ray", "tracking.tensorboard=true"), config("rounds=3", "seed=1")
    assert search(tmp_path, *wanted, config("rounds=4"), config("rounds=3", "train.lr=0.1")) == [one, two, None, None]


@pytest.mark.parametrize("status", ["interrupted", "failed"])
def test_what_did_not_finish_is_not_found(tmp_path, status):
    put(tmp_path / "a", settled(config()), status)
    assert search(tmp_path, config()) == [None]


def test_damaged_folders_are_passed_over(tmp_path):
    good = put(tmp_path / "z", settled(config()))
    for name, content in {"a": "{", "b": "[]", "c": '{"status": "done"}', "d": "\0" * 9, "e": "[" * 10**5}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "summary.json").write_text(content)
    (tmp_path / "f").write_text("no folder")
    (tmp_path / "c" / "config.yaml").write_text("seed: 0\nrounds: 60\nnonsense: [")
    assert search(tmp_path, config(), config("rounds=60", "seed=0", "train.lr=1e-3")) == [good, None]
    assert search(tmp_path / "nowhere", config()) == [None]


def _rewrite(path: Path, change: Callable[[str], str]) -> None:
    path.write_text(change(path.read_text()))


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("rounds.jsonl", lambda text: "".join(text.splitlines(keepends=True)[:2])),
        ("rounds.jsonl", lambda text: text.replace('"accuracy":', '"accuracy":"x","old":')),
        ("rounds.jsonl", lambda text: text + text),
        ("summary.json", lambda text: text.replace('"final_accuracy":', '"final_accuracy": "high", "old":')),
    ],
)
def test_a_damaged_run_is_not_found_with_a_word(tmp_path, caplog, name, change):
    ran = put(tmp_path / run_name("any", config()), settled(config()))
    _rewrite(ran / name, change)
    assert search(tmp_path, config()) == [None]
    assert f"{ran / name}" in caplog.text
    assert "cannot be used and is done again" in caplog.text
    assert find_claimed(tmp_path, key_of(config()), config()) is None
    caplog.clear()
    good = put(tmp_path / "another", settled(config()))
    assert search(tmp_path, config()) == [good]
    assert "done again" not in caplog.text


def test_pack_size_auto_of_an_embedded_model_is_the_number_the_run_found(tmp_path):
    assert embedded_pack_size(20) == auto_pack_size(TINY_VALUES, 20) == 10
    ran = put(tmp_path / "run", settled(config("actors.pack_size=10")))
    assert search(tmp_path, config("actors.pack_size=auto"), config("actors.pack_size=4")) == [ran, None]


@pytest.fixture
def mine(tmp_path):
    """A base folder and data of one's own."""
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "config.json").write_text("{}")
    (tmp_path / "texts.jsonl").write_text('{"text": "one"}\n')
    return tmp_path


def large(mine: Path, *overrides: str) -> RunConfig:
    data = f"data={{task: causal-lm, path: {mine / 'texts.jsonl'}, clients: 100}}"
    return config(f"model.name={mine / 'base'}", data, *overrides)


def resolved_pack(asked: RunConfig, size: int) -> RunConfig:
    asked = settled(asked)
    return asked.model_copy(update={"actors": asked.actors.model_copy(update={"pack_size": size})})


def test_pack_size_auto_of_other_models_is_known_by_the_folder_of_a_batch(tmp_path, mine):
    """Only the run finds out the number, so its folder's name has to say that `auto` was asked for."""
    asked = large(mine)
    put(tmp_path / "by-hand", resolved_pack(asked, 4))
    assert search(tmp_path, asked) == [None]
    ran = put(tmp_path / run_name("any label", asked), resolved_pack(asked, 4))
    assert search(tmp_path, asked) == [ran]
    assert find_claimed(tmp_path, key_of(asked), asked) == ran
    assert search(tmp_path, large(mine, "actors.pack_size=1")) == [None]


def test_other_content_under_the_same_path_is_another_run(tmp_path, mine):
    asked = large(mine, "actors.pack_size=4")
    before = key_of(asked)
    old = put(tmp_path / run_name("mine", asked), settled(asked))
    assert search(tmp_path, asked) == [old]
    (mine / "texts.jsonl").write_text('{"text": "two"}\n')
    assert key_of(asked) != before  # so the old run's folder is not written over
    assert search(tmp_path, asked) == [None]
    assert find_claimed(tmp_path, key_of(asked), asked) is None
    new = put(tmp_path / run_name("mine", asked), settled(asked))
    assert search(tmp_path, asked) == [new]
    (mine / "texts.jsonl").write_text('{"text": "one"}\n')
    assert search(tmp_path, asked) == [old]
    (mine / "base" / "model.safetensors").write_bytes(b"weights")
    assert search(tmp_path, asked) == [None]


def forget_identity(folder: Path) -> None:
    """A summary as raysoft 0.1 wrote it."""
    summary = json.loads((folder / "summary.json").read_text())
    del summary["identity"]
    (folder / "summary.json").write_text(json.dumps(summary))


def test_runs_without_digests_are_reused_on_embedded_tasks_only(tmp_path, mine):
    embedded = put(tmp_path / "embedded", settled(config()))
    asked = large(mine, "actors.pack_size=4")
    forget_identity(embedded)
    forget_identity(put(tmp_path / run_name("mine", asked), settled(asked)))
    assert search(tmp_path, config(), asked) == [embedded, None]


def test_another_version_of_an_embedded_task_or_revision_of_a_plugin_is_another_run(tmp_path, monkeypatch):
    ran = put(tmp_path / "ran", settled(config()))
    other = put(tmp_path / "other", settled(config("channel.name=rician")))
    with monkeypatch.context() as later:
        later.setitem(TASK_VERSIONS, "digits", 2)
        assert search(tmp_path, config()) == [None]
        forget_identity(ran)
        assert search(tmp_path, config()) == [None]
    monkeypatch.setattr(rayleigh.Config, "REVISION", 2)
    assert search(tmp_path, config(), config("channel.name=rician")) == [None, other]
    new = put(tmp_path / "new", settled(config()))
    assert search(tmp_path, config()) == [new]


def test_a_planned_rank_is_known_by_the_folder_of_a_batch(tmp_path):
    asked = config("model.lora.rank=plan")
    planned = settled(config("model.lora.rank=4", "model.lora.alpha=8"))
    ran = put(tmp_path / run_name("planned", asked), planned)
    assert search(tmp_path, asked, config("model.lora.rank=4", "model.lora.alpha=8")) == [ran, ran]
    assert search(tmp_path, config("model.lora.rank=plan", "plan.draws=64")) == [None]


def test_a_name_alone_does_not_make_a_run(tmp_path):
    asked = config()
    put(tmp_path / run_name("soft", asked), settled(config("train.lr=0.2")))
    assert search(tmp_path, asked) == [None]
    assert find_claimed(tmp_path, key_of(asked), asked) is None


def test_a_run_from_before_a_new_key_is_found_by_todays_defaults(tmp_path):
    """A key that came later has its default in old runs; their recorded hash did not know it."""
    folder = put(tmp_path / "old", settled(config("rounds=3")))
    text = (folder / "config.yaml").read_text()
    assert "weighting: samples" in text
    (folder / "config.yaml").write_text(re.sub(r", weighting: samples", "", text))
    summary = json.loads((folder / "summary.json").read_text())
    (folder / "summary.json").write_text(json.dumps({**summary, "config_hash": "0" * 32}))
    assert search(tmp_path, config("rounds=3"), config("rounds=3", "cohort.weighting=uniform")) == [folder, None]


def test_names_of_folders():
    assert slug("q4: 50 % / näher") == "q4-50-n-her"
    assert slug("…") == "arm"
    assert len(slug("x" * 99)) == 40
    asked = config("seed=7")
    assert run_name("a b", asked) == f"a-b-s7-{key_of(asked)[:8]}"
    assert key_of(asked) == key_of(settled(asked)) == settled(asked).config_hash()


def test_a_store_where_no_folder_can_be_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"--store: .*file cannot be written"):
        open_store(tmp_path / "file")


def test_a_claim_is_held_by_one_and_ends_with_its_process(tmp_path):
    store = open_store(tmp_path / "store")
    code = (
        "import sys, pathlib; from raysoft.comparison.store import claim\n"
        "with claim(pathlib.Path(sys.argv[1]), 'k') as mine:\n"
        "    print(mine, flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(store)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert other.stdout.readline() == "True\n"
        with claim(store, "k") as mine:
            assert not mine
        with claim(store, "another") as mine:
            assert mine
    finally:
        other.kill()
        other.communicate(timeout=30)
    with claim(store, "k") as mine:  # killed, not released: the system did
        assert mine
        with claim(store, "k") as again:
            assert not again
