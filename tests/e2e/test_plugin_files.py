"""Plug-ins in files of one's own, from the command line's point of view: runs, resumption, comparisons, sweeps."""

import shutil
from pathlib import Path

import pytest

from raysoft.comparison.store import find, key_of
from raysoft.config.presets import load_config
from raysoft.errors import ConfigError
from raysoft.report import draw_folders
from raysoft.rundir.files import check_overwrite, files_of
from raysoft.rundir.plugin_files import PLUGINS, kept
from raysoft.runs.conformance.new import write_template
from raysoft.runs.run import resume, run
from raysoft.sweep.config import parse_sweep
from raysoft.sweep.points import make_sweep
from tests.command import raysoft
from tests.conftest import SMALL_RUN, records, summary

WORDS = [
    *SMALL_RUN,
    "executor=inline",
    "codec.name=./coder.py",
    "channel.name=./air.py",
    "method.extras=[{name: ./add.py, decay: 0.01}]",
]


@pytest.fixture(autouse=True)
def here(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for kind, name in (("codec", "coder"), ("channel", "air"), ("extra", "add"), ("method", "mean")):
        write_template(kind, name)
    return tmp_path


def edit(name):
    """A file that cannot even be loaded any more."""
    Path(name).write_text("1 / 0\n")


def test_a_run_is_resumed_with_the_plug_ins_it_began_with(here, caplog, monkeypatch):
    whole = run(load_config("fedit", WORDS), "whole", report=False)
    run(load_config("fedit", [*WORDS, "rounds=1"]), "part", report=False)
    assert sorted(path.name.rpartition("-")[0] for path in Path("part", PLUGINS).iterdir()) == ["add", "air", "coder"]
    edit("coder.py")
    Path("add.py").unlink()
    resume("part", ["rounds=2"], report=False)
    assert [one.message for one in caplog.records if "has changed" in one.message] == [
        f"./coder.py has changed since this run began; it goes on with the copy in {Path('part') / PLUGINS}."
    ]
    (here / "elsewhere").mkdir()
    monkeypatch.chdir(here / "elsewhere")
    resume("../part", ["rounds=3"], report=False)
    monkeypatch.chdir(here)
    assert records(Path("part")) == records(Path("whole"))
    assert summary(Path("part"))["adapter_sha256"] == whole.summary["adapter_sha256"]
    assert "channel air" in draw_folders([Path("part")], None).read_text()

    check_overwrite(
        files_of(Path("part")), lambda name: Path("part", name).read_text(errors="replace"), "part", "--out"
    )
    copy = next(Path("part", PLUGINS).glob("coder-*.py"))
    copy.write_text(copy.read_text() + "# other\n")
    with pytest.raises(ConfigError, match=rf"codec\.name: {copy}, the run's copy of \./coder\.py, was changed"):
        resume("part", ["rounds=4"], report=False)


def test_a_stored_run_is_found_by_what_its_files_held(here):
    Path("store").mkdir()
    config = load_config("fedit", [*WORDS, "rounds=1"])
    run(config, "store/one", report=False)
    shutil.copy("coder.py", "renamed.py")
    edit("coder.py")
    words = [word.replace("./coder.py", "renamed.py") for word in WORDS]
    same = load_config("fedit", [*words, "rounds=1"])
    Path("renamed.py").write_text(Path("renamed.py").read_text() + "# other\n")
    other = load_config("fedit", [*words, "rounds=1"])
    found = find(Path("store"), {key_of(one): one for one in (same, other)})
    assert found == {key_of(same): Path("store/one")}
    with kept(Path("store/one")):
        assert load_config("fedit", [*WORDS, "rounds=1"]).config_hash() == same.config_hash()


def test_a_sweep_carries_its_files_and_calls_them_by_their_stems(here):
    space = {"method.name": {"grid": ["fedit", "./mean.py"]}, "method.extras": {"choice": [[], ["./add.py"]]}}
    sweep = make_sweep(parse_sweep({"base": "fedit", "overrides": ["codec.name=./coder.py"], "space": space}))
    assert set(sweep.plugin_files()) == {"./mean.py", "./add.py", "./coder.py"}
    assert any("mean" in trial.name and ".py" not in trial.name for trial in sweep.trials())


def test_new_check_and_show_from_the_command_line(here):
    done = raysoft("new", "uplink", "mine", cwd=here)
    assert (done.returncode, Path("mine.py").is_file()) == (0, True)
    assert "raysoft check ./mine.py" in done.stdout
    assert raysoft("new", "uplink", "mine", cwd=here).returncode == 2
    done = raysoft("check", "./mine.py", cwd=here)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "everything is kept"), done.stdout + done.stderr
    Path("mine.py").write_text(Path("mine.py").read_text().replace("active_K & ~late_K,", "active_K | True,"))
    done = raysoft("check", "./mine.py", cwd=here)
    assert done.returncode == 1
    assert "FAILED  outcomes are finite and not negative" in done.stdout
    assert "mine, round 1, client 2: arrived, although it was told not to send" in done.stdout
    done = raysoft("check", "./none.py", cwd=here)
    assert (done.returncode, done.stderr) == (2, "raysoft: ./none.py cannot be read: No such file or directory\n")
    done = raysoft("show", "fedit", "codec.name=./coder.py", cwd=here)
    assert done.stdout.startswith("# codec.name: coder, blake2b ")
    Path("shown.yaml").write_text(done.stdout)
    assert load_config("shown.yaml").config_hash() == load_config("fedit", ["codec.name=./coder.py"]).config_hash()
