"""A callback ends a run on Ray as it does in one process, and the next run of the process can start Ray again."""

import pytest

import raysoft
from tests.conftest import SMALL_RUN, records

QUICK = {"progress": False, "report": False}


class Until:
    def __init__(self, last):
        self.last, self.heard = last, []

    def on_start(self, run):
        self.heard.append("start")

    def on_round(self, run, record):
        self.heard.append(record.round)
        return "stop" if record.round == self.last else None

    def on_checkpoint(self, run, folder):
        self.heard.append(folder.name)

    def on_end(self, run, summary):
        self.heard.append(summary["status"])


@pytest.mark.slow
def test_a_run_on_ray_is_stopped_and_goes_on_on_ray(tmp_path):
    whole = raysoft.run("soft", SMALL_RUN, executor="inline", out=tmp_path / "whole", **QUICK)
    stop = Until(1)
    stopped = raysoft.run("soft", SMALL_RUN, executor="ray", out=tmp_path / "run", callbacks=stop, **QUICK)
    assert stopped.status == "stopped"
    assert stop.heard == ["start", 0, 1, "round-000001", "stopped"]
    rest = Until(9)
    done = raysoft.resume(stopped, callbacks=rest, **QUICK)
    assert done.config.executor == "ray"
    assert rest.heard[:3] == ["start", 2, 3]
    assert rest.heard[-1] == done.status == "done"
    assert done.summary["adapter_sha256"] == whole.summary["adapter_sha256"]
    assert records(done.folder) == records(whole.folder)
