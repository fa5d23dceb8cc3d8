"""The plug-in of docs/plugins.md, installed by an entry point as its author would."""

import os
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

from tests.conftest import SMALL_RUN, records
from tests.plug_in_packages import make_package

ROOT = Path(__file__).parents[2]


def test_the_channel_of_the_docs_runs_by_its_name(tmp_path):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs/plugins.md").read_text(), flags=re.S)
    package = make_package(tmp_path / "site", "channels", "corridor", blocks[0])
    environment = {**os.environ, "PYTHONPATH": str(package)}

    def raysoft(*words):
        return subprocess.run(
            [sys.executable, "-m", "raysoft", *words],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )

    assert "corridor" in raysoft("list").stdout
    channel = ["channel.name=corridor", "channel.reference_gain=1e-4"]
    done = raysoft("run", "soft", *SMALL_RUN, *channel, "--executor", "inline", "--out", str(tmp_path / "run"))
    assert done.returncode == 0, done.stderr
    report = raysoft("report", str(tmp_path / "run")).stdout.strip()
    assert "Distance on the line" in Path(report).read_text()
    assert "uniform over the area" not in Path(report).read_text()
    gains = records(tmp_path / "run")[1]["metrics"]["clients"]["gain_db"]
    assert all(-90 < gain < -70 for gain in gains), "1e-4 / (35..250 m)^2 is -70.9 to -88 dB"
    assert raysoft("run", "soft", "channel.name=corridr", "--dry-run").returncode == 2


def test_what_the_docs_list_for_plug_ins_is_there():
    """Modules and names of the table stay where they are: packages of other people import them."""
    text = (ROOT / "docs/plugins.md").read_text().partition("| from | what |\n|---|---|\n")[2].partition("\n\n")[0]
    found = 0
    for line in text.splitlines():
        modules, names = (re.findall(r"`([^`]+)`", cell) for cell in line.strip("|").split("|"))
        first = modules[0].rpartition(".")[0].split(".")[0]
        for module in modules:
            home = import_module(module if module.startswith(first) else first + module)
            for name in names:
                if len(modules) == 1:
                    assert hasattr(home, name), (module, name)
                    found += 1
    assert found > 15
