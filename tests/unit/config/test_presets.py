"""Every preset runs, and the baselines are what their first line says."""

import re

import pytest

from raysoft.config.presets import describe_preset, load_config, preset_names
from tests.coordinators import coordinator
from tests.trajectories import digits_presets, domains_presets, is_text, text_presets

PLAIN = [name for name in digits_presets() if name not in domains_presets()]
TINY = ("train.steps=1", "train.batch_size=4", "data.max_test_samples=50")


def differences(name, base="soft"):
    """Sections of a preset that are not those of its base."""
    one, two = load_config(name), load_config(base)
    return {key for key in type(one).model_fields if getattr(one, key) != getattr(two, key)}


@pytest.mark.parametrize("name", preset_names())
def test_a_short_run_of_every_preset(name):
    """With a whole cohort on the air: a baseline whose outage rule silenced most of its clients would be none."""
    text = ("data.max_train_samples=400", "data.min_samples=2") if is_text(name) else ("data.clients=40",)
    cohort = 10 if is_text(name) else 20 if name in PLAIN else 6
    made, _ = coordinator(name, *TINY, f"cohort.size={cohort}", *text)
    record = made.round(1)
    assert record.participants + record.dropped == cohort
    assert record.participants >= 0.9 * cohort
    assert record.uplink_bits > 0
    _, totals, _ = made.finish()
    assert 0 <= totals["worst10_client_accuracy"] <= totals["client_accuracy_mean"] <= 1
    assert ("worst10_client_bits_per_byte" in totals) == is_text(name)


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_says_what_it_is(name):
    assert 20 < len(describe_preset(name)) < 125


# What each preset is about; one that is missing here fails.
ABOUT = {
    "topk": {"codec"},
    "randomk": {"codec"},
    "random-components": {"codec"},
    "svd": {"codec"},
    "equal": {"allocator"},
    "minmax": {"allocator"},
    "greedy": {"allocator"},
    "fedit": {"method", "codec", "allocator"},
    "fedit-8bit": {"method", "codec", "allocator"},
    "fedit-4bit": {"method", "codec", "allocator"},
    "ffa": {"method", "codec", "allocator"},
    "rolora": {"method", "codec", "allocator"},
    "lora-fair": {"method", "codec", "allocator"},
    "flora": {"method", "codec", "allocator"},
    "flasc": {"method", "codec", "allocator"},
    "flexlora": {"method", "codec", "allocator"},
    "fedex": {"method", "codec", "allocator"},
    "hetlora": {"method", "codec", "allocator"},
    "ideal": {"method", "codec", "allocator", "uplink"},
    "soft-plus": {"codec", "allocator"},
}


@pytest.mark.parametrize("name", [name for name in PLAIN if name != "soft"])
def test_a_digits_preset_differs_from_soft_in_what_it_is_about(name):
    assert differences(name) == ABOUT[name]


@pytest.mark.parametrize("name", domains_presets())
def test_a_domains_preset_differs_from_the_digits_one_in_the_task_and_its_budget(name):
    assert differences(name, name.removesuffix("-domains")) == {
        "rounds",
        "data",
        "cohort",
        "train",
        "allocator",
        "metrics",
    }
    assert differences(name, "soft-domains") == ABOUT.get(name.removesuffix("-domains"), set())


@pytest.mark.parametrize("name", text_presets())
def test_a_text_preset_differs_from_the_digits_one_in_the_task_and_its_budget(name):
    task = {"model", "data", "cohort", "train", "eval", "rounds"}
    assert differences(name, name.removesuffix("-text")) == task | {"allocator"}
    assert load_config(name).allocator.options()["latency_budget_s"] == {"soft-plus-text": 0.31}.get(name, 0.8)


@pytest.mark.parametrize("name", [name for name in PLAIN if name != "soft-plus"])  # which is quicker
def test_a_baseline_has_the_budget_of_soft(name):
    assert load_config(name).allocator.options()["latency_budget_s"] == 0.3


@pytest.mark.parametrize("name", [name for name in digits_presets() if load_config(name).method.name == "fedit"])
def test_fedit_sends_every_value_at_the_bits_in_its_name(name):
    """Below 32 bits, plus a float32 scale for every column of B and row of A."""
    bits = int(re.search(r"(\d+)bit$|$", name)[1] or 32)
    made, _ = coordinator(name, *TINY, "cohort.size=4", "allocator.outage_factor=1e9")
    record, info = made.round(1), made.parts.info
    scales = 0 if bits == 32 else 32 * 2 * info.space.rank * len(info.space.pairs)
    assert record.participants == 4
    assert record.uplink_bits == 4 * (bits * info.space.num_values() + scales)
    assert record.kept_fraction_mean == 1.0
    _, totals, _ = made.finish()
    assert totals["value_bits"] == bits
