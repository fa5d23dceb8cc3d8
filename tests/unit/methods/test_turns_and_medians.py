"""RoLoRA's turns in real rounds, and the coordinate median against a plain loop."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysoft.config.presets import load_config
from raysoft.errors import ConfigError
from raysoft.methods.median import median_of_senders
from tests.rounds import rounds_of


def test_one_factor_moves_in_a_round_and_its_mean_is_exact():
    parts, states, records = rounds_of("rolora")
    for tick, (before, after) in enumerate(zip(states, states[1:], strict=False), start=1):
        for pair in parts.info.space.pairs:
            moved, frozen = (pair.b, pair.a) if tick % 2 else (pair.a, pair.b)
            np.testing.assert_array_equal(before.server.theta[frozen], after.server.theta[frozen])
            assert (before.server.theta[moved] != after.server.theta[moved]).any()
    assert max(record.aggregation_covariance for record in records) < 1e-20
    assert all(record.metrics["applied_cosine"] == pytest.approx(1.0, abs=1e-9) for record in records)


def test_two_rounds_cost_one_of_fedit():
    _, _, turns = rounds_of("rolora", count=2)
    _, _, both = rounds_of("fedit", count=1)
    assert sum(record.uplink_bits for record in turns) == both[0].uplink_bits
    assert turns[0].downlink_bits == both[0].downlink_bits, "clients keep nothing, so they receive both factors"


@pytest.mark.parametrize("memory", ["true", "transport"])
def test_a_memory_does_not_go_with_turns(memory):
    with pytest.raises(ConfigError, match=r"codec\.error_feedback: .*rolora"):
        load_config("rolora", [f"codec.error_feedback={memory}"])


@given(st.integers(0, 2**32 - 1), st.integers(1, 6))
@settings(max_examples=50, deadline=None)
def test_the_median_is_that_of_the_senders(seed, clients):
    draws = np.random.default_rng(seed)
    b, a = draws.normal(size=(clients, 4, 3)), draws.normal(size=(clients, 3, 5))
    sent = draws.random((clients, 3)) < 0.6
    b, a = b * sent[:, None, :], a * sent[:, :, None]
    found_b, found_a = median_of_senders(b.astype(np.float32), a.astype(np.float32))
    for r in range(3):
        senders = [k for k in range(clients) if sent[k, r]]
        for o in range(4):
            wanted = np.median([np.float32(b[k, o, r]) for k in senders]) if senders else 0.0
            assert found_b[o, r] == pytest.approx(wanted)
        for i in range(5):
            wanted = np.median([np.float32(a[k, r, i]) for k in senders]) if senders else 0.0
            assert found_a[r, i] == pytest.approx(wanted)


def test_a_minority_cannot_move_the_median_out_of_what_the_others_sent():
    draws = np.random.default_rng(3)
    b, a = draws.normal(size=(5, 4, 3)), draws.normal(size=(5, 3, 5))
    b[:2], a[:2] = 1e6, -1e6
    found_b, found_a = median_of_senders(b, a)
    assert (found_b <= b[2:].max(axis=0)).all()
    assert (found_a >= a[2:].min(axis=0)).all()
    assert np.abs(b.mean(axis=0)).min() > 1e5, "the mean is lost"


@pytest.mark.parametrize(
    "codec", ["topk", "{name: randomk, unit: entry}", "ecsq", "waterfill", "{name: rank_components, matched: false}"]
)
def test_single_entries_do_not_tell_who_sent_a_component(codec):
    word = f"codec={codec}" if "{" in codec else f"codec.name={codec}"
    with pytest.raises(ConfigError, match=r"codec\.name: .*median cannot tell who sent a component"):
        load_config("fedit", ["method.name=median", word])
    load_config("fedit", ["method.name=median", "codec={name: randomk, unit: component}"])


@pytest.mark.parametrize("method", ["ffa", "rolora", "head_only"])
def test_the_state_of_one_factor_has_no_zero_to_fall_to(method):
    with pytest.raises(ConfigError, match=rf"codec\.fallback: zero needs .*{method} does not"):
        load_config(
            "soft", [f"method.name={method}", "codec={name: topk, fallback: zero}", "model.lora.train_head=true"]
        )
