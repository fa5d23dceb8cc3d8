"""Configuration: YAML 1.2 scalars, presets, overrides, and one clear sentence for whatever is wrong."""

import copy
import pickle
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from raysoft.config import Plugin, RunConfig, UserFile, apply_override, merge, registry
from raysoft.config.presets import load_config, load_tree, own_settings, preset_names
from raysoft.config.yaml12 import parse_yaml
from raysoft.errors import ConfigError, ResourceError
from raysoft.runs.run import to_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("1.0e+6", 1e6),
        ("-.5", -0.5),
        ("12", 12),
        ("off", "off"),
        ("yes", "yes"),
        ("true", True),
        ("null", None),
        ("", None),
        ("0o17", 15),
        ("010", 10),
        ("-012", -12),
        ("0x1F", 31),
        ("0x1G", "0x1G"),
        ("0o8", "0o8"),
        ("0b1", "0b1"),
        ("1_000", "1_000"),
        ("2024-01-01", "2024-01-01"),
        ("1:30", "1:30"),
    ],
)
def test_yaml_scalars_follow_version_1_2(text, value):
    got = parse_yaml(f"x: {text}", "test")["x"]
    assert got == value
    assert type(got) is type(value)


@pytest.mark.parametrize("text", ["a: [1", "a: 1\na: 2", "a: &x 1\nb: *x", "!!python/object:os.system {}", "\x00"])
def test_bad_yaml_is_one_sentence_with_its_place(text):
    with pytest.raises(ConfigError, match=r"test.*not valid YAML"):
        parse_yaml(text, "test")


@pytest.mark.parametrize("name", preset_names())
def test_presets_resolve_and_round_trip_through_show(name, tmp_path):
    config = load_config(name)
    path = tmp_path / "again.yaml"
    path.write_text(to_yaml(config))
    again = load_config(str(path))
    assert again == config
    assert again.config_hash() == config.config_hash()


def test_every_default_is_written_out():
    tree = load_config("soft").model_dump(mode="json")
    assert tree["codec"]["bits_per_value"] == 32
    assert tree["uplink"]["deadline_s"] is None


def test_overrides_are_yaml_and_nested():
    config = load_config("soft", ["train.lr=1e-2", "train.steps={low: 1, high: 3}", "model.lora.targets=[q_proj]"])
    assert config.train.lr == 1e-2
    assert config.train.steps.high == 3
    assert config.model.lora.targets == ["q_proj"]


def test_a_replaced_plugin_hands_over_the_options_that_the_new_one_knows(tmp_path):
    greedy = load_config("soft", ["allocator.latency_budget_s=0.5", "allocator.name=greedy"]).allocator.options()
    assert greedy["latency_budget_s"] == 0.5
    assert "v" not in greedy
    (tmp_path / "mine.yaml").write_text(
        "base: soft\ncodec: {name: topk, kept_fraction: 0.1}\nmodel: {name: ./mine, lora: {alpha: 4}}\n"
    )
    config = load_config(str(tmp_path / "mine.yaml"))
    assert config.codec.options()["kept_fraction"] == 0.1
    assert "importance" not in config.codec.options()
    assert (config.model.name, config.model.lora.alpha, config.model.lora.rank) == ("./mine", 4, 8)
    assert merge({"codec": {"name": "topk", "of": "update"}}, {"codec": {"kept_fraction": 0.1}}) == {
        "codec": {"name": "topk", "of": "update", "kept_fraction": 0.1}
    }


