"""`raysoft completion SHELL`: the scripts are sourced in their shells, and asked what they complete.

RAYSOFT_TEST_ZSH and RAYSOFT_TEST_FISH name shells that are not on the PATH.
"""

import os
import shutil
import subprocess

import pytest

from raysoft.config import registry
from raysoft.config.presets import preset_names
from raysoft.sweep.shipped import shipped_names
from tests.command import raysoft

BASH = r"""
source "$SCRIPT"
COMP_LINE=$1 COMP_POINT=${#1}
_raysoft
printf '%s\n' "${COMPREPLY[@]}"
"""
# The widgets of zsh's completion as functions that print; the script's own logic runs as it is.
ZSH = r"""
compadd() { [[ $1 == -S ]] && shift 2; [[ $1 == -- ]] && shift; print -l -- $*; }
_describe() { [[ $1 == -o ]] && shift; local name=$2; print -l -- ${${(P)name}%%:*}; }
_files() { [[ $1 == -/ ]] && print -l -- *(/) || print -l -- *.yaml; }
compset() { : }
compdef() { : }
setopt null_glob extended_glob
source $SCRIPT
words=("${(@s: :)1}")
CURRENT=$#words PREFIX=$words[-1]
for one in ${(f)"$(_raysoft)"}; do
    [[ $PREFIX == *=* ]] && one=${PREFIX%%=*}=$one
    [[ $one == $PREFIX* ]] && print -r -- $one
done
"""
FISH = "source $SCRIPT; complete -C $argv[1] | string split -f 1 \\t"

CASES = [
    ("raysoft ru", {"run"}, set()),
    ("raysoft run so", {"soft", "soft-plus"}, {"ideal"}),
    ("raysoft run ", {*preset_names(), "mine.yaml"}, {"notes.txt", "train.", "smoke"}),
    ("raysoft tune ", {*shipped_names(), "mine.yaml"}, {"soft"}),
    ("raysoft run soft --o", {"--out", "--overwrite"}, {"--seeds"}),
    ("raysoft run soft --out fo", {"folder"}, {"mine.yaml"}),
    ("raysoft run soft --executor ", {"inline", "ray"}, {"soft"}),
    ("raysoft run soft ", {"train.", "codec.", "seed="}, {"soft", "base="}),
    ("raysoft run soft --name x ", {"train."}, {"soft"}),
    ("raysoft run soft codec.", {"codec.name=", "codec.scope=", "codec.gain="}, {"train.lr="}),
    ("raysoft tune smoke sc", {"scheduler="}, set()),
    ("raysoft compare soft so", {"soft-plus"}, set()),
    ("raysoft compare soft train.l", {"train.lr="}, {"train.steps="}),
    ("raysoft report fo", {"folder"}, {"mine.yaml"}),
    ("raysoft show soft --explain train.l", {"train.lr"}, {"train.lr="}),
    ("raysoft completion ", {"bash", "zsh", "fish"}, {"soft"}),
]
VALUES = [
    ("raysoft run soft method.name=", {f"method.name={name}" for name in registry.METHODS}, {"method.name=topk"}),
    ("raysoft run soft codec.matched=t", {"codec.matched=true"}, {"codec.matched=false"}),
    ("raysoft run soft model.lora.rank=", {"model.lora.rank=plan"}, set()),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("completion")
    for shell in ("bash", "zsh", "fish"):
        done = raysoft("completion", shell)
        assert done.returncode == 0, done.stderr
        (folder / f"{shell}.script").write_text(done.stdout)
    (folder / "here/folder").mkdir(parents=True)
    for name in ("mine.yaml", "notes.txt"):
        (folder / "here" / name).write_text("base: soft\n")
    return folder


def completed(shell, place, line):
    """The words that a shell offers for the last one of a line."""
    program = os.environ.get(f"RAYSOFT_TEST_{shell.upper()}") or shutil.which(shell)
    if program is None:
        pytest.skip(f"{shell} is not installed")
    code = {"bash": BASH, "zsh": ZSH, "fish": FISH}[shell]
    bare = {"bash": ["--norc", "-c", code, "-"], "zsh": ["-f", "-c", code, "-"], "fish": ["--no-config", "-c", code]}
    done = subprocess.run(
        [program, *bare[shell], line],
        cwd=place / "here",
        env={**os.environ, "SCRIPT": str(place / f"{shell}.script"), "HOME": str(place)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stderr == ""
    return {word.rstrip("/") for word in done.stdout.split("\n")}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
@pytest.mark.parametrize("line, there, not_there", CASES)
def test_words(shell, place, line, there, not_there):
    found = completed(shell, place, line)
    assert found >= there
    assert not found & not_there
    start = line.rpartition(" ")[2]
    assert all(word.startswith(start) for word in found - {""})


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
@pytest.mark.parametrize("line, there, not_there", VALUES)
def test_values_of_keys(shell, place, line, there, not_there):
    found = completed(shell, place, line)
    if shell == "bash":  # which has cut the word at the equals sign, and puts there what is behind it
        found = {line.rpartition(" ")[2].partition("=")[0] + "=" + word for word in found}
    assert found >= there
    assert not found & not_there


def test_a_shell_that_is_none_of_them_is_refused():
    done = raysoft("completion", "powershell")
    assert done.returncode == 2
    assert "SHELL: must be one of bash, zsh, fish, got 'powershell'" in done.stderr


def test_a_plug_in_of_another_package_is_completed(monkeypatch):
    import typer

    from raysoft.terminal.cli import app
    from raysoft.terminal.completion import words
    from raysoft.terminal.completion_scripts import SHELLS, script

    plain = {kind: registry.names(kind) for kind in registry.KINDS}  # asked before, or it would be remembered
    monkeypatch.setattr(registry, "names", lambda kind: (*plain[kind], *(["static"] if kind == "codec" else [])))
    monkeypatch.setitem(registry.CODECS, "static", "tests.noisy_sum")
    found = words(typer.main.get_command(app))
    for shell in SHELLS:
        assert "static" in found.values["codec.name"]
        assert "static" in script(shell, found)
