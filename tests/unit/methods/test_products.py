"""Rules that need the clients' products, FLoRA, FlexLoRA, FedEx-LoRA, LoRA-FAIR, against dense algebra and each other.

The letters and numbers are those of the specification: cross-method oracles (1) to (7), FlexLoRA's Eckart-Young error,
FedEx-LoRA's equation.
"""

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysoft.config import registry
from raysoft.config.presets import load_config
from raysoft.errors import ConfigError
from raysoft.methods.ranks import cut_to_rank
from raysoft.methods.rules.base_log import BaseLog
from raysoft.methods.rules.products import points, residual
from raysoft.types import DenseBlock, LoraPair, ParamSpace
from tests.rounds import rounds_of
from tests.unit.methods.spaces import space
from tests.unit.methods.uploads import Uploads, built, effective, error

seeds = st.integers(0, 999)
some_ranks = st.lists(st.integers(1, 3), min_size=1, max_size=6).map(tuple)
EXACT = ("flora", "fedex")
EVERY = ("fedit", "lora_fair", "flora", "flexlora", "fedex", "hetlora")
OPTIONS = {"lora_fair": {"ridge": 0.0}, "hetlora": {"gamma": 1.0, "sparsity_weights": False}}
WIDE = ParamSpace((LoraPair("first", 9, 8), LoraPair("second", 7, 11)), 4, scale=2.0)
CLOSE = 1e-6


def size_of(wanted):
    return float(np.sqrt(sum((value**2).sum() for value in wanted.values())))


# ------------------------------------------------------------------------------------------------ one with another


@pytest.mark.parametrize("name", EVERY)
@given(seed=seeds, rank=st.integers(1, 3))
@settings(max_examples=20, deadline=None)
def test_1_one_client_is_followed_by_every_rule(name, seed, rank):
    ups = Uploads.drawn(space(), seed, (rank,), start="fresh", mix_K=np.ones(1))
    wanted = ups.wanted()
    assert error(ups.weights_after(built(name, space(), **OPTIONS.get(name, {}))), wanted) <= CLOSE * size_of(wanted)


@pytest.mark.parametrize("name", EVERY)
def test_2_so_are_identical_clients(name):
    one = Uploads.drawn(space(), 3, (3,), start="fresh")
    ups = Uploads(space(), one.server, (3, 3, 3), one.updates * 3, np.array([0.5, 0.3, 0.2]))
    wanted = ups.wanted()
    for options in ({}, OPTIONS.get(name, {}), {"mode": "cosine"} if name == "lora_fair" else {}):
        assert error(ups.weights_after(built(name, space(), **options)), wanted) <= CLOSE * size_of(wanted)


@given(seed=seeds, ranks=some_ranks)
@settings(max_examples=40, deadline=None)
def test_3_exact_rules_agree_for_any_number_of_clients_and_any_ranks(seed, ranks):
    """FlexLoRA where the server's rank holds what the clients' products add up to."""
    wide = ParamSpace(space().blocks, 3, 2.0)
    ups = Uploads.drawn(wide, seed, ranks, start="fresh")
    wanted = ups.wanted()
    for name in EXACT:
        assert error(ups.weights_after(built(name, wide)), wanted) <= CLOSE * size_of(wanted)
    full = ParamSpace(space().blocks, 6, 2.0)
    ups = Uploads.drawn(full, seed, ranks, start="fresh")
    wanted = ups.wanted()
    for name in (*EXACT, "flexlora"):
        assert error(ups.weights_after(built(name, full)), wanted) <= CLOSE * size_of(wanted)


@given(seed=seeds, clients=st.integers(1, 5), start=st.sampled_from(["fresh", "trained"]))
@settings(max_examples=60, deadline=None)
def test_4_exact_svd_ridge_and_plain_means_err_in_this_order(seed, clients, start):
    ups = Uploads.drawn(WIDE, seed, (4,) * clients, start=start)
    wanted = ups.wanted()
    slack = CLOSE * size_of(wanted)
    names = ("fedex", "flexlora", "lora_fair", "fedit")
    errors = [error(ups.weights_after(built(name, WIDE, **OPTIONS.get(name, {}))), wanted) for name in names]
    assert errors[0] <= slack
    assert all(one <= two + slack for one, two in zip(errors, errors[1:], strict=False))


