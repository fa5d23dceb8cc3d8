"""Extras: FedProx against its term, SCAFFOLD against problems whose optimum is known, and what both cost."""

from dataclasses import replace

import numpy as np
import pytest

from raysoft.config import Plugin, TrainConfig, registry
from raysoft.config.presets import load_config
from raysoft.errors import ConfigError, RaysoftError
from raysoft.federation.content import user_files
from raysoft.methods.building import WithExtras, build_method
from raysoft.methods.extras.fedprox import Proximal
from raysoft.methods.extras.scaffold import C, steps_moved
from raysoft.methods.folds import Arrived
from raysoft.models.targets import lora_space
from raysoft.models.trainers.packed_lora import PackedTrainer
from raysoft.types import Outcome, Reception, ServerState
from tests.packs import make_base, make_batches, make_jobs
from tests.plug_in_packages import make_package
from tests.rounds import rounds_of
from tests.unit.methods.spaces import space

NO_CLIP = "train.clip_norm=null"
SCAFFOLD = "method.extras=[{name: scaffold}]"


def scaffold(clients, momentum, lr):
    words = [SCAFFOLD, NO_CLIP, f"train.momentum={momentum}", f"train.lr={lr}"]
    return build_method(load_config("fedit", words), space(), clients)


class Quadratics:
    """f_k(w) = sum_i d_ki (w_i - m_ki)^2 / 2 over every value of the model; the optimum of their mean is known."""

    def __init__(self, clients, seed=0):
        draws = np.random.default_rng(seed)
        self.shapes = space().shapes
        self.d = [{n: draws.uniform(0.5, 2.0, s) for n, s in self.shapes.items()} for _ in range(clients)]
        self.m = [{n: draws.normal(0.0, 3.0, s) for n, s in self.shapes.items()} for _ in range(clients)]

    def optimum(self, name):
        return sum(d[name] * m[name] for d, m in zip(self.d, self.m, strict=True)) / sum(d[name] for d in self.d)

    def trained(self, k, job, lr, momentum):
        """SGD with momentum, as models/optim.py takes its steps."""
        values = {name: value.astype(np.float64) for name, value in job.start.items()}
        speed = {name: np.zeros_like(value) for name, value in values.items()}
        for _ in range(job.steps):
            for name, value in values.items():
                gradient = self.d[k][name] * (value - self.m[k][name]) + job.linear[name]
                speed[name] = momentum * speed[name] + gradient
                values[name] = value - lr * speed[name]
        return values


def one_round(method, server, memories, problem, steps, lr, momentum, arrives=None):
    """The next server, and the memories of the clients; `arrives`: None for all."""
    down = method.broadcast(server, server.version + 1)
    arrived, side, count = [], {}, len(steps)
    for k in range(count):
        view = method.view(down, k, 3, server.version + 1)
        job = method.local(view, memories[k], steps[k])
        upload = method.upload(view, job, problem.trained(k, job, lr, momentum), memories[k])
        if arrives is not None and k not in arrives:
            memories[k] = upload.memory_if_lost
            continue
        memories[k] = upload.memory_if_delivered
        arrived.append(Arrived(upload.update, 1.0 / count if arrives is None else 1.0 / len(arrives), view.start))
        for name, value in upload.side.items():
            side[name] = side.get(name, 0.0) + value.astype(np.float64)
    outcome = Outcome(np.ones(count, bool), np.zeros(count), np.zeros(count), ("",) * count, 0.0)
    received = Reception(outcome, (), method.fold.finish(method.fold.part(arrived)), side)
    return method.aggregate(server, received, server.version + 1)


def zero_server():
    return ServerState({name: np.zeros(shape, np.float32) for name, shape in space().shapes.items()})


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("steps", [(4, 4, 4, 4), (1, 2, 4, 6)])
def test_heterogeneous_quadratics_reach_their_optimum(momentum, steps):
    lr = 0.2 * (1.0 - momentum)
    method, problem = scaffold(4, momentum, lr), Quadratics(4)
    server, memories = zero_server(), [{} for _ in steps]
    for _ in range(300):
        server = one_round(method, server, memories, problem, steps, lr, momentum)
    for name, value in server.theta.items():
        np.testing.assert_allclose(value, problem.optimum(name), atol=2e-3)
    plain = zero_server()
    for _ in range(300):  # without control variates the fixed point is another one
        plain = one_round(_without(method), plain, [{} for _ in steps], problem, steps, lr, momentum)
    off = max(np.abs(plain.theta[name] - problem.optimum(name)).max() for name in plain.theta)
    assert off > 0.02, "the problem would not show a drift"


def _without(method):
    class Zero(WithExtras):
        def local(self, view, memory, steps):
            job = super().local(view, {}, steps)
            return replace(job, linear={name: np.zeros_like(value) for name, value in view.start.items()})

    return Zero(method.inner, {}, method.rng, {})


