"""The evaluation client by client: batched counts against one client at a time, and what becomes of them."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysoft.config.presets import load_config
from raysoft.data.base import Partition
from raysoft.federation.evaluation import client_requests, evaluate_clients, spread
from raysoft.federation.messages import EvaluateClientsRequest
from raysoft.federation.sampling import CLIENT_LIMIT, client_sample
from raysoft.models.trainers.packed_lora import PackedTrainer
from raysoft.report import closing_rows
from raysoft.rng import Rng
from raysoft.rundir.reading import read_run
from raysoft.runs.run import RunResult, run
from raysoft.terminal.console import closing_table
from tests import tolerances
from tests.conftest import SMALL_RUN, records, summary
from tests.coordinators import coordinator
from tests.packs import make_base, make_examples, make_theta, space_of
from tests.run_folders import make_run

KEYS = {"client_accuracy_mean", "worst10_client_accuracy", "client_accuracy_std"}


@pytest.mark.parametrize("family", ["vit", "roberta", "llama"])
def test_counts_of_a_sample_are_those_of_a_batch_of_one(family):
    base = make_base(family)
    space, head = space_of(base, rank=2)
    theta, examples = make_theta(space, head), make_examples(base, 11)
    trainer = PackedTrainer(base, space)
    found = trainer.evaluate_samples(theta, examples, batch_size=4)
    alone = [trainer.evaluate(theta, examples.take(np.array([n])).trim(), 1) for n in range(11)]
    np.testing.assert_array_equal(found[:, 0], [one["count"] for one in alone])
    np.testing.assert_array_equal(found[:, 1], [one["correct"] for one in alone])
    losses = [one["loss_sum"] for one in alone]
    # A sample's loss may be near zero, and is known to the rounding of its logits only, token by token.
    np.testing.assert_allclose(found[:, 2], losses, rtol=0, atol=tolerances.logits(losses) * found[:, 0].max())
    assert found[:, 0].min() >= 1
    together = trainer.evaluate(theta, examples, batch_size=4)
    np.testing.assert_allclose(found.sum(axis=0), list(together.values()), rtol=1e-12)


@pytest.mark.parametrize("settings", [(), ("metrics.client_samples=5", "eval.batch_size=17")])
def test_the_batched_stage_is_one_client_after_the_other(settings):
    made, executor = coordinator("soft", *settings)
    made.round(1)
    worker, theta = executor.worker, made.state.server.theta
    limit = made.config.metrics.client_samples
    alone = []
    for client in range(12):
        mine = worker.workload.partition.indices(client)
        chosen = client_sample(worker.rng, client, mine, limit)
        assert len(chosen) == min(len(mine), limit)
        assert set(chosen.tolist()) <= set(mine.tolist())
        alone.append(worker.trainer.evaluate(theta, worker.workload.data.train.take(chosen), 1000))
    down = made.parts.method.broadcast(made.state.server, 1)
    found, _ = worker.evaluate_clients(down, EvaluateClientsRequest(tuple(range(12))))
    np.testing.assert_array_equal(found[:, :2], [[one["count"], one["correct"]] for one in alone])
    losses = [one["loss_sum"] for one in alone]
    np.testing.assert_allclose(found[:, 2], losses, rtol=0, atol=tolerances.logits(losses) * found[:, 0].max())
    accuracy = sorted(one["correct"] / one["count"] for one in alone)
    metrics = evaluate_clients(made.parts, made.state.server)
    assert set(metrics) == KEYS
    assert math.isclose(metrics["client_accuracy_mean"], np.mean(accuracy))
    assert math.isclose(metrics["worst10_client_accuracy"], (accuracy[0] + accuracy[1]) / 2)  # 2 of 12
    assert math.isclose(metrics["client_accuracy_std"], np.std(accuracy))


def test_a_sample_of_a_client_depends_on_seed_and_client_alone():
    shard = np.arange(100, 200)
    one = client_sample(Rng(3), 7, shard, 32)
    assert len(set(one.tolist())) == 32
    np.testing.assert_array_equal(one, client_sample(Rng(3), 7, shard, 32))
    assert not np.array_equal(one, client_sample(Rng(3), 8, shard, 32))
    assert not np.array_equal(one, client_sample(Rng(4), 7, shard, 32))
    np.testing.assert_array_equal(client_sample(Rng(3), 7, shard, 100), shard)


@settings(max_examples=50)
@given(st.lists(st.integers(1, 60), min_size=1, max_size=40), st.integers(1, 40), st.integers(1, 100))
def test_requests_hold_every_client_once_and_fill_a_batch(sizes, limit, batch):
    config = load_config("soft", [f"metrics.client_samples={limit}", f"eval.batch_size={batch}"])
    edges = np.cumsum([0, *sizes])
    shards = tuple(np.arange(a, b) for a, b in zip(edges, edges[1:], strict=False))
    requests = client_requests(config, Partition(clients=len(sizes), shards=shards))
    assert [k for request in requests for k in request.clients] == list(range(len(sizes)))
    loads = [sum(min(sizes[k], limit) for k in request.clients) for request in requests]
    for request, load, following in zip(requests, loads, [*requests[1:], None], strict=True):
        assert load <= batch or len(request.clients) == 1
        if following is not None:  # another client would not have fitted
            assert load + min(sizes[following.clients[0]], limit) > batch


def test_of_many_clients_a_keyed_sample_is_evaluated():
    config = load_config("soft")
    partition = Partition(clients=10**9, virtual_samples=64, num_train=1000)
    clients = [k for request in client_requests(config, partition) for k in request.clients]
    assert clients == sorted(set(clients))
    assert len(clients) == CLIENT_LIMIT
    assert clients == [k for request in client_requests(config, partition) for k in request.clients]
    other = client_requests(load_config("soft", ["seed=1"]), partition)
    assert clients != [k for request in other for k in request.clients]


def test_figures_over_clients():
    """21 clients: the worst tenth are three. The worst by accuracy are not the worst by bits per byte."""
    counts = np.array([[10, 10 - k // 3, 2.0 * k] for k in range(21)] + [[0, 0, 0.0]])
    accuracy = [(10 - k // 3) / 10 for k in range(21)]
    found = spread(counts, bits_per_byte=False)
    assert set(found) == KEYS
    assert math.isclose(found["client_accuracy_mean"], sum(accuracy) / 21)
    assert math.isclose(found["worst10_client_accuracy"], 0.4)
    mean = sum(accuracy) / 21
    assert math.isclose(found["client_accuracy_std"], math.sqrt(sum((a - mean) ** 2 for a in accuracy) / 21))
    flipped = counts.copy()
    flipped[:21, 2] = counts[20::-1, 2]
    bits = spread(flipped, bits_per_byte=True)
    assert math.isclose(bits["worst10_client_bits_per_byte"], (4.0 + 3.8 + 3.6) / 3 / math.log(2))
    assert bits["worst10_client_accuracy"] == found["worst10_client_accuracy"]
    assert spread(np.array([[4, 3, 1.0]]), False) == {
        "client_accuracy_mean": 0.75,
        "worst10_client_accuracy": 0.75,
        "client_accuracy_std": 0.0,
    }
    assert spread(np.zeros((3, 3)), True) == {}


def test_the_figures_are_shown(tmp_path):
    """At the end of a run and in its report; runs from before they were measured have no such line."""
    folder = make_run(tmp_path / "old", rounds=2)
    label = "Worst tenth of the clients"
    assert label not in dict(closing_rows(read_run(folder)))
    old = json.loads((folder / "summary.json").read_text())
    assert "worst tenth" not in closing_table(RunResult(folder, old, folder / "report.html"))
    new = {**old, "metrics": {**old["metrics"], "worst10_client_accuracy": 0.7125, "client_accuracy_mean": 0.861}}
    (folder / "summary.json").write_text(json.dumps(new))
    assert dict(closing_rows(read_run(folder)))[label] == "71.2 % (mean 86.1 %; own training samples)"
    line = "clients  worst tenth of the clients 0.713 (mean 0.861)"
    assert line + ", on their" in closing_table(RunResult(folder, new, folder / "report.html"))
    text = {**new, "metrics": {**new["metrics"], "worst10_client_bits_per_byte": 3.25}}
    assert line + ", 3.250 bits per byte" in closing_table(RunResult(folder, text, folder / "report.html"))


def test_a_run_says_how_its_clients_fare_and_is_the_same_without(small_inline_run, tmp_path):
    measured = summary(small_inline_run)
    assert set(measured["metrics"]) >= KEYS
    assert 0 <= measured["metrics"]["worst10_client_accuracy"] <= measured["metrics"]["client_accuracy_mean"] <= 1
    folder = tmp_path / "run"
    run(load_config("soft", [*SMALL_RUN, "executor=inline", "metrics.clients=false"]), folder)
    plain = summary(folder)
    assert not KEYS & set(plain["metrics"])
    assert records(folder) == records(small_inline_run)
    assert plain["adapter_sha256"] == measured["adapter_sha256"]
    assert plain["config_hash"] == measured["config_hash"]