@pytest.mark.parametrize("name", [*EVERY, "median"])
def test_5_the_order_of_clients_changes_nothing(name):
    ups = Uploads.drawn(WIDE, 8, (4, 2, 3, 4), start="fresh")
    one = ups.weights_after(built(name, WIDE))
    two = ups.permuted([2, 0, 3, 1]).weights_after(built(name, WIDE))
    assert error(one, two) <= CLOSE * size_of(one)


@pytest.mark.parametrize("name", EVERY)
def test_7_a_client_without_weight_is_one_that_is_not_there(name):
    ups = Uploads.drawn(WIDE, 9, (4, 4, 2), start="fresh", mix_K=np.array([0.6, 0.0, 0.4]))
    without = Uploads(WIDE, ups.server, (4, 2), (ups.updates[0], ups.updates[2]), np.array([0.6, 0.4]))
    one, two = ups.after(built(name, WIDE)), without.after(built(name, WIDE))
    assert all(one.theta[key].tobytes() == two.theta[key].tobytes() for key in one.theta)
    assert all(one.base[key].tobytes() == two.base[key].tobytes() for key in one.base)
    assert one.base_bits == two.base_bits


@pytest.mark.parametrize("name", ["fedex", "flexlora"])
@given(seed=seeds, rate=st.sampled_from([0.5, 1.0, 1.7]), total=st.sampled_from([0.4, 1.0]))
@settings(max_examples=20, deadline=None)
def test_a_step_of_any_length_is_one_of_the_product(name, seed, rate, total):
    """Also where the weights do not add up to one: the rest stays with the model there was."""
    full = ParamSpace(space().blocks, 6, 2.0)
    ups = Uploads.drawn(full, seed, (6, 2, 5), mix_K=total * np.array([0.5, 0.2, 0.3]))
    wanted = ups.wanted(rate)
    found = ups.after(built(name, full, server_lr=rate))
    assert error(effective(built(name, full).model(found), full), wanted) <= CLOSE * size_of(wanted)
    head = sum(mix * update["head"].astype(float) for mix, update in zip(ups.mix_K, ups.updates, strict=True))
    np.testing.assert_allclose(found.theta["head"], ups.server.theta["head"] + rate * head, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "options"),
    [*((name, {}) for name in registry.METHODS), ("lora_fair", {"mode": "cosine"}), ("flora", {"restart": "warm"})],
)
def test_no_server_step_forms_a_product_of_the_size_of_the_matrix(name, options, monkeypatch):
    """4096 x 4096 at rank 8 with four clients. What is merged into the base is dense, and left out here."""
    large = ParamSpace((LoraPair("only", 4096, 4096), DenseBlock("head", (2, 4))), 8, scale=2.0)
    method, ups = built(name, large, **options), Uploads.drawn(large, 0, (8, 4, 8, 2))
    monkeypatch.setattr(BaseLog, "merged", lambda self, before, after, *_: after)
    sent = {
        k: v for k, v in ups.updates[0].items() if k in method.view(method.broadcast(ups.server, 1), 0, 8, 1).trains
    }
    ups = replace(ups, updates=tuple({key: one[key] for key in sent} for one in ups.updates))
    tracemalloc.start()
    try:
        ups.after(method)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4096 * 4096 * 4 / 2, "half a product in float32"


# ------------------------------------------------------------------------------------------------------- FlexLoRA


@given(seed=seeds, clients=st.integers(1, 5))
@settings(max_examples=40, deadline=None)
def test_flexlora_errs_by_the_singular_values_that_are_left_out_and_ranks_are_nested(seed, clients):
    ups = Uploads.drawn(WIDE, seed, (4,) * clients)
    wanted, after = ups.wanted(), ups.after(built("flexlora", WIDE))
    for rank in (4, 3, 1):
        cut = cut_to_rank(after.theta, WIDE, rank)
        for pair in WIDE.pairs:
            a, b = cut[pair.a].astype(float), cut[pair.b].astype(float)
            left = wanted[pair.module] - WIDE.scale * b @ a
            sigma = np.linalg.svd(wanted[pair.module], compute_uv=False)
            assert np.linalg.norm(left) == pytest.approx(np.linalg.norm(sigma[rank:]), abs=1e-5 * sigma[0])
            np.testing.assert_allclose(a @ a.T, np.eye(rank), atol=1e-6)
            np.testing.assert_allclose(np.linalg.norm(b, axis=0) * WIDE.scale, sigma[:rank], atol=1e-5 * sigma[0])
            largest = np.take_along_axis(a, np.abs(a).argmax(axis=1)[:, None], axis=1)
            assert (largest > 0).all(), "one of the two signs of a singular pair"


