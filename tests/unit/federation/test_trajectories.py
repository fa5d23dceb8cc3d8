"""Golden trajectories: the presets do today what they did when they were recorded (see tests/trajectories.py)."""

import json
import subprocess
import sys

import pytest

from raysoft.config import registry
from raysoft.config.presets import load_config
from raysoft.kernels import portable
from raysoft.models import embedded
from tests import trajectories
from tests.trajectories import VIT, digits_presets, recorded, text_presets, trajectory, where

BITS = ("uplink_bits", "downlink_bits", "control_bits")


def compare(preset, folder):
    golden = recorded(preset)
    found = trajectory(preset, folder)
    found["where"] = where()
    if found["where"] == golden["where"]:
        # Through JSON, so that a float is compared by its digits and NaN equals NaN.
        assert json.dumps(found, sort_keys=True) == json.dumps(golden, sort_keys=True), difference(found, golden)
        return
    if portable.active():
        pytest.skip(f"recorded with {golden['where']}, here {found['where']}")
    if found["base"] != golden["base"]:
        pytest.skip("the base model is pretrained on this Python's own source and is another one here")
    mine, theirs = found["records"], golden["records"]
    assert [[row[key] for key in BITS] for row in mine[:2]] == [[row[key] for key in BITS] for row in theirs[:2]]
    assert mine[1]["train_loss"] == pytest.approx(theirs[1]["train_loss"], abs=1e-4)
    pytest.skip(f"bits and first loss agree; the last digits are those of {golden['where']}, here {found['where']}")


def difference(found, golden):
    """The first thing that is not the same: records are long."""
    for key in ("base", "where"):
        if found[key] != golden[key]:
            return f"{key}: {found[key]} instead of {golden[key]}"
    for mine, theirs in zip(found["records"], golden["records"], strict=False):
        for key in sorted(mine.keys() | theirs.keys()):
            if mine.get(key) != theirs.get(key):
                return f"round {mine['round']}, {key}: {mine.get(key)} instead of {theirs.get(key)}"
    return "the adapter, with equal records"


def one_of_a_method():
    """The presets of all methods, one of each; the others are marked as slow."""
    seen = set()
    for name in sorted(digits_presets(), key=lambda name: (name.replace("-", "_") not in registry.METHODS, name)):
        method = load_config(name).method.name
        yield pytest.param(name, marks=[pytest.mark.slow] if method in seen else [])
        seen.add(method)


@pytest.mark.parametrize("preset", one_of_a_method())
def test_a_digits_preset_goes_its_recorded_way(preset, tmp_path):
    compare(preset, tmp_path / "run")


def test_the_digits_model_is_pretrained_as_recorded():
    if where() != json.loads(VIT.with_suffix(".where").read_text(encoding="utf-8")):
        pytest.skip("recorded on another processor or with other libraries; pretraining magnifies their rounding")
    assert (embedded.ensure("embedded/vit-digits") / "model.safetensors").read_bytes() == VIT.read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("preset", text_presets())
def test_a_text_preset_goes_its_recorded_way(preset, tmp_path):
    compare(preset, tmp_path / "run")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_portable_runs_are_the_same_on_every_processor():
    """In a process of its own, since the switches are read when the libraries load."""
    check_portable(digits_presets())


def check_portable(presets):
    tests = [f"{__file__}::test_a_digits_preset_goes_its_recorded_way[{name}]" for name in presets]
    command = [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", *tests]
    environment = trajectories.portable_environment()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=850)
    assert done.returncode == 0, done.stdout[-4000:]
    if "skipped" in done.stdout.splitlines()[-1]:
        pytest.skip(done.stdout[-600:])


def test_every_preset_is_recorded_and_nothing_else():
    files = {path.stem for path in trajectories.GOLDEN.glob("*.json")}
    assert files == set(digits_presets()) | set(text_presets())
    assert {path.stem for path in (trajectories.GOLDEN / "portable").glob("*.json")} == set(digits_presets())
