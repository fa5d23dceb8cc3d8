"""Weights of senders: the mean of a component against its definition, client by client."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysoft.federation.pack_sums import weighted_sum
from raysoft.methods import fedit, soft
from raysoft.methods.base import initial_theta
from raysoft.rng import Rng
from raysoft.types import LoraPair, Outcome, ParamSpace, Reception, ServerState

NOBODY = Outcome(np.array([]), np.array([]), np.array([]), (), 0.0)
RANK = 4
PAIRS = (LoraPair("first", 6, 5), LoraPair("second", 4, 6))
SHAPES = {"first.lora_A": (4, 5), "first.lora_B": (6, 4), "second.lora_A": (4, 6), "second.lora_B": (4, 4)}
SPACE = ParamSpace({**SHAPES, "head": (2, 3)}, PAIRS, RANK, 2.0, always_sent=frozenset({"head"}))


def server() -> ServerState:
    return ServerState(theta=initial_theta(SPACE, {"head": np.ones((2, 3))}, "peft", Rng(0)))


def updates(seed: int, ranks: list[int], share: float) -> tuple[list[dict], list[np.ndarray]]:
    """Decoded updates of clients of these ranks, and which components each sent, [2, RANK]."""
    rng = np.random.default_rng(seed)
    out, sent = [], []
    for rank in ranks:
        kept = np.zeros((2, RANK), dtype=bool)
        kept[:, :rank] = rng.random((2, rank)) < share
        one = {"head": rng.normal(size=(2, 3)).astype(np.float32)}
        for number, pair in enumerate(PAIRS):
            mask = kept[number, :rank]
            one[pair.b] = (rng.normal(size=(pair.out_features, rank)) * mask).astype(np.float32)
            one[pair.a] = (rng.normal(size=(rank, pair.in_features)) * mask[:, None]).astype(np.float32)
        out.append(one)
        sent.append(kept)
    return out, sent


@pytest.mark.parametrize("module", [soft, fedit])
@given(
    seed=st.integers(0, 999),
    ranks=st.lists(st.integers(1, RANK), min_size=1, max_size=6),
    share=st.sampled_from([0.0, 0.3, 1.0]),
    floor=st.sampled_from([0.0, 0.2, 1.0]),
)
@settings(max_examples=40, deadline=None)
def test_a_component_is_the_mean_of_those_who_sent_it(module, seed, ranks, share, floor):
    config = module.Config(sender_weights="component", sender_weight_floor=floor, server_lr=0.7)
    method = module.build(config, SPACE)
    received, sent = updates(seed, ranks, share)
    mix = np.random.default_rng(seed).dirichlet(np.ones(len(ranks)))
    # Two packs, added as the coordinator adds them.
    half = len(ranks) // 2
    packs = [
        weighted_sum([method.contribute(one) for one in received[part]], mix[part])
        for part in (slice(0, half), slice(half, None))
    ]
    sums: dict = {}
    for pack in packs:
        for name, value in (pack or {}).items():
            sums[name] = sums.get(name, 0.0) + value
    after = method.aggregate(server(), Reception(NOBODY, (), sums=sums), 1)
    before = server().theta
    for number, pair in enumerate(PAIRS):
        for j in range(RANK):
            who = [k for k in range(len(ranks)) if sent[k][number, j]]
            weight = max(sum(mix[k] for k in who), floor)
            for name, index in ((pair.b, (slice(None), j)), (pair.a, (j, slice(None)))):
                step = sum((mix[k] * received[k][name][index].astype(float) for k in who), 0.0)
                want = before[name][index].astype(float) + (0.7 * step / weight if who else 0.0)
                np.testing.assert_allclose(after.theta[name][index], want, atol=1e-5)
    head = before["head"] + 0.7 * sum(m * one["head"].astype(float) for m, one in zip(mix, received, strict=True))
    np.testing.assert_allclose(after.theta["head"], head, atol=1e-5)
    assert set(after.theta) == set(before)


def test_floor_one_and_everybody_sending_are_the_plain_mean():
    for share, floor in ((0.4, 1.0), (1.0, 0.0)):
        received, _ = updates(3, [4, 4, 4], share)
        results = []
        for config in (soft.Config(), soft.Config(sender_weights="component", sender_weight_floor=floor)):
            method = soft.build(config, SPACE)
            sums = weighted_sum([method.contribute(one) for one in received], [0.5, 0.25, 0.25])
            results.append(method.aggregate(server(), Reception(NOBODY, (), sums=sums), 1).theta)
        for name, value in results[0].items():
            np.testing.assert_allclose(results[1][name], value, atol=1e-7)


def test_the_plain_mean_contributes_nothing_else():
    received, _ = updates(3, [4], 0.5)
    assert set(soft.build(soft.Config(), SPACE).contribute(received[0])) == set(received[0])
    assert soft.build(soft.Config(), SPACE).aggregate(start := server(), Reception(NOBODY, ()), 1) is start
