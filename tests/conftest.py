"""Shared by all tests: one torch thread, no network, and short runs."""

import json
import os
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

SMALL_RUN = [
    "rounds=3",
    "data.clients=12",
    "cohort.size=6",
    "train.steps=2",
    "train.batch_size=8",
    "actors.pack_size=3",
    "tracking.tensorboard=false",
]


# Modules of tests/unit whose outcome hangs on floating-point arithmetic; `make test-cpus` runs them under several
# instruction sets.
NUMERICS = {
    "allocation/test_allocators",
    "allocation/test_menus",
    "allocation/test_offline",
    "allocation/test_solvers_inner",
    "allocation/test_solvers_minmax",
    "allocation/test_solvers_online",
    "codecs/test_all",
    "codecs/test_ecsq",
    "codecs/test_feedback",
    "codecs/test_rank_components",
    "codecs/test_transport",
    "codecs/test_waterfill",
    "federation/test_client_metric",
    "federation/test_diagnostics",
    "federation/test_rounds",
    "federation/test_trajectories",
    "methods/test_folds",
    "methods/test_gauge",
    "methods/test_head_only",
    "methods/test_hetlora",
    "methods/test_lora_fair",
    "methods/test_methods",
    "methods/test_products",
    "methods/test_server_steps",
    "methods/test_shared_order",
    "models/test_adapter",
    "models/test_architectures",
    "models/test_embedded",
    "models/test_packed_parity",
    "models/test_packed_training",
    "planning/test_pilots",
    "wireless/test_rates",
}
UNIT = Path(__file__).parent / "unit"
RAY = Path(__file__).parent / "ray"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if missing := [name for name in sorted(NUMERICS) if not (UNIT / f"{name}.py").is_file()]:
        raise pytest.UsageError(f"NUMERICS in tests/conftest.py names what is not there: {', '.join(missing)}")
    numerics = {UNIT / f"{name}.py" for name in NUMERICS}
    for item in items:
        if item.path in numerics:
            item.add_marker(pytest.mark.numerics)
        if item.path.is_relative_to(RAY):
            item.add_marker(pytest.mark.alone)
        if item.path.is_relative_to(UNIT) and item.get_closest_marker("alone") and not item.get_closest_marker("slow"):
            raise pytest.UsageError(f"{item.nodeid}: `make test` does not look into tests/unit for what runs alone")


def records(folder: Path) -> list[dict]:
    """rounds.jsonl without what may differ between two equal runs: the wall time."""
    rows = [json.loads(line) for line in (folder / "rounds.jsonl").read_text().splitlines()]
    for row in rows:
        row.pop("wall_time_s", None)
    return rows


def summary(folder: Path) -> dict:
    return json.loads((folder / "summary.json").read_text())


@pytest.fixture(scope="session")
def small_inline_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The reference for every comparison of executors: a short run of `soft` in this process."""
    from raysoft.config.presets import load_config
    from raysoft.runs.run import run

    folder = tmp_path_factory.mktemp("inline") / "run"
    run(load_config("soft", [*SMALL_RUN, "executor=inline"]), folder)
    return folder
