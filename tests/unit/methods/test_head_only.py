"""Only the head is trained: what moves, what travels, what is refused."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from raysoft.codecs import chain, identity, randomk
from raysoft.config import Plugin, registry
from raysoft.config.presets import load_config
from raysoft.errors import ConfigError
from raysoft.methods.folds import Arrived
from raysoft.methods.head_only import Config, build
from raysoft.types import ServerState, View
from tests.coordinators import broken, coordinator
from tests.unit.methods.spaces import space

HEAD = ["model.lora.train_head=true", "method.name=head_only"]


def update(seed=0):
    draws = np.random.default_rng(seed)
    return {name: draws.normal(size=shape).astype(np.float32) for name, shape in space().shapes.items()}


def view_of(start) -> View:
    method = build(Config(), space())
    return method.view(method.broadcast(ServerState(start), 1), 0, 3, 1)


def test_nothing_but_the_head_is_trained_sent_charged_and_counted():
    method, view, end = build(Config(), space()), view_of(update(0)), update(1)
    assert view.trains == method.local(view, {}, 5).trains == {"head"}
    assert view.downlink.total == view.dense_bits == 32 * 8
    sent = method.upload(view, method.local(view, {}, 5), end, {}).update
    assert set(sent) == {"head"}
    assert set(method.fold.part([Arrived(sent, 1.0, view.start)])) == {"head"}


@pytest.mark.parametrize(
    "codec",
    [
        identity.build(identity.Config(head_bits=32), space()),
        identity.build(identity.Config(error_feedback=True), space()),
        randomk.build(randomk.Config(bits_per_value=8), space()),
        chain.build(chain.Config.model_validate({"codecs": [{"name": "topk"}, {"name": "quantize"}]}), space()),
    ],
)
def test_a_head_alone_has_one_payload_of_its_own_length(codec):
    view, head = view_of(update(0)), {"head": update(1)["head"]}
    curve = codec.menu(head, view, {})
    assert (curve.fixed_bits, curve.units) == (32 * 8, 0)
    rng = np.random.default_rng(0)
    encoded = codec.encode(head, view, {}, 0, rng)
    assert (encoded.payload.num_bits, len(encoded.payload.data), encoded.relative_error) == (256, 32, 0.0)
    for received in (encoded.received, codec.decode(encoded.payload, view, 0)):
        assert set(received) == {"head"}
        np.testing.assert_array_equal(received["head"], head["head"])
    with pytest.raises(ValueError, match="a head alone has no units, got 1"):
        codec.encode(head, view, {}, 1, rng)
    with pytest.raises(ValueError, match="what the view says is trained, neither less nor more: head"):
        codec.menu({}, view, {})
    with pytest.raises(ValueError, match="or a trained head alone"):
        codec.menu({}, replace(view, trains=frozenset()), {})


# Every codec, and every allocator with one of them at least; the head in 8 bits where nothing is lost on the way.
CODECS = {name: [f"codec.name={name}"] for name in registry.CODECS}
CODECS["chain"] = ["codec={name: chain, codecs: [{name: topk}, {name: quantize}]}"]
CASES = list(zip(CODECS, itertools.cycle(registry.ALLOCATORS)))


@pytest.mark.parametrize(("codec", "allocator"), CASES)
def test_a_round_moves_the_head_by_the_mean_change_and_nothing_else(codec, allocator):
    free = not registry.traits("allocator", Plugin(name=allocator)).needs_channel
    ideal = ["uplink.name=ideal"] if free else ["allocator.outage_factor=1e9"]
    bits = 8 if free else 32
    made, executor = coordinator(
        "soft", *HEAD, *CODECS[codec], f"allocator.name={allocator}", f"codec.head_bits={bits}", *ideal
    )
    before = made.state.server.theta
    ends = broken(executor, set())
    record = made.round(1)
    after, head = made.state.server.theta, made.parts.info.space.always_sent
    values = sum(before[name].size for name in head)
    assert record.participants == 6
    assert record.downlink_bits == 6 * 32 * values
    assert record.uplink_bits == 6 * (32 * values if bits == 32 else bits * values + 32 * len(head))
    assert record.kept_fraction_mean is None
    sizes = {k: made.parts.info.partition.size(k) for k in ends}
    for name, value in after.items():
        if name not in head:
            assert value.tobytes() == before[name].tobytes()
            continue
        steps = {k: end[name].astype(float) - start[name] for k, (start, end) in ends.items()}
        mean = sum(sizes[k] / sum(sizes.values()) * step for k, step in steps.items())
        assert np.abs(mean).max() > 1e-3
        step = max(np.abs(one).max() for one in steps.values()) / 127
        np.testing.assert_allclose(value - before[name], mean, atol=1e-6 if bits == 32 else 2 * step)


@pytest.mark.parametrize("memory", ["true", pytest.param("transport", marks=pytest.mark.slow)])
@pytest.mark.parametrize("codec", CODECS)
def test_error_feedback_has_only_the_head_to_remember(codec, memory):
    """Round after round: the memory of a head that is sent exactly is zero, and there is none of the matrices."""
    made, _ = coordinator("soft", *HEAD, *CODECS[codec], f"codec.error_feedback={memory}", "cohort.size=3")
    plain, _ = coordinator("soft", *HEAD, *CODECS[codec], "cohort.size=3")
    for tick in range(1, 4):
        assert made.round(tick).participants == plain.round(tick).participants
    for name, value in plain.state.server.theta.items():
        np.testing.assert_allclose(made.state.server.theta[name], value, atol=1e-6)


def test_without_a_trained_head_there_is_nothing_to_train():
    with pytest.raises(ConfigError, match=r"model\.lora\.train_head: is false, so method\.name=head_only has nothing"):
        load_config("soft", HEAD[1:])