def test_files_build_on_presets_and_on_files_beside_them(tmp_path):
    (tmp_path / "one.yaml").write_text("base: soft\nrounds: 7\n")
    (tmp_path / "two.yaml").write_text("base: one.yaml\nseed: 3\n")
    config = load_config(str(tmp_path / "two.yaml"))
    assert (config.rounds, config.seed, config.data.task) == (7, 3, "digits")
    (tmp_path / "loop.yaml").write_text("base: loop.yaml\n")
    with pytest.raises(ConfigError, match="build on itself"):
        load_tree(str(tmp_path / "loop.yaml"))


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["rouns=3"], "rouns: unknown key"),
        (["model.lora.rnak=3"], "model.lora.rnak: unknown key"),
        (["train.lr=-1"], "train.lr: input should be greater than 0, got -1"),
        (["train.lr=.nan"], "train.lr"),
        (["train.lr=abc"], "train.lr"),
        (["rounds=2.5"], "rounds"),
        (["rounds=true"], "rounds"),
        (["data.clients=5"], "cohort.size (20) must not exceed data.clients (5)"),
        (["codec.name=rank_component"], "did you mean 'rank_components'"),
        (["codec.scope=galaxy"], "codec.scope"),
        (["codec.bits=3"], "codec.bits: unknown key"),
        (["allocator.latency_budget_s=null"], "allocator.latency_budget_s: is required by allocator tsfa"),
        (["allocator.name=ideal"], "allocator"),
        (["uplink.name=ideal"], "uplink.name: ideal has no bandwidth to share"),
        (["channel.min_distance_m=900"], "min_distance_m (900) must be below cell_radius_m (250)"),
        (["device.cpu_hz={low: 3e9, high: 1e9}"], "low (3e+09) must not exceed high (1e+09)"),
        (["seed=-1"], "seed"),
        (["model=null"], "model"),
        (["rounds"], "must have the form key=value"),
        (["rounds.x=3"], "its parent is not a section"),
        (["train={}", "method=soft"], "method"),
    ],
)
def test_one_sentence_names_field_value_and_what_is_valid(overrides, sentence):
    with pytest.raises(ConfigError) as error:
        load_config("soft", overrides)
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


def test_errors_cross_process_borders():
    for error in (ConfigError("a.b", "is wrong"), ResourceError("too much")):
        again = pickle.loads(pickle.dumps(error))
        assert (type(again), str(again), again.exit_code) == (type(error), str(error), error.exit_code)


@pytest.mark.parametrize(
    ("key", "value"),
    [("executor", "inline"), ("actors.cpus", "1"), ("tracking.tensorboard", "false"), ("metrics.clients", "false")],
)
def test_the_hash_ignores_what_cannot_change_the_result(key, value):
    assert load_config("soft", [f"{key}={value}"]).config_hash() == load_config("soft").config_hash()


@pytest.mark.parametrize(
    ("key", "value"), [("seed", "1"), ("rounds", "41"), ("actors.pack_size", "4"), ("codec.scope", "matrix")]
)
def test_the_hash_sees_what_does(key, value):
    assert load_config("soft", [f"{key}={value}"]).config_hash() != load_config("soft").config_hash()


def keys(name):
    """What a preset sets."""
    return {setting.partition("=")[0] for setting in own_settings(name)}


# A preset that sets what the text task sets, too, is tuned to its task: the order then says whose value counts.
ELSEWHERE = ("text", "domains")  # presets of other tasks
SOFT_BASED = [
    n for n in preset_names() if n != "soft" and not n.endswith(ELSEWHERE) and not keys(n) & keys("soft-text")
]


@pytest.mark.parametrize("name", SOFT_BASED)
def test_a_preset_and_the_text_task_can_be_combined_in_either_order(name):
    """The text version of a preset: it over the settings of soft-text, or those over it."""
    mixed = load_config(name, own_settings("soft-text"))
    assert mixed == load_config("soft-text", own_settings(name))
    text, plain = load_config("soft-text"), load_config(name)
    for section in ("model", "data", "cohort", "train", "eval", "rounds"):
        assert getattr(mixed, section) == getattr(text, section)
    for section in ("method", "codec", "uplink", "channel", "device"):
        assert getattr(mixed, section) == getattr(plain, section)
    assert mixed.allocator.options() == {**plain.allocator.options(), "latency_budget_s": 0.8}


def test_the_text_version_of_ideal_is_a_preset():
    assert load_config("ideal-text") == load_config("ideal", own_settings("soft-text"))