def test_the_server_holds_the_mean_of_the_clients_and_one_client_is_not_corrected():
    problem = Quadratics(3)
    method, server, memories = scaffold(3, 0.9, 0.01), zero_server(), [{}, {}, {}]
    for _ in range(4):
        server = one_round(method, server, memories, problem, (2, 3, 4), 0.01, 0.9)
        for name in space().shapes:
            mean = np.mean([memory[f"scaffold:{name}"] for memory in memories], axis=0)
            np.testing.assert_allclose(server.extra[C + name], mean, atol=1e-5)
    alone, own, first = scaffold(1, 0.9, 0.01), [{}], zero_server()
    for _ in range(3):
        view = alone.view(alone.broadcast(first, 1), 0, 3, 1)
        linear = alone.local(view, own[0], 2).linear
        assert max(np.abs(value).max() for value in linear.values()) < 1e-6
        first = one_round(alone, first, own, problem, (2,), 0.01, 0.9)


def test_a_lost_upload_advances_nothing():
    problem = Quadratics(2)
    method, server, memories = scaffold(2, 0.9, 0.01), zero_server(), [{}, {}]
    server = one_round(method, server, memories, problem, (2, 2), 0.01, 0.9)
    before = dict(memories[1])
    after = one_round(method, server, memories, problem, (2, 2), 0.01, 0.9, arrives={0})
    assert {name: value.tobytes() for name, value in memories[1].items()} == {n: v.tobytes() for n, v in before.items()}
    moved = {name: memories[0][f"scaffold:{name}"] for name in space().shapes}
    assert all(np.isfinite(value).all() for value in moved.values())
    assert any((after.extra[C + name] != server.extra[C + name]).any() for name in moved)


@pytest.mark.parametrize(("steps", "momentum"), [(1, 0.0), (5, 0.0), (1, 0.9), (7, 0.9)])
def test_steps_moved_is_what_a_constant_gradient_moves(steps, momentum):
    value = speed = 0.0
    for _ in range(steps):
        speed = momentum * speed + 1.0
        value += speed
    assert steps_moved(steps, momentum) == pytest.approx(value)


def test_it_doubles_the_traffic_both_ways():
    _, _, plain = rounds_of("fedit", NO_CLIP, "train.lr=1e-3", count=1)
    _, states, with_it = rounds_of("fedit", NO_CLIP, "train.lr=1e-3", SCAFFOLD, count=2)
    assert with_it[0].uplink_bits == 2 * plain[0].uplink_bits
    assert with_it[0].downlink_bits == 2 * plain[0].downlink_bits
    assert any(np.abs(value).max() > 0 for name, value in states[-1].server.extra.items() if name.startswith(C))


def test_what_is_not_trained_costs_nothing():
    """With FFA only B is trained: c and the change of c_k of B alone travel."""
    _, _, plain = rounds_of("ffa", NO_CLIP, "train.lr=1e-3", count=1)
    _, _, with_it = rounds_of("ffa", NO_CLIP, "train.lr=1e-3", SCAFFOLD, count=1)
    assert with_it[0].uplink_bits == 2 * plain[0].uplink_bits
    assert with_it[0].downlink_bits == 2 * plain[0].downlink_bits


@pytest.mark.parametrize("preset", ["fedit", "ffa"])
def test_it_goes_with_tiers(preset):
    words = (NO_CLIP, "train.lr=1e-3", SCAFFOLD, "model.lora.rank={low: 2, high: 8}")
    _, _, records = rounds_of(preset, *words, count=2)
    assert [record.participants for record in records] == [3, 3]


def test_a_client_that_diverges_is_left_out(tmp_path):
    """Its control variate is not finite either: the round goes on without it, as it does without the extra."""
    words = (NO_CLIP, "train.lr=1e12", "train.steps={low: 1, high: 40}", "train.max_update_norm=null")
    for more in ((), (SCAFFOLD,)):
        with pytest.raises(RaysoftError, match=r"no client's update is finite|diverged|not finite"):
            rounds_of("fedit", *words, *more, count=3)


@pytest.mark.parametrize("word", ["train.optimizer=adamw", "train.weight_decay=0.1", "train.clip_norm=1.0"])
def test_it_needs_plain_steps(word):
    with pytest.raises(ConfigError, match=r"method\.extras: scaffold needs train\.optimizer=sgd"):
        load_config("fedit", [NO_CLIP, SCAFFOLD, word])


def test_the_proximal_term_is_half_mu_times_the_squared_way():
    import torch

    draws = torch.Generator().manual_seed(1)
    now = {name: torch.randn(2, 3, 4, generator=draws, requires_grad=True) for name in ("a", "b", "frozen")}
    start = {name: torch.randn(2, 3, 4, generator=draws) for name in now}
    loss_K = Proximal(0.3, frozenset({"a", "b"}))(now, start)
    way = sum(((now[name] - start[name]) ** 2).sum(dim=(1, 2)) for name in ("a", "b"))
    torch.testing.assert_close(loss_K, 0.15 * way)
    loss_K.sum().backward()
    torch.testing.assert_close(now["a"].grad, 0.3 * (now["a"] - start["a"]).detach())
    assert now["frozen"].grad is None


