"""Server optimisers (6.9): FedAvg at SGD(1), steps by hand, momentum that persists, what rests while not trained."""

import math

import numpy as np
import pytest

from raysoft.config.presets import load_config
from raysoft.errors import ConfigError
from raysoft.federation.clock.rounds import run_round
from raysoft.methods.building import build_method
from raysoft.rundir.folder import Position
from raysoft.runs.checkpoint import Checkpoint, load, save
from raysoft.types import Outcome, Reception, ServerState
from tests.rounds import rounds_of
from tests.unit.methods.spaces import space

STEPS = ("fedavgm", "fedadam", "fedyogi")
NOBODY = Outcome(np.array([]), np.array([]), np.array([]), (), 0.0)


def extra(name, **options):
    words = ", ".join(f"{key}: {value}" for key, value in {"name": name, **options}.items())
    return f"method.extras=[{{{words}}}]"


def method_of(name, preset="fedit", **options):
    return build_method(load_config(preset, [extra(name, **options)]), space(), clients=4)


def server_of(value=1.0):
    return ServerState({name: np.full(shape, value, np.float32) for name, shape in space().shapes.items()})


def after(method, server, *changes, names=None):
    """The server after rounds in which everybody sent these changes of all values, or of some."""
    for tick, change in enumerate(changes, start=1):
        folded = {name: np.full(value.shape, change) for name, value in server.theta.items() if names in (None, name)}
        server = method.aggregate(server, Reception(NOBODY, (), folded), tick)
    return server


def values(server, name="first.lora_A"):
    return float(server.theta[name].flat[0])


def same(one, two):
    return one.keys() == two.keys() and all(one[name].tobytes() == two[name].tobytes() for name in one)


def test_sgd_of_one_is_the_method_bit_for_bit():
    words = ("model.lora.train_head=true", "train.lr=0.3")
    _, plain, _ = rounds_of("fedit", *words, count=3)
    _, stepped, _ = rounds_of("fedit", *words, extra("fedavgm", beta=0.0, lr=1.0), count=3)
    for one, two in zip(plain, stepped, strict=True):
        assert same(one.server.theta, two.server.theta)


def test_at_a_rate_of_one_momentum_repeats_a_share_of_the_last_step():
    """theta + change + beta (theta - theta before): the heavy ball."""
    method, server, last = method_of("fedavgm", beta=0.75), server_of(), 0.0
    for change in (0.5, -0.25, 0.0, 1.0):
        moved = after(method, server, change)
        step = values(moved) - values(server)
        assert step == change + 0.75 * last
        server, last = moved, step


def test_two_steps_of_adam_by_hand():
    """beta1 = 0.5, beta2 = 0.75, tau = 1, lr = 0.1; changes of 2, then of -1; v from tau^2 = 1."""
    server = after(method_of("fedadam", lr=0.1, beta1=0.5, beta2=0.75, tau=1.0), server_of(), 2.0)
    first = 1.0 + 0.1 * 1.0 / (math.sqrt(0.75 * 1.0 + 0.25 * 4.0) + 1.0)  # m = 1, v = 1.75
    assert values(server) == np.float32(first)
    assert float(server.extra["fedadam/v/first.lora_A"][0, 0]) == 1.75
    method = method_of("fedadam", lr=0.1, beta1=0.5, beta2=0.75, tau=1.0)
    second = after(method, server, -1.0)
    m, v = 0.5 * 1.0 + 0.5 * -1.0, 0.75 * 1.75 + 0.25 * 1.0  # 0, 1.5625: the square of the change, not of m
    assert (float(second.extra["fedadam/m/head"][0, 0]), float(second.extra["fedadam/v/head"][0, 0])) == (m, v)
    assert values(second) == values(server)  # m = 0


def test_two_steps_of_yogi_by_hand():
    method = method_of("fedyogi", lr=0.1, beta1=0.5, beta2=0.75, tau=1.0)
    server = after(method, server_of(), 2.0)  # v = 1 - 0.25 * 4 * sign(1 - 4) = 2, m = 1
    assert float(server.extra["fedyogi/v/first.lora_A"][0, 0]) == 2.0
    assert values(server) == np.float32(1.0 + 0.1 / (math.sqrt(2.0) + 1.0))
    second = after(method, server, 1.0)  # v = 2 - 0.25 * 1 * sign(2 - 1) = 1.75, m = 1
    assert float(second.extra["fedyogi/v/first.lora_A"][0, 0]) == 1.75
    assert values(second) == pytest.approx(values(server) + 0.1 / (math.sqrt(1.75) + 1.0), abs=2e-7)


