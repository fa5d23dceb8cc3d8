"""Every preset runs, and the baselines are what their first line says."""

import pytest

from raysoft.config.presets import describe_preset, load_config, preset_names
from tests.unit.federation.test_rounds import coordinator

TINY = ("train.steps=1", "train.batch_size=4", "data.max_test_samples=50")


def differences(name, base="soft"):
    """Sections of a preset that are not those of its base."""
    one, two = load_config(name), load_config(base)
    return {key for key in type(one).model_fields if getattr(one, key) != getattr(two, key)}


@pytest.mark.parametrize("name", preset_names())
def test_a_short_run_of_every_preset(name):
    """With a whole cohort on the air: a baseline whose outage rule silenced most of its clients would be none."""
    text = ("data.max_train_samples=400", "data.min_samples=2") if name.endswith("text") else ("data.clients=40",)
    cohort = 10 if name.endswith("text") else 20
    made, _ = coordinator(name, *TINY, f"cohort.size={cohort}", *text)
    record = made.round(1)
    assert record.participants + record.dropped == cohort
    assert record.participants >= 0.9 * cohort
    assert record.uplink_bits > 0
    _, totals = made.finish()
    assert 0 <= totals["worst10_client_accuracy"] <= totals["client_accuracy_mean"] <= 1
    assert ("worst10_client_bits_per_byte" in totals) == name.endswith("text")


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_says_what_it_is(name):
    assert 20 < len(describe_preset(name)) < 125


@pytest.mark.parametrize(
    ("name", "changed"),
    [(name, {"codec"}) for name in ("topk", "randomk", "random-components", "svd")]
    + [(name, {"allocator"}) for name in ("equal", "minmax", "greedy")]
    + [(name, {"method", "codec", "allocator"}) for name in ("fedit", "fedit-8bit", "fedit-4bit")],
)
def test_a_baseline_differs_from_soft_in_what_it_is_about(name, changed):
    assert differences(name) == changed
    assert load_config(name).allocator.options()["latency_budget_s"] == 0.3


@pytest.mark.parametrize(("name", "bits"), [("fedit", 32), ("fedit-8bit", 8), ("fedit-4bit", 4)])
def test_quantised_fedit_sends_every_value_at_its_bits(name, bits):
    """Below 32 bits, plus a float32 scale for every column of B and row of A."""
    made, _ = coordinator(name, *TINY, "cohort.size=4", "allocator.outage_factor=1e9")
    record, info = made.round(1), made.parts.info
    scales = 0 if bits == 32 else 32 * 2 * info.space.rank * len(info.space.pairs)
    assert record.participants == 4
    assert record.uplink_bits == 4 * (bits * info.space.num_values() + scales)
    assert record.kept_fraction_mean == 1.0
    _, totals = made.finish()
    assert totals["value_bits"] == bits
