"""A plug-in's revision: part of the hash above 1, so that only its own older runs are not found again."""

import pickle

import pytest

from raysoft.codecs import rank_components
from raysoft.presets import load_config
from raysoft.wireless import rayleigh, rician


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
