"""Error feedback and the options that are refused."""

import numpy as np
import pytest

from raysoft.config import parse_section
from raysoft.errors import ConfigError
from tests.unit.codecs.updates import MODULES, build, client, view_of

FEEDBACK = [
    ("identity", {"bits_per_value": 3}),
    ("rank_components", {}),
    ("rank_components", {"bits_per_value": 4}),
    ("topk", {}),
    ("randomk", {"unit": "entry"}),
    ("svd", {"bits_per_value": 16}),
    ("quantize", {"bits": 3}),
    ("waterfill", {}),
    ("ecsq", {}),
    ("chain", {"codecs": [{"name": "rank_components"}, {"name": "quantize", "bits": 5}]}),
]


def test_every_codec_is_fed_back():
    assert {name for name, _ in FEEDBACK} == set(MODULES)


@pytest.mark.parametrize("name, options", FEEDBACK)
def test_sum_of_sent_plus_memory_is_the_sum_of_updates(name, options):
    space, start, _ = client([(9, 7)] * 3, 4, head=True)
    view = view_of(space, start)
    codec = build(name, space, error_feedback=True, **options)
    rng, memory = np.random.default_rng(0), {}
    wanted = {key: np.zeros(value.shape) for key, value in start.items()}
    received = {key: np.zeros(value.shape) for key, value in start.items()}
    for round_ in range(12):
        _, _, update = client([(9, 7)] * 3, 4, head=True, seed=round_)
        update = {key: value.astype(np.float64) for key, value in update.items()}
        units = 1 + round_ % codec.menu(update, view, memory).units
        encoded = codec.encode(update, view, memory, units, rng)
        delivered = round_ % 3 != 1
        memory = encoded.memory_if_delivered if delivered else encoded.memory_if_lost
        sent = codec.decode(encoded.payload, view, units)
        for key in wanted:
            wanted[key] += update[key]
            received[key] += sent[key].astype(np.float64) if delivered else 0.0
    for key, total in wanted.items():
        # Values are rounded to the wire's precision, and the memory keeps exactly that rounding too.
        assert memory["ef/" + key].dtype == np.float64
        np.testing.assert_allclose(received[key] + memory["ef/" + key], total, rtol=0, atol=1e-12)


def test_the_curve_is_that_of_update_plus_memory():
    space, start, update = client([(9, 7)] * 3, 4)
    view = view_of(space, start, update)
    plain, fed = build("rank_components", space), build("rank_components", space, error_feedback=True)
    assert (fed.menu(update, view, {}).error_J == plain.menu(update, view, {}).error_J).all()
    memory = {"ef/" + key: value.astype(np.float64) for key, value in update.items()}
    doubled = {key: 2 * value for key, value in update.items()}
    np.testing.assert_allclose(fed.menu(update, view, memory).error_J, plain.menu(doubled, view, {}).error_J, rtol=1e-9)
    encoded = fed.encode(update, view, memory, 3, np.random.default_rng(0))
    sent = fed.decode(encoded.payload, view, 3)
    kept = plain.decode(plain.encode(doubled, view, {}, 3, np.random.default_rng(0)).payload, view, 3)
    assert all((sent[key] == kept[key]).all() for key in sent)
    ordered = view_of(space, start, update, np.random.default_rng(1).permutation(12))  # which both follow
    sent, kept = (
        codec.encode(change, ordered, past, 3, np.random.default_rng(0))
        for codec, change, past in ((fed, update, memory), (plain, doubled, {}))
    )
    assert sent.payload == kept.payload
    assert (sent.stats["sent"] == kept.stats["sent"]).all()


def test_memory_of_another_rank_or_of_frozen_factors():
    space, start, update = client([(9, 7)] * 2, 3, r_max=4, kind="b")
    view = view_of(space, start, update)
    codec = build("rank_components", space, error_feedback=True)
    other = {"ef/layer0.lora_B": np.ones((9, 4)), "ef/layer0.lora_A": np.ones((4, 7))}
    encoded = codec.encode(update, view, other, 2, np.random.default_rng(0))
    fresh = codec.encode(update, view, {}, 2, np.random.default_rng(0))
    assert encoded.payload == fresh.payload  # a memory of rank 4 does not fit a client of rank 3
    assert encoded.memory_if_delivered["ef/layer0.lora_B"].shape == (9, 3)
    assert encoded.memory_if_delivered["ef/layer0.lora_A"] is other["ef/layer0.lora_A"]  # not trained: unchanged


