"""Methods: penalties against brute force, what is sent, what is averaged."""

import numpy as np
import pytest
import torch

from raysoft.config import Plugin, registry
from raysoft.config.presets import load_config
from raysoft.errors import ConfigError
from raysoft.methods import fedit, ffa, head_only, soft
from raysoft.methods.averaging import Averaging
from raysoft.methods.base import Method, add_change, difference
from raysoft.methods.building import build_method
from raysoft.methods.initial import initial_theta
from raysoft.methods.ranks import cut_to_rank, pad_to_rank
from raysoft.methods.rules.orthogonality import OrthogonalityPenalty
from raysoft.methods.soft import Config
from raysoft.rng import Rng
from raysoft.types import Outcome, Reception, ServerState, View
from tests.plug_in_packages import make_package
from tests.unit.methods.spaces import PAIRS, space

NOBODY = Outcome(np.array([]), np.array([]), np.array([]), (), 0.0)


def server_of() -> ServerState:
    """A model in mid-training: B is not zero."""
    theta = initial_theta(space(), {"head": np.ones((2, 4))}, "peft", Rng(1))
    for pair in PAIRS:
        theta[pair.b] = Rng(1)(f"start:{pair.b}").normal(size=theta[pair.b].shape).astype(np.float32)
    return ServerState(theta)


def view_of(method: Method, rank: int = 3) -> View:
    return method.view(method.broadcast(server_of(), 1), 0, rank, 1)


def stacked(rank: int, clients: int, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(clients, *shape, generator=generator, dtype=torch.float64)
        for name, shape in space(rank).shapes.items()
    }


def brute_force(kind: str, a: np.ndarray, b: np.ndarray, floor: float) -> float:
    """Omega by its definition, one pair of components after the other."""
    total = 0.0
    r = len(a)
    for i in range(r):
        for j in range(r):
            if kind == "identity":
                total += (a[i] @ a[j] - (i == j)) ** 2
            elif i != j and kind == "offdiag":
                total += (a[i] @ a[j]) ** 2 + (b[:, i] @ b[:, j]) ** 2
            elif i != j:
                for x, y in ((a[i], a[j]), (b[:, i], b[:, j])):
                    total += (x @ y / max(np.linalg.norm(x), floor) / max(np.linalg.norm(y), floor)) ** 2
    return total


@pytest.mark.parametrize("kind", ["cosine", "offdiag", "identity"])
def test_penalty_is_its_definition_for_each_client(kind):
    now = stacked(3, clients=4)
    got = OrthogonalityPenalty(space(), kind, 0.7, 1e-2)(now, now)
    want = [
        0.7 * sum(brute_force(kind, now[p.a][k].numpy(), now[p.b][k].numpy(), 1e-2) for p in PAIRS) for k in range(4)
    ]
    np.testing.assert_allclose(got.numpy(), want, rtol=1e-12)


def test_cosine_penalty_ignores_the_balance_between_the_factors():
    now = stacked(3, clients=2)
    scaled = {name: value * (3.0 if name.endswith("lora_A") else 1 / 3.0) for name, value in now.items()}
    penalty = OrthogonalityPenalty(space(), "cosine", 1.0, 1e-2)
    torch.testing.assert_close(penalty(now, now), penalty(scaled, scaled), rtol=1e-12, atol=0)


@pytest.mark.parametrize("kind", ["cosine", "offdiag", "identity"])
def test_rank_padding_adds_neither_value_nor_gradient(kind):
    small, large = stacked(2, clients=1), stacked(4, clients=1)
    for pair in PAIRS:
        large[pair.a] = torch.zeros_like(large[pair.a])
        large[pair.b] = torch.zeros_like(large[pair.b])
        large[pair.a][:, :2], large[pair.b][:, :, :2] = small[pair.a], small[pair.b]
    leaves = {name: value.requires_grad_() for name, value in large.items()}
    padded = OrthogonalityPenalty(space(4), kind, 1.0, 1e-2)(leaves, leaves)
    exact = OrthogonalityPenalty(space(2), kind, 1.0, 1e-2)(small, small)
    torch.testing.assert_close(padded.detach(), exact, rtol=1e-12, atol=1e-12)
    padded.sum().backward()
    for pair in PAIRS:
        gradients = [leaves[pair.a].grad[:, 2:]]
        if kind != "identity":
            gradients.append(leaves[pair.b].grad[:, :, 2:])
        assert all(torch.count_nonzero(g) == 0 for g in gradients)


