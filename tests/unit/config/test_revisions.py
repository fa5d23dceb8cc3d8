"""A plug-in's revision: part of the hash above 1, so that only its own older runs are not found again."""

import pickle

import pytest

from raysoft.codecs import rank_components
from raysoft.codecs.base import ALIKE
from raysoft.config.presets import load_config
from raysoft.wireless import rayleigh, rician
from tests.coordinators import coordinator


def test_the_first_revision_has_no_part_in_the_hash(monkeypatch):
    plain = load_config("soft")
    assert plain.revisions() == {}
    assert "revisions" not in plain.result_keys()
    before = plain.config_hash()
    monkeypatch.setattr(rician.Config, "REVISION", 2)
    assert load_config("soft").config_hash() == before  # soft runs over rayleigh
    monkeypatch.setattr(rayleigh.Config, "REVISION", 2)
    revised = load_config("soft")
    assert revised.revisions() == {"channel": 2}
    assert revised.config_hash() != before


def test_an_option_that_came_later_leaves_the_hash_at_its_default():
    """The runs of before are still found, and resumed."""
    keys = load_config("soft").result_keys()
    assert "matched" not in keys["codec"]
    assert "max_update_norm" not in keys["train"]
    assert load_config("soft", ["codec.matched=false"]).result_keys()["codec"]["matched"] is False
    assert load_config("soft", ["train.max_update_norm=7"]).result_keys()["train"]["max_update_norm"] == 7
    assert load_config("soft").config_hash() == "8e69087ba2a423a34b7713ba3b936ad4"  # before there was `matched`


def test_a_revision_may_depend_on_the_whole_configuration(monkeypatch):
    monkeypatch.setattr(rayleigh.Config, "revision_in", lambda self, run: 3 if run.cohort.size == 5 else 1)
    assert load_config("soft", ["cohort.size=5"]).revisions() == {"channel": 3}
    assert load_config("soft").revisions() == {}
    # also of one that was changed after it was checked
    changed = load_config("soft")
    assert changed.model_copy(update={"cohort": changed.cohort.model_copy(update={"size": 5})}).revisions() != {}


def test_a_chain_has_the_latest_revision_of_its_members(monkeypatch):
    chain = ["codec={name: chain, codecs: [{name: rank_components}, {name: quantize}]}"]
    assert load_config("soft", chain).revisions() == {}
    monkeypatch.setattr(rank_components.Config, "REVISION", 4)
    assert load_config("soft", chain).revisions() == {"codec": 4}


@pytest.mark.parametrize("copy", [lambda one: pickle.loads(pickle.dumps(one)), lambda one: one.model_copy(deep=True)])
def test_a_revision_travels_with_the_configuration(monkeypatch, copy):
    monkeypatch.setattr(rayleigh.Config, "REVISION", 2)
    config = load_config("soft")
    assert copy(config) == config
    assert copy(config).config_hash() == config.config_hash()


@pytest.mark.parametrize(
    "preset, settings, revised",
    [
        ("soft", [], False),  # the digits' attention matrices have one shape
        ("soft", ["model.lora.targets=all-linear"], True),
        ("soft", ["model.lora.targets=all-linear", "allocator={name: minmax}"], False),  # reads no curves
        ("soft-text", [], True),
        ("soft-text", ["allocator={name: greedy, latency_budget_s: 0.4}"], True),
        ("soft-text", ["allocator={name: equal}"], False),
        ("soft-plus", [], True),
        ("soft-plus", ["allocator={name: random}"], False),
        ("topk", [], False),
        ("soft-text", ["codec={name: chain, codecs: [{name: rank_components}, {name: quantize}]}"], True),
        ("soft-text", ["codec={name: chain, codecs: [{name: identity}, {name: topk}]}"], False),
    ],
)
def test_a_revision_where_the_bits_of_a_curve_are_charged_since(preset, settings, revised):
    assert load_config(preset, settings).revisions() == ({"codec": 2} if revised else {})


def test_the_models_that_are_said_to_be_alike_are():
    for name, targets in sorted(ALIKE):
        made, _ = coordinator("soft", f"model.name={name}", f"model.lora.targets={targets}")
        space = made.parts.info.space
        assert len({(pair.out_features, pair.in_features) for pair in space.pairs}) == 1
