"""Runs on remote storage: what is copied in which order, what a killed run leaves, what is refused."""

import json
import queue
import threading
from pathlib import Path

import fsspec
import pytest

from raysoft.config.presets import load_config
from raysoft.errors import ConfigError, RaysoftError
from raysoft.rundir.destination import destination, local_destination
from raysoft.rundir.remote import Mirror, RemoteFolder, is_uri, staged
from raysoft.runs.run import to_yaml


@pytest.fixture
def memory():
    fs = fsspec.filesystem("memory")
    fs.store.clear()
    yield fs
    fs.store.clear()


class Noted:
    """A remote folder that notes what is copied and removed, in order."""

    def __init__(self, remote):
        self.remote, self.order = remote, []

    def put(self, source, name):
        self.order.append(("put", name))
        self.remote.put(source, name)

    def remove(self, name):
        self.order.append(("remove", name))
        self.remote.remove(name)


def write(folder: Path, *names: str, text: str = "x"):
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).write_text(text)


def run_into(uri, summary, error=None, **more):
    with staged(uri, "--out", **more) as stage:
        write(stage.folder, "summary.json", text=summary)
        if error:
            raise error


def checkpoint(folder: Path, tick: int):
    at = folder / "checkpoints" / f"round-{tick:06d}"
    at.mkdir(parents=True)
    (at / "state.safetensors").write_text(f"state {tick}")
    (at / "manifest.json").write_text(f"manifest {tick}")


def test_what_vouches_for_other_files_comes_after_them(memory, tmp_path):
    run = tmp_path / "run"
    checkpoint(run, 1)
    write(run, "summary.json", "rounds.jsonl", "config.yaml", "adapter.bin", ".round-2.part", "half.part")
    remote = RemoteFolder.open("memory://b/run", "--out")
    noted = Noted(remote)
    order = noted.order
    mirror = Mirror(noted, run, {}, [])
    mirror.close()
    assert [name for _, name in order] == [
        "adapter.bin",
        "checkpoints/round-000001/state.safetensors",
        "config.yaml",
        "rounds.jsonl",
        "checkpoints/round-000001/manifest.json",
        "summary.json",
    ]
    assert remote.files() == sorted(name for _, name in order)
    order.clear()
    checkpoint(run, 2)
    (run / "checkpoints/round-000001/manifest.json").unlink()
    (run / "checkpoints/round-000001/state.safetensors").unlink()
    mirror.copy()
    assert order == [
        ("put", "checkpoints/round-000002/state.safetensors"),
        ("put", "checkpoints/round-000002/manifest.json"),
        ("remove", "checkpoints/round-000001/manifest.json"),
        ("remove", "checkpoints/round-000001/state.safetensors"),
    ], "only what is new, and a pruned checkpoint loses its manifest first"
    order.clear()
    mirror.copy()
    assert order == []


def test_a_checkpoint_that_is_pruned_during_the_copy_leaves_no_manifest(memory, tmp_path):
    run = tmp_path / "run"
    checkpoint(run, 1)
    (run / "config.yaml").write_text("x")
    state = run / "checkpoints/round-000001/state.safetensors"

    class Pruning(Noted):
        def put(self, source, name):
            state.unlink(missing_ok=True)  # just before the first file is read: the state of the checkpoint
            super().put(source, name)

    remote = RemoteFolder.open("memory://b/run", "--out")
    pruning = Pruning(remote)
    Mirror(pruning, run, {}, []).copy()
    assert pruning.order[0] == ("put", "checkpoints/round-000001/state.safetensors"), "the state comes first"
    assert remote.files() == ["config.yaml"]


def test_a_stage_copies_in_the_background_and_brings_the_rest_home(memory, tmp_path, monkeypatch):
    remote = RemoteFolder.open("memory://b/run", "--out")
    copied = queue.Queue()
    old = RemoteFolder.put
    monkeypatch.setattr(RemoteFolder, "put", lambda self, *a: (old(self, *a), copied.put(a[1]))[0])
    with staged("memory://b/run", "--out", gap_s=0.0) as stage:
        folder = stage.folder
        assert folder.name == "run", "what reports call it"
        for name in ("a", "b"):
            write(folder, name)
            stage.changed()
            assert copied.get(timeout=4) == name, "long before GAP_S is over"
        write(folder, "summary.json")
    assert remote.files() == ["a", "b", "summary.json"]
    assert not folder.exists(), "nothing is left on this machine"
    assert stage.place == "memory://b/run"


def test_what_is_there_is_refused_replaced_or_fetched(memory, tmp_path):
    remote = RemoteFolder.open("memory://b/run", "--out")
    with staged("memory://b/run", "--out") as stage:
        write(stage.folder, "report.html")
        write(stage.folder, "config.yaml", text=to_yaml(load_config("soft")))
        write(stage.folder, "environment.json", text='{"libraries": {}}')
    with pytest.raises(ConfigError, match=r"--out: memory://b/run exists and is not empty"):
        staged("memory://b/run", "--out").__enter__()
    with staged("memory://b/run", "--out", overwrite=True) as stage:
        assert "report.html" in remote.files(), "the old run stays until the new one has something"
        write(stage.folder, "config.yaml", text="new")
    assert remote.files() == ["config.yaml"]
    with staged("memory://b/run", "DIR", fetch=True) as stage:
        assert (stage.folder / "config.yaml").read_text() == "new"
    memory.pipe_file("/b/run/thesis.tex", b"x")
    with pytest.raises(ConfigError, match=r"'thesis.tex', which no run has written"):
        staged("memory://b/run", "--out", overwrite=True).__enter__()
    with pytest.raises(RaysoftError, match=r"memory://b/nothing: no such run folder"):
        staged("memory://b/nothing", "DIR", fetch=True).__enter__()


