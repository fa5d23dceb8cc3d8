"""Options that plug-ins had once: at their old values a file still loads, and the runs made with it are found again."""

import pytest
import yaml

from raysoft.config import registry
from raysoft.config.gone import GONE, LAST
from raysoft.config.presets import load_config
from raysoft.errors import ConfigError


def chain(member: str = "name: rank_components") -> str:
    return f"codec={{name: chain, codecs: [{{{member}}}, {{name: quantize, bits: 4}}]}}"


FEDIT, FFA = "method={name: fedit}", "method={name: ffa}"
# As version 0.1 gave them, which had the options and wrote them out.
HASHES = [
    ("soft", [], "8e69087ba2a423a34b7713ba3b936ad4"),
    ("soft-plus", [], "2996b8739c7b384f6ed675daafe0cc4d"),
    ("fedit", [], "de82e802c442fde3329f6645fa224331"),
    ("soft", [FEDIT], "1d8d03e7f36b9dc707d06ab6792678d6"),
    ("soft", [FFA], "6a7ba57c15df38d023d6a9ae17b14703"),  # a method that never had any
    ("soft", [chain()], "91e9b0492299d9db8bc579d9a0cb9a69"),
    ("soft-plus", [chain()], "3f6dc4a350bcb4f95ac907611af8b70d"),
]
OLD = [
    ([], ["codec.age_bonus=0.0"]),
    ([], ["codec.age_bonus=0", "codec.random_share=0"]),
    ([], ["method.sender_weights=cohort"]),
    ([], ["method.sender_weights=cohort", "method.sender_weight_floor=0.0"]),
    ([FEDIT], ["method={name: fedit, sender_weights: cohort, sender_weight_floor: 0.0}"]),
    ([chain()], [chain("name: rank_components, age_bonus: 0.0, random_share: 0.0")]),
]


@pytest.mark.parametrize("preset, words, wanted", HASHES)
def test_the_hash_is_the_one_of_the_version_that_had_them(preset, words, wanted):
    assert load_config(preset, words).config_hash() == wanted


@pytest.mark.parametrize("without, within", OLD)
def test_at_their_old_values_they_are_passed_over_without_a_word(without, within, capfd, recwarn):
    plain, old = load_config("soft", without), load_config("soft", within)
    assert old == plain
    assert old.config_hash() == plain.config_hash()
    assert not recwarn.list
    assert capfd.readouterr() == ("", "")
    for kind in ("codec", "method"):
        assert not set(GONE.get((kind, getattr(old, kind).name), {})) & set(getattr(old, kind).options())


def test_a_run_that_wrote_them_all_down_loads(tmp_path):
    """As 0.1 saved it: every default written out."""
    plain = load_config("soft")
    tree = plain.model_dump(mode="json")
    for kind in ("codec", "method"):
        tree[kind] |= GONE[kind, tree[kind]["name"]]
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(tree))
    again = load_config(str(path))
    assert again == plain
    assert again.config_hash() == plain.config_hash()


@pytest.mark.parametrize(
    "words, field, shown",
    [
        (["codec.age_bonus=1.5"], "codec.age_bonus", "1.5"),
        (["codec.age_bonus=false"], "codec.age_bonus", "False"),  # equals zero, but never was a value of it
        (["codec.age_bonus=some"], "codec.age_bonus", "'some'"),
        (["codec.random_share=0.5"], "codec.random_share", "0.5"),
        (["codec.random_share=0.5", "method.shared_mask=true"], "codec.random_share", "0.5"),
        (["method.sender_weights=component"], "method.sender_weights", "'component'"),
        (["method.sender_weight_floor=0.1"], "method.sender_weight_floor", "0.1"),
        (["method={name: fedit, sender_weights: component}"], "method.sender_weights", "'component'"),
    ],
)
def test_other_values_name_the_version_that_ran_them(words, field, shown):
    with pytest.raises(ConfigError) as caught:
        load_config("soft", words)
    assert caught.value.field == field
    assert f"{shown} needs raysoft {LAST}; leave it out, or at " in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("option, value", [("age_bonus", 0.5), ("random_share", 1.0)])
def test_a_member_of_a_chain_is_asked_the_same(option, value):
    with pytest.raises(ConfigError) as caught:
        load_config("soft", [chain(f"name: rank_components, {option}: {value}")])
    assert caught.value.field == f"codec.codecs.0.{option}"
    assert f"{option}: is no longer there: {value} needs raysoft {LAST}; leave it out" in str(caught.value)


def test_what_a_plug_in_never_had_is_an_unknown_key():
    with pytest.raises(ConfigError, match="unknown key") as caught:
        load_config("soft", ["codec={name: topk, age_bonus: 0.0}"])
    assert caught.value.field == "codec.age_bonus"


def test_none_of_them_is_an_option_again():
    """The table would pass over what somebody asks for."""
    for (kind, name), options in GONE.items():
        assert not set(options) & set(registry.plugin(kind, name).Config.model_fields)
