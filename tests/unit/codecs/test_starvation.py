"""Age bonus and random share: who is drawn, what is remembered, and that the curve still tells the truth."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysoft.codecs.measure.factors import Layout, read_update
from raysoft.codecs.measure.importance import interleaved
from raysoft.codecs.memory.fading import AGE, LOTTERY
from raysoft.errors import ConfigError
from tests.unit.codecs.updates import build, client, dense_error


def kept(encoded, components):
    return np.flatnonzero(np.asarray(encoded.stats["sent"])[:components])


@given(st.integers(1, 40), st.floats(0, 1), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_a_lottery_takes_its_share_of_every_prefix(total, share, seed):
    rng = np.random.default_rng(seed)
    best, drawn = rng.permutation(total), rng.permutation(total)
    out = interleaved(best, drawn, share)
    assert sorted(out) == list(range(total))
    for count in range(1, total + 1):
        lots = int(share * count)
        # The places left to the score hold the best of what the lottery has not taken.
        assert set(best[: count - lots]) <= set(out[:count])
    assert (interleaved(best, drawn, 0.0) == best).all()
    assert (interleaved(best, drawn, 1.0) == drawn).all()


@pytest.mark.parametrize("scope", ["model", "matrix"])
@pytest.mark.parametrize(
    "options", [{"random_share": 0.4}, {"age_bonus": 2.0}, {"age_bonus": 1.0, "random_share": 0.3}]
)
def test_the_curve_holds_the_errors_of_what_is_sent(scope, options):
    space, start, update = client([(12, 10)] * 2 + [(6, 14)], 4, seed=7)
    codec = build("rank_components", space, scope=scope, **options)
    ages = np.random.default_rng(1).integers(0, 9, (3, 4)).astype(float)
    memory = {AGE: ages, LOTTERY: np.array(77)}
    factors = replace(read_update(Layout(space, 4), update, start), age_LR=ages, lottery=77)
    bits, errors = codec.scheme.curve(factors, codec.coder)
    for units in range(len(bits)):
        encoded = codec.encode(update, start, memory, units, None, np.random.default_rng(units))
        received = codec.decode(encoded.payload, start, units)
        assert encoded.payload.num_bits == bits[units]
        assert dense_error(space, start, update, received) == pytest.approx(errors[units], rel=1e-6, abs=1e-12)


def test_an_age_bonus_multiplies_the_score():
    space, start, update = client([(9, 7)], 6, seed=3)
    scores = np.diagonal(read_update(Layout(space, 6), update, start).gram_LRR(), axis1=1, axis2=2)[0]
    ages = np.array([0.0, 5.0, 1.0, 0.0, 30.0, 2.0])
    codec = build("rank_components", space, age_bonus=0.5)
    for units in range(1, 7):
        encoded = codec.encode(update, start, {AGE: ages[None]}, units, None, np.random.default_rng(0))
        best = np.argsort(-scores * (1 + 0.5 * ages))[:units]
        assert set(kept(encoded, 6)) == set(best.tolist())


@pytest.mark.parametrize("feedback", [False, True, "transport"])
def test_ages_count_participations_since_a_component_was_delivered(feedback):
    space, start, _ = client([(9, 7)] * 2, 3, r_max=4)
    codec = build("rank_components", space, age_bonus=0.5, error_feedback=feedback)
    ages, memory = np.zeros((2, 3)), {}
    for round_ in range(9):
        _, _, update = client([(9, 7)] * 2, 3, r_max=4, seed=round_)
        encoded = codec.encode(update, start, memory, round_ % 4, None, np.random.default_rng(0))
        sent = np.asarray(encoded.stats["sent"]).reshape(2, 4)[:, :3]
        assert sent.sum() == round_ % 4
        np.testing.assert_array_equal(encoded.memory_if_lost[AGE], ages + 1)
        delivered = round_ % 3 != 1
        ages = np.where(sent & delivered, 0.0, ages + 1)
        memory = encoded.memory_if_delivered if delivered else encoded.memory_if_lost
        np.testing.assert_array_equal(memory[AGE], ages)


def test_with_an_age_bonus_nobody_starves():
    """The same update every round, one component of eight a round: without the bonus the best is sent for ever.

    A component waits about as many rounds as the largest score is larger than its own.
    """
    space, start, update = client([(9, 7)] * 2, 4, seed=2)
    draw = np.random.default_rng(2)
    update = {name: (0.02 * draw.normal(size=value.shape)).astype(np.float32) for name, value in update.items()}
    scores = np.diagonal(read_update(Layout(space, 4), update, start).gram_LRR(), axis1=1, axis2=2)
    assert scores.max() < 20 * scores.min()
    sent = {}
    for bonus in (0.0, 1.0):
        codec, memory, seen = build("rank_components", space, age_bonus=bonus), {}, set()
        for _ in range(400):
            encoded = codec.encode(update, start, memory, 1, None, np.random.default_rng(0))
            memory = encoded.memory_if_delivered
            seen |= set(kept(encoded, 8).tolist())
        sent[bonus] = len(seen)
    assert sent[0.0] == 1
    assert sent[1.0] == 8


@pytest.mark.parametrize("feedback", [False, True])
def test_the_lottery_is_that_of_its_seed_and_is_not_remembered(feedback):
    space, start, update = client([(9, 7)] * 3, 4, seed=1)
    codec = build("rank_components", space, random_share=1.0, error_feedback=feedback)
    assert codec.draws
    assert not build("rank_components", space).draws
    drawn = set()
    for seed in range(60):
        memory = {LOTTERY: np.array(seed)}
        first, again = (codec.encode(update, start, memory, 2, None, np.random.default_rng(k)) for k in range(2))
        assert (kept(first, 12) == kept(again, 12)).all()
        assert LOTTERY not in first.memory_if_delivered
        assert LOTTERY not in first.memory_if_lost
        drawn |= set(kept(first, 12).tolist())
    assert drawn == set(range(12))  # 120 draws of 12: each is missed with probability 1e-5


def test_a_chain_passes_both_on():
    space, start, update = client([(9, 7)] * 2, 3, seed=1)
    members = [
        {"name": "rank_components", "age_bonus": 1.0, "random_share": 0.5},
        {"name": "topk", "kept_fraction": 0.5},
    ]
    codec = build("chain", space, codecs=members)
    assert codec.draws
    encoded = codec.encode(update, start, {LOTTERY: np.array(3)}, 2, None, np.random.default_rng(0))
    assert (encoded.memory_if_delivered[AGE] == 0).sum() == 2


def test_greedy_sets_have_no_scores():
    space, _, _ = client([(3, 3)], 2)
    for option in ({"age_bonus": 0.1}, {"random_share": 0.1}):
        with pytest.raises(ConfigError, match="gram_greedy has no scores"):
            build("rank_components", space, importance="gram_greedy", **option)