def test_mu_of_zero_is_the_method_and_a_large_one_holds_back():
    def theta(*words):
        return rounds_of("soft", *words, count=2)[1][-1].server.theta

    plain, zero = theta(), theta("method.extras=[{name: fedprox, mu: 0.0}]")
    held = theta("method.extras=[{name: fedprox, mu: 10.0}]")
    first = rounds_of("soft", count=0)[1][0].server.theta
    assert all((plain[name] == zero[name]).all() for name in plain)
    moved, less = (sum(((one[n] - first[n]) ** 2).sum() for n in first) for one in (plain, held))
    assert less < moved


def test_extras_are_named_in_the_hash_and_none_leave_it_alone():
    plain = load_config("soft")
    assert load_config("soft", ["method.extras=[]"]).config_hash() == plain.config_hash()
    one, two = (load_config("soft", [f"method.extras=[{{name: fedprox, mu: {mu}}}]"]) for mu in (0.1, 0.2))
    assert len({one.config_hash(), two.config_hash(), plain.config_hash()}) == 3
    for words, match in (
        ("[{name: fedprocks}]", r"^method\.extras\.0\.name: unknown extra 'fedprocks'.*did you mean 'fedprox'"),
        ("fedprocks", r"^method\.extras\.0\.name: unknown extra 'fedprocks'.*did you mean 'fedprox'"),
        ("[{name: fedprox, mu: -1}]", r"^method\.extras\.0\.mu: input should be greater than or equal to 0, got -1"),
        ("[scaffold, {name: fedprox, muu: 1}]", r"^method\.extras\.1\.muu: unknown key; did you mean mu\?"),
        ("{name: fedprox}", r"^method\.extras: input should be a valid list, got \{'name'"),
        ("[{name: fedprox}, {name: fedprox}]", "named once at most"),
    ):
        with pytest.raises(ConfigError, match=match):
            load_config("soft", [f"method.extras={words}"])
    assert isinstance(one.method.checked.extras[0], Plugin)


@pytest.mark.parametrize("words", ["fedprox", "[fedprox]"])
def test_a_name_alone_is_the_extra_at_its_defaults(words):
    named, whole = (load_config("soft", [f"method.extras={one}"]) for one in (words, "[{name: fedprox}]"))
    assert named == whole
    assert named.config_hash() == whole.config_hash()


MEASURED = """
from typing import ClassVar
from raysoft.config import NonNegative, UserFile
from raysoft.methods.extras import fedprox
from raysoft.methods.extras.base import ExtraConfig

class Config(ExtraConfig):
    REVISION: ClassVar[int] = 2
    LATER: ClassVar[tuple[str, ...]] = ("late",)
    trace: UserFile
    late: NonNegative = 0.0

def build(config, context):
    return fedprox.FedProx(fedprox.Config())
"""


def test_revision_later_and_files_of_an_extra_count(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(make_package(tmp_path / "site", "extras", "measured", MEASURED))
    registry.names.cache_clear()
    trace = tmp_path / "trace.csv"
    trace.write_text("1")
    config, same, other = (
        load_config("soft", [f"method.extras=[{{name: measured, trace: '{trace}'{more}}}]"])
        for more in ("", ", late: 0.0", ", late: 1.0")
    )
    registry.names.cache_clear()
    assert config.revisions() == {"method": 2}
    assert config.config_hash() == same.config_hash() != other.config_hash()
    assert user_files(config) == {"method.extras.0.trace": str(trace)}


def test_the_trainer_adds_the_linear_term_to_every_gradient():
    base = make_base("vit")
    made = lora_space(base, load_config("soft").model.lora)
    made = made[0] if isinstance(made, tuple) else made
    settings = TrainConfig(momentum=0.0, lr=0.5, clip_norm=None)
    jobs = make_jobs(made, {}, ranks=[8, 8], steps=[1, 1])
    batches = make_batches(base, [[3, 3]], steps=[1, 1])
    plain = PackedTrainer(base, made).train(jobs, batches, settings)
    slope = {name: np.full_like(value, 0.25) for name, value in jobs[0].start.items() if name.endswith("lora_B")}
    bent = PackedTrainer(base, made).train([replace(jobs[0], linear=slope), jobs[1]], batches, settings)
    for name, value in plain[0].end.items():
        wanted = value - (0.125 if name in slope else 0.0)
        np.testing.assert_allclose(bent[0].end[name], wanted, atol=1e-6)
        np.testing.assert_array_equal(bent[1].end[name], plain[1].end[name])
