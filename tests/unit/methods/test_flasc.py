"""FLASC (6.8): FedIT at density 1, exactly k entries down, coordinates that come back to life, bits on the clock."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysoft.config.presets import load_config
from raysoft.errors import ConfigError
from raysoft.kernels.subsets import largest, subset_bits
from raysoft.methods.flasc import Config, build
from raysoft.methods.folds import Arrived
from raysoft.methods.ranks import cut_to_rank
from raysoft.types import Outcome, Reception, ServerState
from tests.rounds import rounds_of
from tests.unit.methods.spaces import PAIRS, space

FACTORS = [name for pair in PAIRS for name in (pair.a, pair.b)]
PLAIN = ("method.name=flasc", "codec.name=identity")


def server_of(seed=0, rank=3):
    draws = np.random.default_rng(seed)
    return ServerState({n: draws.normal(size=shape).astype(np.float32) for n, shape in space(rank).shapes.items()})


def view_of(density, server, rank=3):
    method = build(Config(density=density), space())
    return method.view(method.broadcast(server, 1), 0, rank, 1)


def flat(values):
    return np.concatenate([values[name].reshape(-1) for name in FACTORS])


@pytest.mark.parametrize("weighting", ["uniform", "samples"])
def test_at_density_one_it_is_fedit_bit_for_bit(weighting):
    words = (f"cohort.weighting={weighting}", "model.lora.train_head=true", "model.lora.rank={low: 2, high: 4}")
    _, plain, records = rounds_of("fedit", *words, count=2)
    _, masked, others = rounds_of("fedit", *words, *PLAIN, "method.density=1.0", count=2)
    for one, two in zip(plain, masked, strict=True):
        assert all(one.server.theta[name].tobytes() == two.server.theta[name].tobytes() for name in one.server.theta)
    assert [r.downlink_bits for r in records] == [r.downlink_bits for r in others]
    assert [r.uplink_bits for r in records] == [r.uplink_bits for r in others]


@pytest.mark.parametrize("density", [1e-9, 0.1, 0.29, 0.5, 0.999])
@pytest.mark.parametrize("rank", [3, 2, 1])
def test_exactly_k_entries_come_down_and_are_charged(density, rank):
    server = server_of()
    view = view_of(density, server, rank)
    cut = cut_to_rank(server.theta, space(), rank)
    values, entries = flat(view.start), flat(cut)
    k = max(int(values.size * density), 1)
    assert np.count_nonzero(values) == k
    assert np.abs(values[values != 0]).min() >= np.abs(entries[values == 0]).max()
    np.testing.assert_array_equal(values[values != 0], entries[values != 0])
    np.testing.assert_array_equal(view.start["head"], server.theta["head"])
    assert view.downlink.values == 32 * (k + 8)
    assert view.downlink.side == (math.comb(values.size, k) - 1).bit_length()
    assert view.dense_bits == 32 * (values.size + 8)  # what is sent up without a codec is dense


def test_of_equal_entries_the_first_ones_come():
    theta = {name: np.full(shape, -0.5, np.float32) for name, shape in space().shapes.items()}
    values = flat(view_of(0.4, ServerState(theta)).start)
    k = int(values.size * 0.4)
    assert (values[:k] == -0.5).all()
    assert not values[k:].any()


@given(st.lists(st.sampled_from([-2.0, -0.0, 0.0, 0.5, 1.0, 3.0]), min_size=1, max_size=40), st.integers(0, 45))
def test_the_largest_are_those_of_a_stable_sort(values, count):
    found = largest(np.array(values), count)
    order = sorted(range(len(values)), key=lambda k: (-values[k], k))
    assert np.flatnonzero(found).tolist() == sorted(order[:count])
    assert (
        subset_bits(len(values), min(count, len(values)))
        == (math.comb(len(values), min(count, len(values))) - 1).bit_length()
    )


def test_what_was_masked_is_trained_and_the_change_goes_to_the_dense_factors():
    server = server_of()
    method = build(Config(density=0.25), space())
    view = method.view(method.broadcast(server, 1), 0, 3, 1)
    job = method.local(view, {}, 1)
    assert job.trains == view.trains == frozenset(space().shapes)  # all of them, masked or not
    end = {name: value + np.float32(0.5) for name, value in view.start.items()}
    upload = method.upload(view, job, end, {})
    for value in upload.update.values():  # against the download, not against what the server has
        np.testing.assert_allclose(value, 0.5, atol=1e-6)
    folded = method.fold.finish(method.fold.part([Arrived(upload.update, 1.0, server.theta)]))
    outcome = Outcome(np.ones(1, bool), np.zeros(1), np.zeros(1), ("",), 0.0)
    after = method.aggregate(server, Reception(outcome, (), folded), 1)
    for name in FACTORS:
        np.testing.assert_allclose(after.theta[name], server.theta[name] + 0.5, atol=1e-6)


def test_an_entry_that_few_sent_is_a_mean_over_everybody():
    one, none = {"x": np.array([4.0, 0.0], np.float32)}, {"x": np.array([0.0, 2.0], np.float32)}
    fold = build(Config(), space()).fold
    total = fold.finish(fold.part([Arrived(one, 0.25, {}), Arrived(none, 0.75, {})]))
    np.testing.assert_array_equal(total["x"], [1.0, 1.5])


def test_entries_that_were_masked_come_back_in_a_run():
    """Clients move coordinates that came as zero, and the server's B, zero at first, fills up."""
    parts, states, records = rounds_of("flasc", "method.extras=[]", count=2)
    before, after = states[0].server.theta, states[1].server.theta
    k = int(parts.info.space.num_values() * 0.25)
    down = 32 * k + subset_bits(parts.info.space.num_values(), k)
    assert [record.downlink_bits for record in records] == [3 * down] * 2
    view = parts.method.view(parts.method.broadcast(states[0].server, 1), 0, parts.info.space.rank, 1)
    assert any(((view.start[name] == 0) & (after[name] != before[name])).any() for name in before)


