"""What is asked before a run of a channel whose rounds are its own: only about rounds that the run has."""

import numpy as np
import pytest

from raysoft.config import registry
from raysoft.config.presets import load_config
from raysoft.errors import ConfigError
from raysoft.federation.preflight import check_latency_budget, rounds_ahead
from raysoft.federation.prospect import foresee
from tests.coordinators import coordinator

ENOUGH, TOO_LITTLE = -95, -140  # dB


@pytest.fixture
def settings(tmp_path):
    """Settings of a trace whose gain is `level(round)` [dB]."""

    def make(level, rounds=64):
        text = "client,round,value\n" + "".join(f"0,{n},{level(n)}\n" for n in range(1, rounds + 1))
        (tmp_path / "trace.csv").write_text(text)
        return [f"channel={{name: trace, file: {tmp_path / 'trace.csv'}, quantity: gain_db, at_end: hold}}"]

    return make


def test_the_rounds_that_are_looked_at(settings):
    drawn = load_config("fedit", ["rounds=2"])
    assert list(rounds_ahead(drawn, 64)) == list(range(1, 65)), "draws of one law stand for every round"
    trace = settings(lambda n: ENOUGH)
    for rounds, want in [(1, [1]), (2, [1, 2]), (64, [*range(1, 65)])]:
        assert list(rounds_ahead(load_config("fedit", [*trace, f"rounds={rounds}"]), 64)) == want
    spread = rounds_ahead(load_config("fedit", [*trace, "rounds=1000"]), 64)
    assert len(spread) == 64
    assert (spread[0], spread[-1]) == (1, 1000)
    assert max(np.diff(spread)) <= 17
    assert [kind for kind in registry.CHANNELS if registry.plugin("channel", kind).Config.TRAITS.dated] == ["trace"]


@pytest.mark.parametrize("good_first", [True, False])
def test_the_budget_is_held_against_the_rounds_of_the_run(settings, good_first):
    trace = settings(lambda n: ENOUGH if (n <= 2) == good_first else TOO_LITTLE)
    made, _ = coordinator("soft", *trace, "rounds=2", *([] if good_first else ["allocator.name=equal"]))
    if good_first:
        check_latency_budget(made.parts, made.state.server)
        return
    with pytest.raises(
        ConfigError, match=r"cannot be met: .* \(looked at: rounds 1 to 2, as channel\.name=trace has th"
    ):
        coordinator("soft", *trace, "rounds=2")


def test_costs_are_foreseen_from_the_rounds_of_the_run(settings):
    trace = settings(lambda n: ENOUGH if n <= 2 else -120)
    made, _ = coordinator("fedit", *trace, "rounds=2")
    found = foresee(made.parts, made.state)
    records = [made.round(tick) for tick in (1, 2)]
    assert found.ticks == (1, 2)
    assert found.round_s == pytest.approx(np.mean([one.round_latency_s for one in records]), rel=1e-12)
    assert found.energy_j == pytest.approx(np.mean([one.energy_j for one in records]), rel=1e-12)
