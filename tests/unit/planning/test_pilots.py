"""The pilots of the offline stage: the full update's spectrum, and the federated pilot on the proxy."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from raysoft.config.presets import load_config
from raysoft.errors import ConfigError
from raysoft.federation.workload import prepare
from raysoft.models.frozen import build_module, verify
from raysoft.models.pilot import full_update, truncation_error
from raysoft.planning.pilot import deal_proxy, pilot_terms, simulated_clients
from raysoft.rng import Rng
from tests.packs import make_base, make_examples, space_of

SHORT = ["executor=inline", "train.steps=2", "plan.pilot_rounds=2", "plan.repetitions=2"]


@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(0, 7))
@settings(max_examples=40, deadline=None)
def test_the_rank_term_is_the_error_of_the_best_approximation(seed, count, rank):
    random = np.random.default_rng(seed)
    updates = [random.normal(size=(6, 4)) @ random.normal(size=(4, 5)) for _ in range(count)]
    gone = 0.0
    for update in updates:
        u, sigma, vt = np.linalg.svd(update)
        best = u[:, :5][:, :rank] * sigma[:rank] @ vt[:rank] if rank <= 5 else update
        gone += float(((update - best) ** 2).sum())
    total = sum(float((update**2).sum()) for update in updates)
    energy = [np.linalg.svd(update, compute_uv=False) ** 2 for update in updates]
    assert truncation_error(energy, rank) == pytest.approx(gone / total, abs=1e-12)


def test_the_rank_term_of_known_singular_values():
    energy = [np.array([9.0, 4.0, 1.0]), np.array([2.0, 0.0])]
    assert [truncation_error(energy, r) for r in (1, 2, 3, 8)] == [5 / 16, 1 / 16, 0.0, 0.0]
    assert truncation_error([np.zeros(3)], 1) == 0.0


@pytest.mark.parametrize("family", ["vit", "gpt2", "llama"])
def test_the_first_step_goes_down_the_full_gradient(family):
    base = make_base(family)
    space, head = space_of(base, rank=2)
    samples = make_examples(base, 12)
    one = full_update(base, space, head, samples, steps=1, batch_size=12, chunk_size=5, rng=Rng(1))
    assert one.steps == 1
    assert one.loss_after < one.loss_before

    module = build_module(base)
    weights = [dict(module.named_parameters())[f"{pair.module}.weight"].requires_grad_() for pair in space.pairs]
    inputs = {name: torch.from_numpy(value) for name, value in samples.inputs.items()}
    logits = module(**inputs).logits
    labels = torch.from_numpy(np.asarray(samples.labels))
    if base.kind == "causal-lm":  # the mean over a client's tokens, a chunk counting by its samples
        chunks = np.array_split(np.argsort(samples.lengths, kind="stable"), [5, 10])
        loss = sum(
            len(rows)
            / 12
            * torch.nn.functional.cross_entropy(logits[rows, :-1].flatten(0, 1), labels[rows, 1:].flatten())
            for rows in chunks
        )
    else:
        loss = torch.nn.functional.cross_entropy(logits, labels)
    gradients = torch.autograd.grad(loss, weights)
    expected = [np.linalg.svd(g.double().numpy(), compute_uv=False) ** 2 for g in gradients]
    scale = one.energy_L[0].sum() / expected[0].sum()
    for found, wanted in zip(one.energy_L, expected, strict=True):
        np.testing.assert_allclose(found, scale * wanted, rtol=2e-2, atol=1e-4 * scale * wanted.max())


def test_the_full_pilot_lowers_the_loss_trains_the_head_and_repeats_bit_for_bit():
    base = make_base("roberta")
    space, head = space_of(base, rank=2, train_head=True)
    samples = make_examples(base, 20)

    def once(seed=3):
        return full_update(base, space, head, samples, steps=6, batch_size=8, chunk_size=4, rng=Rng(seed))

    first, again, other = once(), once(), once(4)
    assert first.loss_after < first.loss_before
    assert all(np.array_equal(a, b) for a, b in zip(first.energy_L, again.energy_L, strict=True))
    assert not np.array_equal(first.energy_L[0], other.energy_L[0])
    verify(base)  # the frozen weights are what they were


@pytest.fixture(scope="module")
def digits():
    config = load_config("soft", SHORT)
    return config, prepare(config)


@pytest.mark.parametrize("partition", ["dirichlet", "iid", "shards", "quantity", "virtual"])
def test_the_proxy_is_dealt_by_the_runs_own_partition(digits, partition):
    config, workload = digits
    config = config.model_copy(update={"data": config.data.model_copy(update={"partition": partition})})
    dealt = deal_proxy(config, workload, Rng(1))
    proxy = len(workload.data.proxy)
    assert dealt.data.train is workload.data.proxy
    assert dealt.partition.clients == simulated_clients(config, workload)
    shards = [dealt.partition.indices(k) for k in range(dealt.partition.clients)]
    if partition == "virtual":
        assert dealt.partition.clients == config.cohort.size
        assert max(int(shard.max()) for shard in shards) < proxy
    else:
        # 67 proxy samples at 11.5 samples a client
        assert dealt.partition.clients == 6
        assert sorted(np.concatenate(shards).tolist()) == list(range(proxy))
    other = deal_proxy(config, workload, Rng(2))
    assert any(not np.array_equal(shards[k], other.partition.indices(k)) for k in range(len(shards)))


def test_the_federated_pilot_measures_what_the_kept_fraction_costs(digits):
    config, workload = digits
    everything, half = (pilot_terms(config, workload, fraction) for fraction in (1.0, 0.3))
    assert everything.sparsification.mean == 0.0
    assert everything.sparsification.standard_error == 0.0
    assert 0.0 < half.sparsification.mean < 1.0
    assert everything.covariance.mean > 0.0
    assert half.covariance.standard_error > 0.0
    assert pilot_terms(config, workload, 0.3) == half


def test_where_covariance_is_off_the_pilot_still_measures_it(digits):
    config, workload = digits
    off = config.model_copy(update={"metrics": config.metrics.model_copy(update={"covariance": "off"})})
    assert pilot_terms(off, workload, 0.5) == pilot_terms(config, workload, 0.5)


def test_a_proxy_that_is_too_small_names_its_setting(digits):
    config, workload = digits
    tiny = replace(workload, data=replace(workload.data, proxy=workload.data.proxy.take(np.arange(3))))
    with pytest.raises(ConfigError, match=r"data\.proxy_fraction: .*at least 4 proxy samples.* gives 3"):
        simulated_clients(config, tiny)


def test_natural_clients_of_the_proxy_are_those_of_the_data():
    config = load_config("soft-text", [*SHORT, "data.proxy_fraction=0.02"])
    workload = prepare(config)
    groups = workload.data.proxy_groups
    assert len(groups) == len(workload.data.proxy)
    dealt = deal_proxy(config, workload, Rng(0))
    assert dealt.partition.clients == len(np.unique(groups))
    for k in range(dealt.partition.clients):
        assert len(set(groups[dealt.partition.indices(k)].tolist())) == 1


def test_a_cohort_of_one_has_nothing_to_average(digits):
    config, workload = digits
    alone = config.model_copy(update={"cohort": config.cohort.model_copy(update={"size": 1})})
    assert pilot_terms(alone, workload, 0.5).covariance.mean == pytest.approx(0.0, abs=1e-12)