def test_without_feedback_memory_is_passed_on():
    space, start, update = client([(9, 7)], 3)
    view = view_of(space, start, update)
    memory = {"x": np.ones(2)}
    encoded = build("topk", space).encode(update, view, memory, 2, np.random.default_rng(0))
    assert encoded.memory_if_delivered is memory
    assert encoded.memory_if_lost is memory


@pytest.mark.parametrize(
    "name, options, field, words",
    [
        ("rank_components", {"importance": "size"}, "codec.importance", "'size'"),
        ("rank_components", {"scope": "layer"}, "codec.scope", "'layer'"),
        ("identity", {"bits_per_value": 33}, "codec.bits_per_value", "33"),
        ("identity", {"bits_per_value": 0}, "codec.bits_per_value", "0"),
        ("identity", {"kept_fraction": 0}, "codec.kept_fraction", "0"),
        ("topk", {"of": "weights"}, "codec.of", "'weights'"),
        ("topk", {"k": 3}, "codec.k", "unknown key"),
        ("randomk", {"unbiased": True, "error_feedback": True}, "codec", "error_feedback: false"),
        ("quantize", {"bits": 1}, "codec.bits", "1"),
        ("quantize", {"bits_per_value": 16}, "codec", "leave bits_per_value at 32, not 16"),
        ("chain", {}, "codec.codecs", "is required"),
        ("chain", {"codecs": []}, "codec.codecs", "at least 1"),
        ("chain", {"codecs": [{"name": "chain", "codecs": []}]}, "codec.codecs.0.name", "unknown codec 'chain'"),
        ("chain", {"codecs": [{"name": "topk", "of": "x"}]}, "codec.codecs.0.of", "'x'"),
        ("chain", {"codecs": ["topk", {"name": "quantize", "bitz": 3}]}, "codec.codecs.1.bitz", "did you mean bits?"),
        ("chain", {"codecs": [{"name": "quantize"}, {"name": "topk"}]}, "codec.codecs", "quantize comes last"),
        ("chain", {"codecs": [{"name": "svd"}, {"name": "topk"}]}, "codec.codecs", "not svd"),
        ("chain", {"codecs": [{"name": "topk"}, {"name": "randomk"}]}, "codec.codecs", "got topk, randomk"),
        (
            "chain",
            {"codecs": [{"name": "topk", "error_feedback": True}]},
            "codec.codecs.0.error_feedback",
            "belongs to the chain",
        ),
        ("chain", {"codecs": [{"name": "randomk", "matched": False}]}, "codec.codecs.0.matched", "unknown key"),
        ("chain", {"codecs": "tpk"}, "codec.codecs.0.name", "'tpk'"),
        ("chain", {"codecs": 3}, "codec.codecs", "a valid list, got 3"),
    ],
)
def test_bad_options_are_refused(name, options, field, words):
    with pytest.raises(ConfigError) as caught:
        parse_section(MODULES[name].Config, options, "codec")
    assert caught.value.field == field
    assert words in str(caught.value)


def test_names_alone_are_members_at_their_defaults():
    config = MODULES["chain"].Config
    whole = parse_section(config, {"codecs": [{"name": "topk"}, {"name": "quantize"}]}, "codec")
    assert parse_section(config, {"codecs": ["topk", "quantize"]}, "codec") == whole
    assert parse_section(config, {"codecs": "topk"}, "codec").codecs == whole.codecs[:1]


@pytest.mark.parametrize("name, options", FEEDBACK)
def test_a_resolved_configuration_parses_again(name, options):
    """The saved run holds every default written out."""
    config = parse_section(MODULES[name].Config, {**options, "error_feedback": True}, "codec")
    again = parse_section(MODULES[name].Config, config.model_dump(mode="json"), "codec")
    assert again.model_dump(mode="json") == config.model_dump(mode="json")
