"""The package as somebody else gets it: a wheel, in an empty folder, away from the source tree."""

import os
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import PathDistribution
from pathlib import Path

import pytest

from tests.conftest import SMALL_RUN, summary

ROOT = Path(__file__).parents[2]
BUILD = "import sys; from setuptools import build_meta; print(build_meta.build_wheel(sys.argv[1]))"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The unpacked wheel of this source tree."""
    source, site = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("site")
    skip = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "raysoft", source / "raysoft", ignore=skip)
    shutil.copytree(ROOT / "tune_configs", source / "tune_configs")
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    done = subprocess.run(
        [sys.executable, "-c", BUILD, str(source / "dist")],
        cwd=source,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    (wheel,) = (source / "dist").glob("raysoft-*.whl")
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(site)
    return site


def test_the_wheel_holds_every_file_of_the_package(site):
    def files(folder):
        return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc"}

    sweeps = {f"tune_configs/{name}" for name in files(ROOT / "tune_configs")}
    assert sweeps
    assert files(site / "raysoft") == files(ROOT / "raysoft") | sweeps
    assert {path.name.partition("-")[0] for path in site.iterdir()} == {"raysoft"}, "nothing else is installed"


def test_sweeps_that_come_along_are_found_by_name(site, tmp_path):
    for command, said in ((["tune", "smoke", "--dry-run"], "trials  4"), (["list"], "rank_sparsity_latency")):
        done = subprocess.run(
            [sys.executable, "-m", "raysoft", *command],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(site)},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert said in done.stdout


def test_the_command_of_the_wheel_is_there(site, tmp_path):
    (metadata,) = site.glob("raysoft-*.dist-info")
    (script,) = PathDistribution(metadata).entry_points.select(group="console_scripts")
    assert script.name == "raysoft"
    home, _, name = script.value.partition(":")
    code = f"import sys, {home} as home; print(home.__file__); sys.argv = ['raysoft', '--version']; home.{name}()"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    where, version = done.stdout.split("\n", 1)
    assert Path(where).is_relative_to(site)
    assert PathDistribution(metadata).version in version


def test_a_run_from_the_wheel_in_an_empty_folder(site, tmp_path):
    words = ["run", "soft", *SMALL_RUN, "executor=inline", "channel.name=./air.py", "--out", "mine"]
    where = "import raysoft; print(raysoft.__file__)"
    environment = {**os.environ, "PYTHONPATH": str(site)}
    new = ["-m", "raysoft", "new", "channel", "air"]  # templates come with the wheel, too
    for command in (["-c", where], new, ["-m", "raysoft", *words]):
        done = subprocess.run(
            [sys.executable, *command],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        if command[0] == "-c":
            assert Path(done.stdout.strip()).is_relative_to(site)
    assert summary(tmp_path / "mine")["status"] == "done"
    assert (tmp_path / "mine" / "report.html").exists()