def test_penalty_has_a_bounded_gradient_at_the_start():
    theta = initial_theta(space(), {"head": np.zeros((2, 4))}, "peft", Rng(0))
    now = {name: torch.from_numpy(value)[None].requires_grad_() for name, value in theta.items()}
    OrthogonalityPenalty(space(), "cosine", 1.0, 1e-2)(now, now).sum().backward()
    assert all(value.grad is None or torch.isfinite(value.grad).all() for value in now.values())


def test_no_penalty_term_when_switched_off():
    for config in (Config(penalty="none"), Config(penalty_weight=0.0)):
        method = soft.build(config, space())
        assert method.local(view_of(method), {}, 5).loss_term is None
    method = soft.build(Config(), space())
    assert method.local(view_of(method), {}, 5).loss_term == OrthogonalityPenalty(space(), "cosine", 1e-3, 1e-2)


@pytest.mark.parametrize("init", ["peft", "gaussian", "orthogonal"])
def test_a_smaller_rank_starts_with_the_first_rows_of_a_larger_one(init):
    head = {"head": np.zeros((2, 4))}
    small, large = (initial_theta(space(r), head, init, Rng(7)) for r in (2, 4))
    for pair in PAIRS:
        np.testing.assert_allclose(small[pair.a], large[pair.a][:2], atol=1e-7)
        assert not large[pair.b].any()


def test_orthogonal_start_is_orthogonal():
    a = initial_theta(space(4), {"head": np.zeros((2, 4))}, "orthogonal", Rng(7))["first.lora_A"].astype(float)
    gram = a @ a.T
    np.testing.assert_allclose(gram, np.diag(np.diag(gram)), atol=1e-6)


def test_cut_then_pad_keeps_the_first_components_and_zeroes_the_rest():
    theta = initial_theta(space(4), {"head": np.ones((2, 4))}, "peft", Rng(1))
    cut = cut_to_rank(theta, space(4), 2)
    assert cut["first.lora_A"].shape == (2, 5)
    assert cut["first.lora_B"].shape == (6, 2)
    padded = pad_to_rank(cut, space(4))
    np.testing.assert_array_equal(padded["first.lora_A"][:2], theta["first.lora_A"][:2])
    assert not padded["first.lora_A"][2:].any()
    assert padded["head"].shape == (2, 4)


def test_ffa_neither_trains_nor_sends_nor_charges_a():
    method = ffa.build(ffa.Config(), space())
    view = view_of(method)
    assert set(view.start) - view.trains == {"first.lora_A", "second.lora_A"}
    assert method.local(view, {}, 5).trains == view.trains
    assert view.downlink.total == view.dense_bits == 32 * (6 * 3 + 4 * 3 + 8)
    update = method.upload(view, method.local(view, {}, 5), view.start, {}).update
    assert set(update) == {"first.lora_B", "second.lora_B", "head"}


