"""Settings from Python mean what the same words mean on the command line."""

from pathlib import Path

import numpy as np
import pytest

from raysoft.api.settings import load, spelt, words
from raysoft.config.presets import load_config
from raysoft.errors import ConfigError

WORDS = ["codec.name=quantize", "codec.bits=4", "train.lr=0.01", "rounds=3"]


@pytest.mark.parametrize(
    ("settings", "keys"),
    [
        (WORDS, {}),
        ([WORDS], {}),
        ([{"codec": {"bits": 4, "name": "quantize"}, "train.lr": 0.01}], {"rounds": 3}),
        ([{"train": {"lr": np.float64(0.01)}}], {"codec": {"name": "quantize", "bits": np.int64(4)}, "rounds": 3}),
        (["rounds=5", {"codec": {"name": "quantize"}}, "codec.bits=4"], {"train": {"lr": 0.01}, "rounds": 3}),
    ],
)
def test_every_form_of_a_setting_gives_the_same_configuration(settings, keys):
    assert load("fedit", *settings, **keys) == load_config("fedit", WORDS)


def test_a_section_is_laid_over_the_preset_and_a_value_replaces_the_one_there():
    config = load("soft", {"model": {"lora": {"rank": {"low": 4, "high": 8}}}}, method={"name": "fedit"})
    assert config.model.lora.rank == {"low": 4, "high": 8}
    assert config.model.lora.targets == load_config("soft").model.lora.targets
    steps = load("soft", train={"steps": {"low": 2, "high": 4}}).train
    assert (steps.steps.low, steps.lr) == (2, load_config("soft").train.lr)


def test_text_that_looks_like_a_number_stays_text():
    assert words([], {"data.path": "1e-3", "data.text_column": 'a "b": x=1'}) == [
        'data.path="1e-3"',
        'data.text_column="a \\"b\\": x=1"',
    ]
    config = load("soft-text", data={"task": "causal-lm", "path": Path("1e-3"), "text_column": 'a "b": x=1'})
    assert (config.data.path, config.data.text_column) == ("1e-3", 'a "b": x=1')


def test_a_target_is_a_preset_a_file_a_mapping_or_a_configuration(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("soft").write_text("base: fedit\nrounds: 7\n")
    Path("mine.yaml").write_text("base: soft\nrounds: 8\n")
    assert load("soft").method.name == "soft"
    assert load(Path("soft")).method.name == "fedit"  # a path is a file
    assert load("mine.yaml") == load(Path("mine.yaml")) == load({"base": "soft", "rounds": 8}) == load("soft", rounds=8)
    config = load("soft", rounds=8)
    assert load(config) is config
    assert load(config, "seed=3") == load("soft", rounds=8, seed=3)
    assert load(config.model_dump(mode="json")) == config
    assert spelt(tmp_path / "x.yaml") == str(tmp_path / "x.yaml")


@pytest.mark.parametrize(
    ("target", "settings", "keys", "sentence"),
    [
        ("sofft", (), {}, "'sofft' is neither a preset .*did you mean 'soft'"),
        (Path("missing.yaml"), (), {}, "missing.yaml: cannot be read"),
        (3, (), {}, "3 is no preset, YAML file, mapping or configuration"),
        ("soft", (), {"roundz": 3}, "roundz: unknown key; did you mean rounds"),
        ("soft", ("rounds 3",), {}, "must have the form key=value"),
        ("soft", (3,), {}, "settings: are key=value words or mappings of keys to values, got 3"),
        ("soft", ({3: 4},), {}, "settings: keys are text such as 'train.lr', got 3"),
        ("soft", (), {"rounds": float("nan")}, "rounds: "),
        ("soft", (), {"rounds": object}, "rounds: .* is not a value that a configuration can have"),
        ({"base": 3}, (), {}, "3 is no preset"),
        ({"rounds": 3, "base": "soft", "train": {"lrr": 1}}, (), {}, "train.lrr: unknown key"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(target, settings, keys, sentence):
    with pytest.raises(ConfigError, match=sentence):
        load(target, *settings, **keys)
