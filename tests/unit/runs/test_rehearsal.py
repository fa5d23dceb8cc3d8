"""What a dry run tries before it says what a run costs."""

import subprocess
import sys

import pytest

from raysoft.config.presets import load_config
from raysoft.errors import ConfigError
from raysoft.runs.rehearsal import rehearse, why_not
from raysoft.terminal.console import stdout
from raysoft.terminal.dry_run import print_plan
from tests.conftest import SMALL_RUN


def config_of(*settings, executor="inline"):
    return load_config("soft", [*SMALL_RUN, *settings], executor)


@pytest.mark.parametrize(
    "settings, reason",
    [
        ([], ""),
        (["model.lora.rank=plan"], "the rank is chosen when the run begins"),
        (["model.name=google/vit-base-patch16-224"], "would be fetched from the hub"),
        (["data.task=image-classification", "data.path=ylecun/mnist"], "would be fetched from the hub"),
    ],
)
def test_what_is_not_here_is_not_tried(settings, reason):
    found = why_not(config_of(*settings))
    assert found.endswith(reason)
    assert bool(found) == bool(reason)


def test_what_is_large_is_not_read(tmp_path):
    with open(tmp_path / "model.safetensors", "wb") as file:
        file.truncate(3_000_000_000)  # takes no room on the disk
    assert why_not(config_of(f"model.name={tmp_path}")) == "to read the model takes long"


def test_what_lies_in_the_current_folder_is_nobodys_data(tmp_path, monkeypatch):
    with open(tmp_path / "something.else", "wb") as file:
        file.truncate(3_000_000_000)
    monkeypatch.chdir(tmp_path)
    assert why_not(config_of()) == ""


def test_a_run_on_a_cluster_is_not_tried_here(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    assert "cluster" in why_not(config_of(executor="ray"))
    assert why_not(config_of(executor="inline")) == ""


def test_costs_grow_with_rounds_and_are_shared_by_processes():
    short, long = (rehearse(config_of(f"rounds={rounds}")) for rounds in (4, 400))
    assert short.timed_clients == 3
    assert 25 < long.wall_s / short.wall_s < 400
    assert short.prospect == long.prospect
    assert len(short.samples_K) == 12
    assert 1e8 < short.memory_bytes < 2e10
    on_ray = rehearse(config_of("actors.cpus=2", executor="ray"))
    assert on_ray.at_once == 2
    assert on_ray.memory_bytes > 600e6


def test_a_budget_that_no_run_could_meet_is_refused():
    with pytest.raises(ConfigError, match="smallest feasible budget"):
        rehearse(config_of("allocator.latency_budget_s=0.02"))


def test_a_client_that_takes_long_is_timed_alone(monkeypatch):
    from raysoft.runs import rehearsal

    monkeypatch.setattr(rehearsal, "LONG_S", 0.0)
    assert rehearse(config_of()).timed_clients == 1


def test_the_plan_says_what_is_trained_on_what_at_what_cost(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    print_plan(stdout(), config_of("rounds=7"), tmp_path / "x")
    text = capsys.readouterr().out
    for words in (
        "136,138 frozen values from embedded/vit-digits",
        "LoRA rank 8 on 16 matrices (q_proj, k_proj, v_proj, o_proj)",
        "samples each, median",
        "of the dense 65.5 kB",
        "4.1 kB at least, 65.5 kB for everything",
        "65.5 kB a client and round",
        "simulated,",
        "besides start and loading",
        "memory  about ",
        "nothing was run.",
    ):
        assert words in text, text
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_of_a_run_on_ray_does_not_load_it():
    code = (
        "import sys; from raysoft.config.presets import load_config; from raysoft.terminal.console import stdout\n"
        "from raysoft.terminal.dry_run import print_plan; from pathlib import Path\n"
        f"print_plan(stdout(), load_config('soft', {SMALL_RUN!r}, 'ray'), Path('x'))\n"
        "print('loaded' if 'ray' in sys.modules else 'not loaded')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.endswith("not loaded\n"), done.stdout
