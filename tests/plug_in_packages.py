"""Plug-ins as other people's packages are: a module with an entry point, on a path that processes inherit."""

from pathlib import Path


def make_package(site: Path, kind: str, name: str, source: str) -> Path:
    """Write module `name` and its metadata into `site`, as an installation would; `kind`: e.g. channels."""
    info = site / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (site / f"{name}.py").write_text(source)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[raysoft.{kind}]\n{name} = {name}\n")
    return site
