"""The archives of published runs: what tables and figures read of the runs behind docs/study.md, without adapters.

    python -m studies.archive OUT FILE EXPERIMENT [EXPERIMENT ...]

packs into FILE the runs of these experiments, and all plans, that OUT (the study's folder) has and no other archive
holds yet; with sorted names and no owners or times, so that the same runs give the same bytes.
"""

from __future__ import annotations

import io
import sys
import tarfile
from collections.abc import Iterable
from pathlib import Path

from raysoft.rundir.folder import CONFIG, ENVIRONMENT, ROUNDS, SUMMARY
from studies.loading import found_only
from studies.settings import Scale, everything

HERE = Path(__file__).resolve().parent
PUBLISHED = (HERE / "published_runs.tar.xz", HERE / "published_grain.tar.xz")
KEPT = (CONFIG, ENVIRONMENT, ROUNDS, SUMMARY)


def unpack(out: Path, archives: Iterable[Path] = PUBLISHED) -> None:
    """All published runs and plans into OUT."""
    for archive in archives:
        with tarfile.open(archive) as file:
            file.extractall(out, filter="data")


def pack(out: Path, file: Path, experiments: Iterable[str]) -> int:
    """Write FILE; the number of runs in it. Raises KeyError for an unknown experiment."""
    known = {one.name: one for one in everything(Scale())}
    jobs = [job for name in experiments for job in known[name].jobs()]
    elsewhere = {name for archive in PUBLISHED if archive != file.resolve() for name in _folders(archive)}
    runs = {f"runs/{one.folder.name}" for one in found_only(jobs, out / "runs") if one.folder is not None} - elsewhere
    plans = {f"plans/{folder.name}" for folder in (out / "plans").glob("*") if folder.is_dir()} - elsewhere
    with tarfile.open(file, "w:xz", preset=9) as archive:
        for name in sorted(runs | plans):
            for path in sorted((out / name).iterdir()):
                if path.name in KEPT or name in plans:
                    _add(archive, f"{name}/{path.name}", path.read_bytes())
    return len(runs)


def _folders(archive: Path) -> set[str]:
    with tarfile.open(archive) as file:
        return {"/".join(member.name.split("/")[:2]) for member in file}


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    archive.addfile(member, io.BytesIO(data))


if __name__ == "__main__":
    print(f"{pack(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])} runs")
