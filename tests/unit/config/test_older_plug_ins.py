"""Plug-ins of other packages that were written for raysoft 0.1: refused by name, in a sentence, never passed over."""

import pytest

from raysoft.config import registry
from raysoft.config.presets import load_config
from raysoft.errors import ConfigError
from raysoft.wireless.link import Link
from tests.plug_in_packages import make_package
from tests.unit.methods.spaces import space

UPLINK = """
from raysoft.uplinks.ideal import Config, IdealUplink

class Old(IdealUplink):
    def receive(self, sums, outcome, rng):
        return sums

def build(config, link):
    return Old(config)
"""
METHOD = """
from raysoft.methods.base import MethodConfig

class Config(MethodConfig):
    pass

class Old:
    needs = "sum"
    def broadcast(self, server, tick): ...
    def local(self, start, client, steps, tick): ...

def build(config, space):
    return Old()
"""
CODEC = """
from raysoft.codecs.base import CodecConfig as Config

class Old:
    def menu(self, update, start, memory, order=None): ...
    def encode(self, update, start, memory, units, order, rng): ...
    def decode(self, payload, start, units, order=None): ...

def build(config, space):
    return Old()
"""
FLAGS = """
from raysoft.allocation.tsfa import *
NEEDS_BUDGET = True
"""
READS = """
from typing import ClassVar
from raysoft.allocation import tsfa
from raysoft.allocation.tsfa import build

class Config(tsfa.Config):
    reads_curves: ClassVar[bool] = False
"""


@pytest.fixture(autouse=True)
def fresh_registry():
    """Packages come and go within this file."""
    yield
    registry.names.cache_clear()
    registry.plugin.cache_clear()


@pytest.mark.parametrize(
    ("kind", "source", "args", "match"),
    [
        ("uplink", UPLINK, (None,), r"`receive` takes other arguments than \(folded, outcome, tick, rng\)"),
        ("method", METHOD, (space(),), r"`fold` is missing"),
        ("codec", CODEC, (space(),), r"`encode` takes other arguments than \(update, view, memory, units, rng\)"),
    ],
)
def test_other_signatures_are_named(monkeypatch, tmp_path, kind, source, args, match):
    name = f"old_{kind}"
    monkeypatch.syspath_prepend(make_package(tmp_path / "site", f"{kind}s", name, source))
    registry.names.cache_clear()
    words = [f"{kind}={{name: {name}}}", *(["allocator={name: ideal}"] if kind == "uplink" else [])]
    config = load_config("fedit", words)
    with pytest.raises(ConfigError, match=rf"{kind}\.name: {name} .* {match}.*docs/plugins\.md"):
        registry.build(kind, getattr(config, kind), *args)


@pytest.mark.parametrize(("source", "flag"), [(FLAGS, "NEEDS_BUDGET"), (READS, "reads_curves")])
def test_flags_that_are_traits_now_are_named(monkeypatch, tmp_path, source, flag):
    monkeypatch.syspath_prepend(make_package(tmp_path / "site", "allocators", f"old_{flag.lower()}", source))
    registry.names.cache_clear()
    with pytest.raises(ConfigError, match=rf"allocator\.name: old_.* {flag} is a trait of its Config now"):
        load_config("soft", [f"allocator={{name: old_{flag.lower()}, latency_budget_s: 0.3}}"])


@pytest.mark.parametrize(
    ("name", "source"), [("empty", "build = None"), ("odd", "class Config: pass\ndef build(*_): ...")]
)
def test_a_module_that_is_no_plug_in_is_named(monkeypatch, tmp_path, name, source):
    monkeypatch.syspath_prepend(make_package(tmp_path / "site", "channels", f"{name}_channel", source))
    registry.names.cache_clear()
    with pytest.raises(ConfigError, match=rf"channel\.name: {name}_channel has no `Config`"):
        load_config("soft", [f"channel={{name: {name}_channel}}"])


def test_what_is_here_is_what_the_protocols_ask_for():
    """The check that other packages go through accepts every built-in plug-in."""
    config = load_config("soft", ["codec={name: identity}"])
    for name in registry.METHODS:
        options = registry.plugin("method", name).Config()
        registry.check_protocol("method", name, registry.plugin("method", name).build(options, space()))
    link = Link.from_config(config.channel.checked)
    for name in registry.UPLINKS:
        made = registry.plugin("uplink", name)
        registry.check_protocol("uplink", name, made.build(made.Config(), link))
