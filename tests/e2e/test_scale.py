"""Many clients: a huge population with a small cohort, and a cohort of a thousand."""

import pytest

from raysoft.config.presets import load_config
from raysoft.runs.run import run
from tests.conftest import SMALL_RUN, records, summary

VIRTUAL = ["data.partition=virtual", "data.samples_per_client=16", "train.batch_size=4", "tracking.tensorboard=false"]
THOUSAND = [
    *VIRTUAL,
    "rounds=2",
    "data.clients=5000",
    "cohort.size=1000",
    "train.steps=1",
    "channel.bandwidth_hz=5e7",
    "allocator.latency_budget_s=1",
    "eval.every=2",
]


def test_a_million_registered_clients_cost_no_more_than_the_cohort(tmp_path):
    settings = [*SMALL_RUN, *VIRTUAL, "data.clients=1000000", "codec.error_feedback=true"]
    result = run(load_config("soft", [*settings, "executor=inline"]), tmp_path / "run", report=True)
    rows = records(tmp_path / "run")
    ids = [set(row["metrics"]["clients"]["id"]) for row in rows[1:]]
    assert [len(one) for one in ids] == [6, 6, 6]
    # 18 uniform numbers all below 100,000 of a million: probability 1e-18.
    assert max(map(max, ids)) > 100_000
    assert result.summary["status"] == "done"
    assert result.summary["metrics"]["client_accuracy_mean"] > 0
    assert result.report is not None
    assert result.report.is_file()
    assert (tmp_path / "run" / "rounds.jsonl").stat().st_size < 100_000


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.timeout(1500)
def test_a_thousand_clients_a_round_give_the_same_bytes_inline_and_on_ray(tmp_path):
    for executor in ("inline", "ray"):
        config = load_config("soft", [*THOUSAND, f"executor={executor}"])
        assert config.actors.clients_per_actor == config.actors.pack_size == "auto"
        run(config, tmp_path / executor, report=False)
    rows = records(tmp_path / "inline")
    assert [row["participants"] + row["dropped"] for row in rows[1:]] == [1000, 1000]
    assert rows == records(tmp_path / "ray")
    assert summary(tmp_path / "inline")["adapter_sha256"] == summary(tmp_path / "ray")["adapter_sha256"]
    assert (tmp_path / "inline" / "rounds.jsonl").stat().st_size < 200_000, "256 clients a line at most"
