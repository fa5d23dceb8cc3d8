"""`actors.portable`: its switches, its refusals, and square roots that every processor rounds alike."""

import os
import subprocess
import sys

import pytest

from raysoft.comparison.batch import Job, run_batch
from raysoft.config.presets import load_config
from raysoft.errors import ConfigError
from raysoft.kernels import portable
from raysoft.runs.run import run

ROOTS = """
import numpy as np, torch
from raysoft.models.runtime import prepare
prepare("cpu", 1)
values = np.random.default_rng(0).random(4001) ** 4
for one in (values, values.astype(np.float32)):
    tensor = torch.from_numpy(one)
    found = [tensor.sqrt(), torch.sqrt(tensor), tensor.clone().sqrt_(), torch._foreach_sqrt([tensor])[0]]
    assert all(np.array_equal(value.numpy(), np.sqrt(one)) for value in found)
optimized = torch.nn.Parameter(torch.ones(3))
optimized.sqrt().sum().backward()
assert optimized.grad.tolist() == [0.5] * 3
print(torch.backends.cpu.get_cpu_capability())
"""


def test_roots_are_exact_in_a_portable_process_and_gradients_still_flow():
    environment = {**os.environ, **portable.SETTINGS}
    done = subprocess.run([sys.executable, "-c", ROOTS], env=environment, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout.strip()) == (0, "DEFAULT"), done.stderr


def test_a_process_without_the_switches_is_refused_before_anything_is_written(tmp_path):
    config = load_config("soft", ["actors.portable=true", "executor=inline"])
    with pytest.raises(portable.NotPortableError, match=r"^actors\.portable: .*ATEN_CPU_CAPABILITY='default'"):
        run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_other_machines_are_refused(monkeypatch):
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    with pytest.raises(ConfigError, match="x86-64"):
        portable.require(True)
    portable.require(False)


def test_a_batch_is_portable_as_a_whole_or_not_at_all(tmp_path):
    jobs = [Job(str(value), load_config("soft", [f"actors.portable={value}"])) for value in ("true", "false")]
    with pytest.raises(ConfigError, match="the same for all"):
        run_batch(jobs, tmp_path)


def test_the_hash_knows_and_older_runs_are_found():
    plain, other = load_config("soft"), load_config("soft", ["actors.portable=true"])
    assert plain.config_hash() != other.config_hash()
    assert "portable" not in plain.result_keys()["actors"]


def test_the_command_starts_itself_anew(tmp_path):
    command = [
        sys.executable,
        "-m",
        "raysoft",
        "run",
        "soft",
        "rounds=0",
        "executor=inline",
        "actors.portable=true",
        "data.max_test_samples=20",
        "metrics.clients=false",
        "--out",
        str(tmp_path / "run"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "adapter").is_dir()