def test_a_run_that_was_refused_leaves_what_is_there(memory):
    memory.pipe_file("/b/run/config.yaml", to_yaml(load_config("soft")).encode())
    memory.pipe_file("/b/run/rounds.jsonl", b'{"round": 0}\n')
    with pytest.raises(ConfigError, match="refused"), staged("memory://b/run", "--out", overwrite=True):
        raise ConfigError("x", "refused")
    assert RemoteFolder.open("memory://b/run", "--out").files() == ["config.yaml", "rounds.jsonl"]


def test_an_interrupted_run_is_brought_home_too(memory):
    with pytest.raises(KeyboardInterrupt):
        run_into("memory://b/run", json.dumps({"status": "interrupted"}), KeyboardInterrupt())
    assert json.loads(memory.cat_file("/b/run/summary.json")) == {"status": "interrupted"}


def test_storage_that_fails_is_one_sentence_with_the_uri(memory, monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError(13, "Access Denied\nRequest id 1")

    monkeypatch.setattr(type(memory), "pipe_file", refuse)
    with pytest.raises(RaysoftError, match=r"^memory://b/run: cannot be written: Access Denied$"):
        staged("memory://b/run", "--out").__enter__()


def test_storage_that_takes_nothing_more_is_tried_again_and_the_folder_stays(memory, monkeypatch):
    pauses = []

    def full(*args, **options):
        raise OSError("quota")

    monkeypatch.setattr(type(memory), "put_file", full)
    with pytest.raises(
        RaysoftError, match=r"memory://b/run: cannot be written: quota; the run's folder is (\S+)$"
    ) as got:
        run_into("memory://b/run", "x", pause=pauses.append)
    assert pauses == [1, 2]
    kept = Path(str(got.value).rsplit(" ", 1)[1])
    assert (kept / "summary.json").read_text() == "x", "what could not be copied is not thrown away"


def test_storage_that_hangs_is_not_waited_for(memory, monkeypatch):
    monkeypatch.setattr(type(memory), "find", lambda *a, **k: threading.Event().wait(30))
    with pytest.raises(RaysoftError, match=r"memory://b/run: cannot be read: no answer within 0.2 seconds"):
        staged("memory://b/run", "--out", answer_s=0.2).__enter__()


@pytest.mark.parametrize(("uri", "sentence"), [
    ("abfs://container/run", r"--out: abfs://container/run: needs a package that is missing: pip install adlfs"),
    ("nonsense://x/run", r"--out: nonsense://x/run: Protocol not known: nonsense; give a path, or a URI such as"),
])  # fmt: skip
def test_unusable_uris_name_what_to_do(uri, sentence):
    with pytest.raises(ConfigError, match=sentence):
        staged(uri, "--out").__enter__()


def test_files_appear_when_they_are_complete(tmp_path, monkeypatch):
    """On a file system a reader never meets half a file."""
    remote = RemoteFolder.open(f"file://{tmp_path}/store/run", "--out")
    (tmp_path / "a").write_text("new")
    remote.put(tmp_path / "a", "a")

    def torn(self, source, target, **options):
        Path(target).write_text("n")
        raise OSError("broken pipe")

    monkeypatch.setattr(type(remote.fs), "put_file", torn)
    with pytest.raises(RaysoftError, match="broken pipe"):
        remote.put(tmp_path / "a", "a")
    assert (tmp_path / "store/run/a").read_text() == "new"


# --------------------------------------------------------------------------------------------------------- destinations


def test_destinations(monkeypatch, tmp_path):
    monkeypatch.delenv("RAYSOFT_OUTPUTS", raising=False)
    assert destination(None, "soft") == Path("outputs/soft")
    assert destination("here/x", "soft") == Path("here/x")
    assert destination("s3://b/x", "soft") == "s3://b/x"
    monkeypatch.setenv("RAYSOFT_OUTPUTS", str(tmp_path))
    assert destination(None, "soft") == tmp_path / "soft"
    monkeypatch.setenv("RAYSOFT_OUTPUTS", "gs://bucket/runs/")
    assert destination(None, "soft") == "gs://bucket/runs/soft"
    with pytest.raises(ConfigError, match=r"^RAYSOFT_OUTPUTS: gs://bucket/runs/soft: this command writes a folder"):
        local_destination(None, "soft")
    assert local_destination("x", "soft") == Path("x")
    assert is_uri("gs://bucket")
    assert not is_uri("C:/runs")
    assert not is_uri("./a://b")


def test_what_a_job_would_lose_is_refused(monkeypatch, tmp_path):
    monkeypatch.delenv("RAYSOFT_OUTPUTS", raising=False)
    unpacked = tmp_path / "session/runtime_resources/working_dir_files/_ray_pkg_1"
    unpacked.mkdir(parents=True)
    monkeypatch.chdir(unpacked)
    assert destination("x", "soft") == Path("x"), "not a job: whoever stands here knows why"
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    with pytest.raises(ConfigError, match=r"--out: 'outputs/x' lies in the job's working directory"):
        destination("outputs/x", "soft")
    assert destination(None, "soft") == Path.home() / "raysoft-outputs/soft"
    assert destination("/data/x", "soft") == Path("/data/x")
    monkeypatch.setenv("RAYSOFT_OUTPUTS", "runs")
    with pytest.raises(ConfigError, match=r"RAYSOFT_OUTPUTS: 'runs' lies in the job's working directory"):
        destination(None, "soft")
    monkeypatch.chdir(tmp_path)
    assert destination(None, "soft") == Path("runs/soft"), "a job without a working directory stays where it is"