def test_own_settings_of_what_is_no_preset():
    assert own_settings("topk") == ['codec.name="topk"']
    with pytest.raises(ConfigError, match="'sof' is not a preset, choose from"):
        own_settings("sof")


def test_plugin_sections_are_frozen():
    section = Plugin(name="x", a=1)
    with pytest.raises(Exception, match="frozen"):
        section.name = "y"


def test_unreadable_files_are_named(tmp_path: Path):
    for name, content in (("latin.yaml", b"x: \xff\xfe"), ("list.yaml", b"- 1"), ("big.yaml", b"#" * 1_000_001)):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ConfigError, match=name):
            load_tree(str(tmp_path / name))
    with pytest.raises(ConfigError, match=r"missing\.yaml"):
        load_tree(str(tmp_path / "missing.yaml"))


def leaves(tree, path=()):
    for key, value in tree.items():
        yield (*path, key)
        if isinstance(value, dict):
            yield from leaves(value, (*path, key))


FULL = {name: load_config(name).model_dump(mode="json") for name in preset_names()}
JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**20), 10**20),
    st.floats(),
    st.text(max_size=20),
    st.lists(st.integers(), max_size=3),
    st.dictionaries(st.text(max_size=8), st.integers(), max_size=3),
    st.sampled_from(
        ["auto", "all", "inf", "-0", "1e999", "../..", "\x00", [], {}, {"name": "soft"}, {"low": 1, "high": 0}]
    ),
)


@settings(max_examples=700, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_mutated_configurations_end_in_a_valid_tree_or_one_sentence(data):
    """>= 500 mutated configurations: replace, remove or add keys anywhere."""
    tree = copy.deepcopy(FULL[data.draw(st.sampled_from(sorted(FULL)))])
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from(sorted(leaves(tree))))
        parent = tree
        for key in path[:-1]:
            parent = parent[key]
        action = data.draw(st.sampled_from(["replace", "remove", "add"]))
        if action == "remove":
            del parent[path[-1]]
        elif action == "add":
            parent[data.draw(st.text(max_size=8))] = copy.deepcopy(data.draw(JUNK))
        else:
            parent[path[-1]] = copy.deepcopy(data.draw(JUNK))
    try:
        config = registry.resolve(tree)
    except ConfigError as error:
        assert str(error).strip()
        assert "\n" not in str(error)
        assert len(str(error)) < 400
    else:
        assert isinstance(config, RunConfig)
        assert len(config.config_hash()) == 32


@settings(max_examples=100)
@given(st.text(max_size=30))
def test_any_override_text_is_applied_or_refused(text):
    try:
        apply_override({"rounds": 1}, text)
    except ConfigError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize(
    "setting", ["train.lr=true", "train.betas=[true, 0.9]", "device.cpu_hz=true", "cohort.size=true"]
)
def test_a_boolean_is_no_number(setting):
    with pytest.raises(
        ConfigError, match=rf"^{re.escape(setting.partition('=')[0])}.*valid (number|integer).*got True"
    ):
        load_config("soft", [setting])


@pytest.mark.parametrize("key", ["3", "true", "1.5", "~"])
def test_a_key_that_is_no_text_is_named(key):
    with pytest.raises(ConfigError, match=f"here, line 2: .*key {key} must be text"):
        parse_yaml(f"train:\n  {key}: 4\n", "here")


def test_a_base_that_is_null_is_named_with_its_file(tmp_path):
    (tmp_path / "mine.yaml").write_text("base: null\n")
    with pytest.raises(ConfigError, match=r"^base: .*mine\.yaml: must name a preset or a YAML file, got null"):
        load_config(str(tmp_path / "mine.yaml"))


def test_a_file_called_like_a_preset_does_not_hide_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "soft").write_text("rounds: 7\n")
    assert load_tree("./soft") == {"rounds": 7}
    assert load_tree("soft") != {"rounds": 7}


def test_a_file_of_nobodys_home_is_one_that_is_not_there():
    assert UserFile("~nouser/trace.csv").path == Path("~nouser/trace.csv")