def test_bits_down_take_their_time():
    words = ("uplink.downlink=broadcast", "uplink.downlink_rate_bps=1e6", "uplink.name=ideal", "allocator.name=ideal")
    parts, _, sparse = rounds_of("fedit", *PLAIN, *words, count=1)
    _, _, dense = rounds_of("fedit", *words, count=1)
    values = parts.info.space.num_values()
    k = values // 4
    saved_s = (32 * (values - k) - subset_bits(values, k)) / 1e6
    assert dense[0].round_latency_s - sparse[0].round_latency_s == pytest.approx(saved_s, rel=1e-9)


def test_up_and_down_together_with_adam_on_the_server():
    _, states, records = rounds_of("flasc", count=2)
    assert any(key.startswith("fedadam/v/") for key in states[-1].server.extra)
    assert records[0].participants == 3
    assert 0 < records[0].kept_fraction_mean <= 0.25
    dense = rounds_of("fedit", count=1)[2][0]
    assert records[0].uplink_bits <= 0.25 * dense.uplink_bits


@pytest.mark.parametrize(
    ("words", "field"),
    [
        (("codec={name: topk, fallback: zero}",), "codec.fallback"),
        (("codec={name: topk, error_feedback: transport}",), "codec.error_feedback"),
    ],
)
def test_codecs_that_go_by_the_factors_themselves_are_refused(words, field):
    with pytest.raises(ConfigError, match="goes by the factors that clients start from") as refused:
        load_config("flasc", list(words))
    assert refused.value.field == field
    assert load_config("flasc", ["codec={name: topk, error_feedback: true}"])


@pytest.mark.parametrize("density", ["0", "1.1", "-0.5"])
def test_a_density_is_a_share(density):
    with pytest.raises(ConfigError, match=r"^method\.density: "):
        load_config("flasc", [f"method.density={density}"])
