"""HetLoRA: its mean against the dense definition, its ranks, what is remembered and what is paid."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from raysoft.config.presets import load_config
from raysoft.errors import ConfigError
from raysoft.methods.hetlora import RANK, Config, TailPenalty, build, tail_size
from raysoft.methods.ranks import as_sent, cut_to_rank, pad_to_rank
from tests.rounds import rounds_of
from tests.unit.methods.spaces import space
from tests.unit.methods.uploads import Uploads, built

seeds = st.integers(0, 999)
some_ranks = st.lists(st.integers(1, 3), min_size=1, max_size=6).map(tuple)
PLAIN = {"gamma": 1.0, "sparsity_weights": False}


def expected(ups, pair, weighted, mean):
    """B and A after the step, client by client."""
    total = {pair.b: 0.0, pair.a: 0.0}
    whole, owners = 0.0, np.zeros(ups.space.rank)
    for update, mix, rank in zip(ups.updates, ups.mix_K, ups.ranks, strict=True):
        start = cut_to_rank(ups.server.theta, ups.space, rank)
        own = {name: start[name].astype(float) + update[name] for name in (pair.b, pair.a)}
        weight = mix * (np.linalg.norm(own[pair.b] @ own[pair.a]) if weighted else 1.0)
        padded = pad_to_rank(own, ups.space)
        total = {name: total[name] + weight * padded[name] for name in total}
        whole += weight
        owners += weight * (np.arange(ups.space.rank) < rank)
    if mean == "padded":
        return total[pair.b] / whole, total[pair.a] / whole
    b, a = (ups.server.theta[name].astype(float) for name in (pair.b, pair.a))
    seen = owners > 0
    b[:, seen] = total[pair.b][:, seen] / owners[seen]
    a[seen] = total[pair.a][seen] / owners[seen][:, None]
    return b, a


@pytest.mark.parametrize("mean", ["padded", "row_count"])
@given(seed=seeds, ranks=some_ranks, weighted=st.booleans())
@settings(max_examples=40, deadline=None)
def test_the_mean_is_that_of_padded_factors_weighted_by_the_norms_of_products(mean, seed, ranks, weighted):
    ups = Uploads.drawn(space(), seed, ranks)
    after = ups.after(built("hetlora", space(), sparsity_weights=weighted, mean=mean))
    for pair in space().pairs:
        b, a = expected(ups, pair, weighted, mean)
        np.testing.assert_allclose(after.theta[pair.b], b, atol=1e-6 * max(1.0, np.abs(b).max()))
        np.testing.assert_allclose(after.theta[pair.a], a, atol=1e-6 * max(1.0, np.abs(a).max()))
    head = sum(mix * update["head"].astype(float) for mix, update in zip(ups.mix_K, ups.updates, strict=True))
    np.testing.assert_allclose(after.theta["head"], ups.server.theta["head"] + head, atol=1e-5)


@pytest.mark.parametrize("mean", ["padded", "row_count"])
@given(seed=seeds, clients=st.integers(1, 5))
@settings(max_examples=20, deadline=None)
def test_equal_ranks_nothing_pruned_and_weights_of_samples_are_fedit(mean, seed, clients):
    ups = Uploads.drawn(space(), seed, (3,) * clients)
    one, two = (
        ups.after(built(name, space(), **o)) for name, o in (("hetlora", {**PLAIN, "mean": mean}), ("fedit", {}))
    )
    for name, value in one.theta.items():
        np.testing.assert_allclose(value, two.theta[name], rtol=1e-6, atol=1e-6)


def test_where_all_products_are_zero_samples_decide():
    ups = Uploads.drawn(space(), 2, (3, 3, 3), start="fresh")
    still = tuple({**one, **{p.b: np.zeros_like(one[p.b]) for p in space().pairs}} for one in ups.updates)
    ups = replace(ups, updates=still)
    one, two = (ups.after(built(name, space())) for name in ("hetlora", "fedit"))
    for name, value in one.theta.items():
        np.testing.assert_allclose(value, two.theta[name], rtol=1e-6, atol=1e-6)


def test_the_order_of_clients_and_one_without_weight_change_nothing():
    ups = Uploads.drawn(space(), 5, (3, 1, 2), mix_K=np.array([0.5, 0.0, 0.5]))
    method = built("hetlora", space())
    without = Uploads(space(), ups.server, (3, 2), (ups.updates[0], ups.updates[2]), np.array([0.5, 0.5]))
    other = ups.permuted([2, 1, 0]).after(method)
    for name, value in ups.after(method).theta.items():
        assert value.tobytes() == without.after(method).theta[name].tobytes()
        np.testing.assert_allclose(value, other.theta[name], rtol=1e-6, atol=1e-6)


def test_a_component_that_nobody_has_goes_to_zero_or_stays():
    ups = Uploads.drawn(space(), 6, (1, 2))
    padded, counted = (ups.after(built("hetlora", space(), mean=mean)).theta for mean in ("padded", "row_count"))
    for pair in space().pairs:
        assert np.abs(padded[pair.b][:, 2]).max() < 1e-6
        np.testing.assert_array_equal(counted[pair.b][:, 2], ups.server.theta[pair.b][:, 2])
        np.testing.assert_array_equal(counted[pair.a][2], ups.server.theta[pair.a][2])


@given(seed=seeds, rank=st.integers(1, 3))
def test_cutting_what_was_padded_gives_it_back(seed, rank):
    theta = Uploads.drawn(space(), seed, (3,)).server.theta
    cut = cut_to_rank(theta, space(), rank)
    again = cut_to_rank(pad_to_rank(cut, space()), space(), rank)
    assert all(again[name].tobytes() == cut[name].tobytes() for name in cut)


# ------------------------------------------------------------------------------------------------- the client's side


def test_the_term_of_the_loss_is_the_size_of_the_tail_and_has_no_slope_at_zero():
    theta = Uploads.drawn(space(), 7, (3,)).server.theta
    now = {name: torch.tensor(np.stack([value, 2 * value]), requires_grad=True) for name, value in theta.items()}
    term = TailPenalty(space(), 2, 0.5)
    found = term(now, now)
    size = tail_size(theta, space(), 2)
    np.testing.assert_allclose(found.detach(), [0.5 * size, 0.5 * 4 * size], rtol=1e-5)
    found.sum().backward()
    first = now["first.lora_B"].grad[0]
    assert not first[:, :2].any()
    b, a = theta["first.lora_B"][:, 2:], theta["first.lora_A"][2:]
    np.testing.assert_allclose(first[:, 2:], 0.5 * np.linalg.norm(a) * b / np.linalg.norm(b), rtol=1e-4)
    fresh = {name: torch.tensor(value[None], requires_grad=True) for name, value in theta.items()}
    fresh["first.lora_B"] = torch.zeros_like(fresh["first.lora_B"]).requires_grad_()
    term(fresh, fresh).sum().backward()
    assert all(torch.isfinite(value.grad).all() for value in fresh.values() if value.grad is not None)


@pytest.mark.parametrize(
    ("gamma", "least", "rank", "tail"),
    [(0.99, 1, 8, 7), (0.5, 1, 8, 4), (0.5, 6, 8, 6), (0.5, 9, 8, 8), (0.5, 1, 1, 1), (1.0, 1, 8, 8)],
)
def test_where_the_tail_begins(gamma, least, rank, tail):
    assert Config(gamma=gamma, min_rank=least).tail(rank) == tail


def trained(factor, memory=None, **options):
    """A client of rank 3 whose tail is `factor` as large after training, and what it remembers."""
    method, server = build(Config(gamma=0.7, **options), space()), Uploads.drawn(space(), 8, (3,)).server
    view = method.view(method.broadcast(server, 2), 0, 3, 2, memory or {})
    job = method.local(view, memory or {}, 3)
    end = {name: value.copy() for name, value in view.start.items()}
    for pair in space().pairs:
        end[pair.b][:, 2:] *= factor
    return view, job, method.upload(view, job, end, memory or {})


def test_a_client_whose_tail_has_shrunk_drops_it_once_that_has_arrived():
    view, job, upload = trained(0.5)
    assert job.loss_term == TailPenalty(space(), 2, 1e-3)
    assert (upload.rank, upload.memory_if_delivered, upload.memory_if_lost) == (2, {RANK: np.array(2)}, {})
    assert upload.memory_if_rejected is None
    assert {name: value.shape for name, value in upload.update.items()} == space().shapes_at(2)
    assert as_sent(view, upload, space()).rank == 2
    assert upload.side_bits == 16
    _, _, other = trained(1.5)
    assert (other.rank, other.memory_if_delivered) == (3, {})
    _, _, still = trained(1.0)
    assert still.rank == 3, "smaller than before, not as small"
    view, job, again = trained(0.5, {RANK: np.array(2)}, min_rank=2)
    assert (view.rank, again.rank, job.loss_term) == (2, 2, None)
    assert again.memory_if_delivered == {RANK: np.array(2)}
    _, job, never = trained(0.5, min_rank=3)
    assert (never.rank, job.loss_term) == (3, None)


PRUNING = ("method.gamma=0.8", "method.tail_weight=10", "method.min_rank=3", "train.lr=0.05", "cohort.size=6")


def ranks_after(states, given):
    return [
        {k: int(state.clients[k].method.get(RANK, given)) if k in state.clients else given for k in range(6)}
        for state in states
    ]


def test_ranks_shrink_round_by_round_and_never_below_the_least():
    parts, states, records = rounds_of("hetlora", "model.lora.rank=8", *PRUNING, count=4)
    history = ranks_after(states, 8)
    assert set(history[1].values()) == {8}, "B = 0 cannot shrink"
    for before, after in zip(history, history[1:], strict=False):
        assert all(3 <= after[k] <= before[k] for k in before)
    assert min(history[-1].values()) < 8
    width = sum(pair.out_features + pair.in_features for pair in parts.info.space.pairs)
    sent = [sum(32 * width * rank + 16 for rank in after.values()) for after in history[1:]]
    assert [record.uplink_bits for record in records] == sent


def test_what_is_lost_prunes_nobody():
    lost = ("uplink.deadline_s=1e-6", "allocator.name=equal", "model.lora.rank=8", *PRUNING)
    _, states, records = rounds_of("hetlora", *lost, count=2)
    assert all(record.participants == 0 for record in records)
    assert set(ranks_after(states, 8)[-1].values()) == {8}
    assert states[-1].server.version == 0


def test_one_client_goes_the_way_of_fedit_where_nothing_is_pruned():
    words = ("cohort.size=1", "model.lora.rank=8")
    (_, one, _), (_, two, _) = (
        rounds_of(preset, *words, *more, count=2) for preset, more in (("hetlora", ("method.gamma=1",)), ("fedit", ()))
    )
    for name, value in one[-1].server.theta.items():
        np.testing.assert_allclose(value, two[-1].server.theta[name], atol=1e-6)


def test_what_remembers_coordinates_goes_with_it_where_nothing_is_pruned():
    words = ["method.extras=[{name: scaffold}]", "train.clip_norm=null"]
    with pytest.raises(ConfigError, match=r"method\.extras: .*method\.gamma=0\.99"):
        load_config("hetlora", words)
    load_config("hetlora", [*words, "method.gamma=1"])
    with pytest.raises(ConfigError, match=r"codec\.error_feedback: .*method\.gamma=0\.99"):
        load_config("hetlora", ["codec.error_feedback=true"])


def test_a_least_rank_that_no_client_has_is_refused():
    with pytest.raises(ConfigError, match=r"^method\.min_rank: must be at most the largest rank, 8, got 9$"):
        rounds_of("hetlora", "method.min_rank=9", count=1)
