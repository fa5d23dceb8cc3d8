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


# Modules whose outcome hangs on floating-point arithmetic; `make test-cpus` runs them under several instruction sets.
NUMERICS = {
    "test_adapter", "test_allocators", "test_architectures", "test_client_metric", "test_codecs_all",
    "test_codecs_feedback",
    "test_codecs_soft", "test_codecs_starvation", "test_codecs_transport", "test_codecs_waterfill", "test_diagnostics",
    "test_ecsq", "test_embedded", "test_gauge", "test_head_only", "test_menus", "test_methods", "test_offline",
    "test_packed_parity", "test_packed_training", "test_pilots", "test_rounds", "test_senders", "test_shared_order",
    "test_solvers_inner", "test_solvers_minmax", "test_solvers_online", "test_solvers_rates", "test_trajectories",
}  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.stem in NUMERICS:
            item.add_marker(pytest.mark.numerics)


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