@pytest.mark.parametrize("module", [soft, fedit, ffa, head_only])
@pytest.mark.parametrize("rank", [3, 2])
def test_what_a_client_gets_trains_and_sends_is_cut_to_its_rank(module, rank):
    method, server = module.build(module.Config(), space()), server_of()
    view = method.view(method.broadcast(server, 4), 17, rank, 4)
    assert (view.tick, view.client, view.rank, view.side) == (4, 17, rank, {})
    job = method.local(view, {}, 5)
    assert (job.steps, job.trains) == (5, view.trains)
    for name, value in cut_to_rank(server.theta, space(), rank).items():
        np.testing.assert_array_equal(view.start[name], value)
        assert job.start[name] is view.start[name]
    # What is trained is received, for as many bits as it is sent back where nothing is left out.
    assert view.downlink.side == 0
    assert view.downlink.total == view.dense_bits == sum(32 * view.start[name].size for name in view.trains)
    end = {name: value + np.float32(0.5) for name, value in view.start.items()}
    upload = method.upload(view, job, end, {})
    assert set(upload.update) == view.trains
    for name, value in upload.update.items():
        assert value.dtype == np.float32
        change = end[name].astype(float) - view.start[name]
        np.testing.assert_array_equal(value, change.astype(np.float32))
    assert upload.side == upload.memory_if_delivered == upload.memory_if_lost == {}


@pytest.mark.parametrize("name", registry.METHODS)
def test_every_method_hands_its_parts_to_the_frame_and_overrides_nothing(name):
    assert type(registry.build("method", Plugin(name=name), space())) is Averaging


@pytest.mark.parametrize("module", [soft, fedit, ffa, head_only])
def test_the_server_adds_what_was_folded_times_its_rate_and_nothing_else(module):
    method, server = module.build(module.Config(server_lr=0.5), space()), server_of()
    assert method.aggregate(server, Reception(NOBODY, ()), 1) is server
    change = {name: np.full(server.theta[name].shape, 0.25) for name in sorted(view_of(method).trains)}
    after = method.aggregate(server, Reception(NOBODY, (), method.fold.finish(change)), 1)
    for name, value in after.theta.items():
        want = server.theta[name].astype(float) + (0.125 if name in change else 0.0)
        np.testing.assert_array_equal(value, want.astype(np.float32))
    assert (after.version, after.extra) == (1, {})


def test_small_differences_survive():
    start = {"x": np.full(3, 1.0, dtype=np.float32)}
    end = {"x": np.nextafter(start["x"], np.float32(2.0))}
    assert (difference(start, end, ["x"])["x"] == np.float32(2.0**-23)).all()
    assert difference(start, end, []) == {}


def test_aggregate_adds_once_and_leaves_the_rest():
    server = ServerState(theta={"x": np.ones(2, np.float32), "y": np.ones(2, np.float32)})
    after = add_change(server, {"x": np.array([0.5, -0.5])}, 2.0)
    np.testing.assert_array_equal(after.theta["x"], [2.0, 0.0])
    assert after.theta["y"] is server.theta["y"]
    assert after.version == 1


LIAR = """
from raysoft.methods.averaging import Averaging
from raysoft.methods.base import MethodConfig
from raysoft.methods.folds import Each

class Config(MethodConfig):
    pass

def build(config, space):
    return Averaging(config, space, fold=Each())
"""


def test_a_fold_that_is_no_sum_has_to_be_told_as_a_trait(monkeypatch, tmp_path):
    """The traits decide what goes over an analog uplink, so they have to be true."""
    monkeypatch.syspath_prepend(make_package(tmp_path / "site", "methods", "liar", LIAR))
    with pytest.raises(ConfigError, match=r"^method\.name: liar folds updates .* needs the trait single_updates"):
        build_method(load_config("fedit", ["method.name=liar"]), space(), clients=4)
    for name in registry.METHODS:
        method = Plugin(name=name)
        told = bool(registry.traits("method", method).single_updates)
        assert registry.build("method", method, space()).fold.linear != told


def test_a_change_that_is_forgotten_is_refused():
    """`change_of` without a `return`: a run that learns nothing would end well."""
    method = Averaging(fedit.Config(), space(), change_of=lambda server, folded: None)
    theta = {name: np.zeros(shape, np.float32) for name, shape in space().shapes.items()}
    received = Reception(NOBODY, (), folded={name: value.astype(np.float64) for name, value in theta.items()})
    with pytest.raises(ValueError, match="change_of gives None, and there is no `then`"):
        method.aggregate(ServerState(theta), received, 1)
