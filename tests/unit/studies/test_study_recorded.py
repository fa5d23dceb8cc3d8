"""Rows that stand as they were recorded: in the archive with the numbers of recorded.json, found by no other name."""

import shutil
import tarfile
from dataclasses import replace
from itertools import pairwise

import pytest

from raysoft.comparison.batch import JobOutcome
from studies import archive
from studies.archive import PUBLISHED
from studies.loading import found_only, read_results
from studies.recorded import freeze, older_revisions, read_recorded, recorded_outcomes
from studies.settings import Scale, everything

RECORDED = read_recorded()


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """The first seed of the published runs that recorded.json names."""
    place = tmp_path_factory.mktemp("published")
    wanted = {name for name in RECORDED.runs if "-s0-" in name}
    with tarfile.open(PUBLISHED[0]) as file:
        members = [one for one in file if one.name.startswith("runs/") and one.name.split("/")[1] in wanted]
        file.extractall(place, members, filter="data")
    return place / "runs"


@pytest.fixture(scope="module")
def jobs():
    return [job for one in everything(Scale()) for job in one.jobs() if job.config.seed == 0]


def test_they_are_in_the_archive_with_the_numbers_of_the_file(store, jobs):
    frozen = freeze(jobs, store, RECORDED.commit, RECORDED.reason)["runs"]
    assert frozen
    for name, numbers in frozen.items():
        assert RECORDED.runs[name] == numbers
    assert set(frozen) == {name for name in RECORDED.runs if "-s0-" in name}


def test_only_jobs_of_a_revised_plug_in_are_answered_and_only_by_what_is_named(store, jobs):
    found = recorded_outcomes(jobs, store, RECORDED)
    revised = {at for at, job in enumerate(jobs) if job.config.revisions()}
    assert set(found) == revised
    assert all(outcome.folder.name in RECORDED.runs for outcome in found.values())
    assert recorded_outcomes(jobs, store, replace(RECORDED, runs={})) == {}
    assert [one.folder for one in found_only([jobs[at] for at in sorted(revised)], store)] == [None] * len(revised)
    with older_revisions():
        assert not any(job.config.revisions() for job in jobs)
    assert jobs[min(revised)].config.revisions() != {}


def test_tables_say_which_arms_are_recorded(store, jobs):
    experiment = next(one for one in everything(Scale(seeds=1)) if one.name == "headline-python-source")
    jobs = experiment.jobs()
    known = recorded_outcomes(jobs, store, RECORDED)
    outcomes = found_only(jobs, store)
    results = read_results([experiment], [known.get(at, one) for at, one in enumerate(outcomes)])[experiment.name]
    said = results.remark()
    assert f"Recorded at commit {RECORDED.commit[:7]}" in said
    assert all(jobs[at].label in said.partition("Recorded")[2] for at in known)
    assert "missing" in said  # the others, which this store lacks


def test_the_file_is_sorted_and_every_run_has_its_numbers():
    assert all(a < b for a, b in pairwise(RECORDED.runs))
    assert all(numbers["final_accuracy"] > 0 and numbers["uplink_mb"] > 0 for numbers in RECORDED.runs.values())


def test_an_archive_holds_what_is_read_and_nothing_twice(store, tmp_path, monkeypatch):
    folder = next(path for path in sorted(store.iterdir()))
    copied = shutil.copytree(folder, tmp_path / "out/runs/mine")
    shutil.copytree(folder, tmp_path / "out/runs" / folder.name)  # which the first archive has
    (copied / "adapter").mkdir()
    (tmp_path / "out/plans/digits-1s-0000").mkdir(parents=True)
    (tmp_path / "out/plans/digits-1s-0000/plan.json").write_text("{}")
    outcomes = [JobOutcome(None, path) for path in (tmp_path / "out/runs").iterdir()]
    monkeypatch.setattr(archive, "found_only", lambda jobs, store: outcomes)
    assert archive.pack(tmp_path / "out", tmp_path / "new.tar.xz", ["head-digits"]) == 1
    first = (tmp_path / "new.tar.xz").read_bytes()
    archive.pack(tmp_path / "out", tmp_path / "new.tar.xz", ["head-digits"])
    assert (tmp_path / "new.tar.xz").read_bytes() == first
    archive.unpack(tmp_path / "again", [tmp_path / "new.tar.xz"])
    found = sorted(
        str(path.relative_to(tmp_path / "again")) for path in (tmp_path / "again").rglob("*") if path.is_file()
    )
    kept = [f"runs/mine/{name}" for name in ("config.yaml", "environment.json", "rounds.jsonl", "summary.json")]
    assert found == ["plans/digits-1s-0000/plan.json", *kept]
    assert (tmp_path / "again/runs/mine/rounds.jsonl").read_bytes() == (folder / "rounds.jsonl").read_bytes()
