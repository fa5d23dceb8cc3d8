"""An analog uplink in whole rounds: the noise is keyed, lies where somebody sent, and is as strong as it says."""

from pathlib import Path

import numpy as np
import pytest

from raysoft.config.presets import load_config
from raysoft.errors import ConfigError
from raysoft.federation.reduction import support_of
from raysoft.rng import Rng
from raysoft.types import Folded, Outcome
from tests.noisy_sum import Config, NoisySum
from tests.plug_in_packages import make_package
from tests.rounds import rounds_of
from tests.unit.methods.spaces import space

SOURCE = Path(__file__).parents[2] / "noisy_sum.py"
DENSE = ("fedit", "allocator={name: ideal}")
NOISY = (*DENSE, "uplink.name=noisy_sum")


@pytest.fixture(autouse=True)
def noisy_sum(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(make_package(tmp_path / "site", "uplinks", "noisy_sum", SOURCE.read_text()))


def theta(*words, count=1):
    return rounds_of(*words, count=count)[1][-1].server.theta


def test_without_noise_it_is_the_digital_uplink_bit_for_bit():
    digital = theta(*DENSE, "uplink.name=ideal", count=2)
    analog = theta(*NOISY, "uplink.noise_std=0", count=2)
    for name, value in digital.items():
        np.testing.assert_array_equal(analog[name], value)


def test_noise_repeats_by_seed_and_differs_by_round():
    clean = theta(*NOISY, "uplink.noise_std=0")
    one, again, other = (theta(*NOISY, f"seed={seed}") for seed in (0, 0, 1))
    assert all((one[name] == again[name]).all() for name in one)
    assert any((one[name] != other[name]).any() for name in one)
    _, states, _ = rounds_of(*NOISY, "train.lr=1e-9", "uplink.noise_std=0.5", count=2)
    first, second = (
        {name: after.server.theta[name] - before.server.theta[name] for name in clean}
        for before, after in zip(states, states[1:], strict=False)
    )
    assert all(abs(np.corrcoef(first[name].ravel(), second[name].ravel())[0, 1]) < 0.2 for name in clean)


def test_it_is_as_strong_as_it_says():
    """sum of squares / (n sigma^2) is chi-square over n: within five standard deviations of 1."""
    clean = theta(*NOISY, "uplink.noise_std=0")
    noisy = theta(*NOISY, "uplink.noise_std=0.1")
    noise = np.concatenate([(noisy[name].astype(float) - clean[name]).ravel() for name in clean]) / 0.1
    assert abs((noise**2).mean() - 1.0) < 5 * np.sqrt(2.0 / noise.size)


def test_where_nobody_sent_there_is_no_noise():
    """Two of the three components of each matrix are sent by nobody."""
    uplink, shape = NoisySum(Config(noise_std=1.0)), space(3)
    total = {name: np.zeros(size) for name, size in shape.shapes.items()}
    support = support_of(total, shape, np.array([1, 0, 0, 0, 0, 2]))
    nothing = np.zeros(1)
    outcome = Outcome(nothing > 0, nothing, nothing, ("",), 0.0, noise_std=1.0)
    heard = uplink.receive(Folded(total, support), outcome, 1, Rng(0))
    for pair, kept in zip(shape.pairs, (0, 2), strict=True):
        assert (heard[pair.b][:, kept] != 0).all()
        assert (heard[pair.a][kept] != 0).all()
        assert not np.delete(heard[pair.b], kept, axis=1).any()
        assert not np.delete(heard[pair.a], kept, axis=0).any()
    assert (heard["head"] != 0).all(), "a head always travels"


def test_one_order_for_all_goes_over_the_air():
    words = ("soft", "method.shared_mask=true", "allocator={name: ideal}", "uplink.name=noisy_sum")
    _, _, records = rounds_of(*words, count=2)
    assert [record.participants for record in records] == [3, 3]


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (("codec.name=topk",), "codec.name: topk"),
        (("codec.bits_per_value=8",), "codec.name: identity"),
        (("method.name=lora_fair",), r"uplink.name: noisy_sum .* products"),
        (("method.name=median",), r"uplink.name: noisy_sum .* each client's own update"),
        (("method.extras=[{name: scaffold}]", "train.clip_norm=null"), r"uplink.name: noisy_sum .* scaffold sends"),
    ],
)
def test_what_cannot_be_superposed_is_refused(words, match):
    with pytest.raises(ConfigError, match=match):
        load_config(NOISY[0], [*NOISY[1:], *words])