def test_flexlora_never_gives_rows_of_zeros():
    ups = Uploads.drawn(WIDE, 1, (4, 4), start="fresh", size=0.0)
    one, again = (ups.after(built("flexlora", WIDE)) for _ in range(2))
    narrow = Uploads.drawn(WIDE, 1, (1,), start="fresh").after(built("flexlora", WIDE))
    for pair in WIDE.pairs:
        assert not one.theta[pair.b].any()
        np.testing.assert_allclose(np.linalg.norm(one.theta[pair.a], axis=1), 1.0, rtol=1e-6)
        assert one.theta[pair.a].tobytes() == again.theta[pair.a].tobytes()
        assert narrow.theta[pair.b][:, 0].any()
        assert not narrow.theta[pair.b][:, 1:].any()
        np.testing.assert_allclose(np.linalg.norm(narrow.theta[pair.a], axis=1), 1.0, rtol=1e-6)


def test_flexlora_takes_matrices_narrower_than_its_rank():
    small = ParamSpace((LoraPair("first", 3, 2), LoraPair("second", 2, 5)), 4, scale=1.0)
    ups = Uploads.drawn(small, 4, (4, 3))
    wanted = ups.wanted()
    assert error(ups.weights_after(built("flexlora", small)), wanted) <= CLOSE * size_of(wanted)


# ------------------------------------------------------------------------------------------------------- FedEx-LoRA


@given(seed=seeds, ranks=some_ranks)
@settings(max_examples=40, deadline=None)
def test_fedex_goes_on_from_the_means_in_the_exact_model(seed, ranks):
    """W0_new + s B~ A~ = W0_old + s sum_k p_k B_k A_k, round after round; the residual has rank (K - 1) R at most."""
    method, plain = built("fedex", space()), built("fedit", space())
    ups = Uploads.drawn(space(), seed, ranks)
    for _ in range(2):
        wanted, after = ups.wanted(), ups.after(method)
        assert error(effective(method.model(after), space()), wanted) <= CLOSE * size_of(wanted)
        means = plain.aggregate(ups.server, ups.reception(plain), 1)
        assert all(after.theta[name].tobytes() == means.theta[name].tobytes() for name in means.theta)
        folded = ups.reception(method).folded
        for pair in space().pairs:
            left, right = residual(*points(ups.server, folded, pair, 1.0))
            assert left.shape[1] == right.shape[0] == (len(ranks) - 1) * 3
        if len(ranks) == 1:
            assert not any(value.any() for value in after.base.values()), "nothing is lost of a single client"
        ups = Uploads(space(), after, ranks, ups.updates, ups.mix_K)


def test_fedex_charges_everybody_the_residual_of_every_round():
    tiers = "model.lora.rank={low: 2, high: 4}"
    for words, ranks in (((), (8,)), ((tiers,), (2, 4))):
        parts, states, records = rounds_of("fedex", *words, count=3)
        last, pairs = states[-1].server, parts.info.space.pairs
        whole = 32 * sum(pair.out_features * pair.in_features for pair in pairs)
        width = sum(pair.out_features + pair.in_features for pair in pairs)
        assert set(last.base_bits) <= {min(whole, 32 * 2 * width * rank) for rank in ranks}, "three clients a round"
        down = parts.method.broadcast(last, 4)
        sizes = [parts.method.view(down, 0, 4, 4, {"base_version": np.array(v)}).downlink for v in range(4)]
        assert [one.catch_up for one in sizes] == [min(sum(last.base_bits[v:]), whole) for v in range(4)]
        both = 32 * sum(value.size for value in cut_to_rank(last.theta, parts.info.space, 4).values())
        assert all(one.values == both for one in sizes)
        assert all(record.aggregation_covariance == 0.0 for record in records)
        assert all(record.metrics["applied_cosine"] == pytest.approx(1.0) for record in records)
        assert any((last.theta[pair.b] != 0).any() for pair in pairs), "no new beginning"


def test_fedex_may_start_as_it_likes_and_keeps_its_coordinates():
    for words in (["model.lora.init=orthogonal"], ["method.extras=[{name: scaffold}]", "train.clip_norm=null"]):
        load_config("fedex", words)
    with pytest.raises(ConfigError, match=r"method\.extras: .*flexlora"):
        load_config("flexlora", ["method.extras=[{name: scaffold}]", "train.clip_norm=null"])
    with pytest.raises(ConfigError, match=r"codec\.error_feedback: .*flexlora"):
        load_config("flexlora", ["codec.error_feedback=true"])
