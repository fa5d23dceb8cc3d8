"""What `raysoft show --explain` and docs/configuration.md say: every key has a meaning, declared in one place."""

import re
from datetime import date
from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import Field

from raysoft.codecs.base import CodecConfig
from raysoft.config import Plugin, Range, RunConfig, Section, StepsRange, registry
from raysoft.config.explain import REQUIRED, chapters, chosen, keys_of, valid
from raysoft.config.presets import load_config
from raysoft.errors import ConfigError
from raysoft.sweep.config import SCHEDULERS, Axis, SweepConfig
from raysoft.terminal.explaining import configuration_page, explained

UNITS = {"hz": "Hz", "s": "s", "m": "m", "db": "dB", "dbm": "dBm", "bps": "bit/s", "rounds": "rounds"}


def everything():
    configs = {
        f"{kind} {name}": registry.plugin(kind, name).Config for kind, names in registry.KINDS.items() for name in names
    }
    others = (RunConfig, Range, StepsRange, Axis, SweepConfig, *SCHEDULERS.values())
    return configs | {one.__name__: one for one in others}


@pytest.mark.parametrize("where, section", everything().items(), ids=list(everything()))
def test_no_key_lacks_a_meaning_and_no_number_its_unit(where, section):
    for one in keys_of(section):
        assert re.fullmatch(r"[A-Z\[`].{10,}[^.]\.", one.meaning), (
            f"{where}: {one.key} has no sentence: {one.meaning!r}"
        )
        of_range = section in (Range, Axis)  # their numbers are those of the key that has them
        number = "number" in one.valid.replace("numbers", "")
        assert bool(one.unit) == (number and not of_range) or one.key in ("model.lora.layers", "seeds"), (where, one)
        if one.unit and (suffix := one.key.rpartition("_")[2]) in UNITS and not one.key.endswith("per_hz"):
            assert one.unit in (UNITS[suffix], "1"), f"{where}: {one.key} is in {one.unit}"


def test_meanings_are_not_said_twice_in_one_section():
    for where, section in everything().items():
        meanings = [one.meaning for one in keys_of(section) if not one.key.endswith(("reduction_factor", ".name"))]
        assert len(set(meanings)) == len(meanings), where


class Theirs(CodecConfig):
    """Of another package."""

    level: Annotated[int, Field(gt=0, le=9, description="How hard it tries. [tries]")] = 3
    since: date | None = None
    way: Literal["up", "down"] | bool = "up"
    """Where it goes."""


def test_a_plug_in_of_another_package_shows_what_it_declares():
    found = {one.key: one for one in keys_of(Theirs, "codec", Theirs(level=4))}
    level, since, way = (found[f"codec.{name}"] for name in ("level", "since", "way"))
    assert (level.meaning, level.unit, level.valid) == ("How hard it tries.", "tries", "whole number > 0 and <= 9")
    assert (level.default, level.value) == ("3", "4")
    assert (since.meaning, since.default) == ("", "null")
    assert way.choices == ("up", "down", "true", "false")
    assert found["codec.kept_fraction"].meaning


class Odd(Section):
    value: Annotated[object, Field(description="A type without a schema.")] = object


def test_a_type_without_a_schema_does_not_hide_the_others():
    (one,) = keys_of(Odd)
    assert one.meaning == "A type without a schema."


def test_all_keys_of_a_run_are_there_once_with_their_values():
    config = load_config("soft-plus", ["train.lr=0.3", "method.extras=[{name: fedprox, mu: 0.5}]"])
    keys = [one for chapter in chapters(config) for one in chapter.keys]
    names = [one.key for one in keys]
    assert len(set(names)) == len(names)
    by_name = {one.key: one for one in keys}
    assert (by_name["train.lr"].value, by_name["train.lr"].default) == ("0.3", "0.05")
    assert by_name["method.extras[0].mu"].value == "0.5"
    assert by_name["codec.name"].default == REQUIRED

    def leaves(tree, prefix=""):
        for name, value in tree.items():
            yield from leaves(value, f"{prefix}{name}.") if isinstance(value, dict) else [f"{prefix}{name}"]

    dumped = set(leaves(config.model_dump(mode="json", exclude={"device": {"cpu_hz"}})))
    assert dumped - set(names) == set()


def test_members_of_a_chain_are_explained():
    config = load_config("soft", ["codec={name: chain, codecs: [rank_components, {name: quantize, bits: 5}]}"])
    keys = {one.key: one for one in [key for chapter in chapters(config) for key in chapter.keys]}
    assert keys["codec.codecs[1].bits"].value == "5"
    assert keys["codec.codecs"].value == "[rank_components, quantize]"


def test_a_beginning_chooses_and_an_unknown_one_is_refused():
    config = load_config("soft")
    (train,) = chosen(chapters(config), ["train.lr"])
    assert [one.key for one in train.keys] == ["train.lr"]
    assert {chapter.name for chapter in chosen(chapters(config), ["tracking.wandb", "codec"])} == {"tracking", "codec"}
    with pytest.raises(ConfigError, match=r"train\.lrr: no key or section .*did you mean train\.lr\?"):
        chosen(chapters(config), ["train.lrr"])


@pytest.mark.parametrize("width", [40, 80, 120])
def test_the_text_fits_the_terminal(width):
    text = explained(load_config("soft"), [], width)
    assert max(map(len, text.splitlines())) <= width
    assert "train.batch_size = 16 samples (default)" in " ".join(text.split())


def test_bounds_in_words():
    assert valid({"type": "integer", "minimum": 0, "exclusiveMaximum": 2**63}, {}) == "whole number >= 0 and < 2^63"
    assert valid({"type": "array", "items": {"type": "string"}}, {}) == "list of text"
    plugin = Plugin.model_json_schema()
    assert valid({"$ref": "#/$defs/Plugin"}, {"Plugin": plugin}) == "{name, ...}"


def test_the_page_is_up_to_date():
    page = Path(__file__).parents[3] / "docs/configuration.md"
    assert page.read_text(encoding="utf-8") == configuration_page(), "run python -m raysoft.terminal.explaining"
