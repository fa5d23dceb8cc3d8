"""The gauges of a real run, read where Prometheus would read them: at the metrics port of a Ray node."""

from __future__ import annotations

import re
import time
import urllib.request

import pytest
import ray

from raysoft.config.presets import load_config
from raysoft.runs.run import Events, run
from raysoft.runs.trackers.prometheus import GAUGES
from tests.conftest import SMALL_RUN, summary

pytestmark = [pytest.mark.slow, pytest.mark.timeout(280)]
WITHIN_S = 90  # Ray passes metrics on every ten seconds


class Scrape(Events):
    """Reads the node's metrics after the last round, until they tell of it."""

    def __init__(self, last_round):
        self.last_round, self.found = last_round, {}

    def round(self, record):
        if record.round < self.last_round:
            return
        port = ray.nodes()[0]["MetricsExportPort"]
        deadline = time.monotonic() + WITHIN_S
        while time.monotonic() < deadline and self.found.get("raysoft_round") != self.last_round:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
                self.found = gauges(answer.read().decode(), "run")
            time.sleep(1)


def gauges(text, run_name):
    lines = re.findall(rf'^ray_(raysoft_\w+)\{{[^}}]*run="{run_name}"[^}}]*\}} (\S+)$', text, re.MULTILINE)
    return {name: float(value) for name, value in lines}


def test_a_run_on_ray_shows_its_gauges_at_the_metrics_port(tmp_path):
    scrape = Scrape(last_round=3)
    settings = ["executor=ray", "actors.cpus=1", "tracking.prometheus=true"]
    run(load_config("soft", [*SMALL_RUN, *settings]), tmp_path / "run", events=scrape, report=False)
    closing = summary(tmp_path / "run")
    assert set(scrape.found) == {f"raysoft_{key}" for key in GAUGES}
    assert scrape.found["raysoft_round"] == 3
    assert scrape.found["raysoft_accuracy"] == pytest.approx(closing["metrics"]["last_accuracy"])
    assert scrape.found["raysoft_uplink_bits_total"] == closing["uplink_bits_total"]
    assert scrape.found["raysoft_energy_j_total"] == pytest.approx(closing["energy_j_total"])
    assert scrape.found["raysoft_client_updates_per_s"] > 0