def test_two_steps_of_momentum_by_hand():
    server = after(method_of("fedavgm", lr=0.5, beta=0.5), server_of(), 2.0, 1.0)  # m = 2, then 2
    assert values(server) == 1.0 + 0.5 * 2.0 + 0.5 * 2.0


@pytest.mark.parametrize("name", STEPS)
def test_a_change_of_zero_moves_nothing_only_where_there_is_no_momentum(name):
    method = method_of(name)
    assert same(after(method, server_of(), 0.0).theta, server_of().theta)
    moving = after(method, server_of(), 0.5)
    resting = after(method, moving, 0.0)
    assert all((resting.theta[key] > moving.theta[key]).all() for key in moving.theta)


@pytest.mark.parametrize("name", STEPS)
def test_where_nobody_arrived_moments_rest_too(name):
    method = method_of(name)
    server = after(method, server_of(), 0.5)
    assert method.aggregate(server, Reception(NOBODY, ()), 2) is server
    _, states, _ = rounds_of("fedit", extra(name), "uplink.deadline_s=1e-9", count=1)
    assert states[1].server == states[0].server
    assert not any(key.startswith(name) for key in states[1].server.extra)


@pytest.mark.parametrize("name", STEPS)
def test_a_value_that_was_not_trained_keeps_itself_and_its_moments(name):
    method = method_of(name)
    server = after(method, server_of(), 0.5)
    one = after(method, server, 0.25, names="head")
    others = [key for key in server.theta if key != "head"]
    assert same({key: one.theta[key] for key in others}, {key: server.theta[key] for key in others})
    assert {key for key in server.extra if server.extra[key].tobytes() != one.extra[key].tobytes()} == {
        key for key in server.extra if key.endswith("/head")
    }


@pytest.mark.parametrize("name", STEPS)
def test_the_factors_of_rolora_have_moments_of_their_own(name):
    """B moves in odd rounds, A in even ones; the moments of one rest while the other is trained."""
    _, states, _ = rounds_of("rolora", extra(name), count=4)
    servers = [state.server for state in states]
    for tick in range(1, 5):
        before, now = servers[tick - 1], servers[tick]
        active, idle = (".lora_B", ".lora_A") if tick % 2 else (".lora_A", ".lora_B")
        moved = {key for key in now.theta if not np.array_equal(now.theta[key], before.theta[key])}
        assert moved
        assert all(key.endswith(active) for key in moved)
        learned = {k for k in now.extra if k not in before.extra or not np.array_equal(now.extra[k], before.extra[k])}
        assert learned
        assert not any(key.endswith(idle) for key in learned)


@pytest.mark.parametrize("name", STEPS)
def test_moments_are_resumed_bit_for_bit(name, tmp_path):
    parts, states, _ = rounds_of("fedit", extra(name), count=3)
    assert any(key.startswith(f"{name}/m/") for key in states[2].server.extra)
    held = Checkpoint(2, states[2], {}, "", "", Position.of(b""))
    again = load(save(held, tmp_path)).state
    assert same(again.server.extra, states[2].server.extra)
    resumed, _ = run_round(parts, again, 3)
    assert same(resumed.server.theta, states[3].server.theta)
    assert same(resumed.server.extra, states[3].server.extra)


@pytest.mark.parametrize(
    ("words", "match"),
    [
        ((extra("fedadam"), "method.server_lr=0.5"), r"^method\.server_lr: must be 1 with extra fedadam.*got 0\.5"),
        (("method.extras=[fedadam, fedavgm]",), r"^method\.extras: fedadam and fedavgm would each take the server's"),
        ((extra("fedyogi"), "method.name=flora"), r"^method\.extras: fedyogi remembers coordinates.*name=flora"),
        ((extra("fedavgm"), "method.name=soft", "method.reorthogonalize=true"), r"reorthogonalize=true changes"),
        ((extra("fedadam", beta1=1.0),), r"^method\.extras\.0\.beta1: "),
        ((extra("fedadam", tau=0),), r"^method\.extras\.0\.tau: "),
    ],
)
def test_what_cannot_be_is_refused(words, match):
    with pytest.raises(ConfigError, match=match):
        load_config("fedit", list(words))


def test_server_lr_may_be_anything_without_one():
    assert load_config("fedit", ["method.server_lr=0.5", "method.extras=fedprox"])
