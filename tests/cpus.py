"""The numerical tests under other instruction sets on this machine: `make test-cpus`.

A processor shows in the last bits through the kernels that the libraries pick for it. Their switches let one machine
pick another's kernels: ATen's vector width, oneDNN's instruction set, OpenBLAS's kernels, MKL's code path (on
processors that are not Intel's, MKL obeys COMPATIBLE only), numpy's dispatch, and the number of threads. Tests marked
`numerics` must pass under all of them. Every setting runs but the one that this processor has anyway, under which
`make test` runs them; the command fails in the end if one failed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time

from raysoft.rundir.environment import environment
from tests.conftest import NUMERICS

# Named, so that no other module is imported for each setting.
MODULES = [f"tests/unit/{name}.py" for name in sorted(NUMERICS)]
WITHOUT_AVX512 = "X86_V4 AVX512_ICL AVX512_SPR"
SETTINGS: dict[str, dict[str, str]] = {
    "two threads": {"OMP_NUM_THREADS": "2"},
    "no vectors": {
        "ATEN_CPU_CAPABILITY": "default",
        "ONEDNN_MAX_CPU_ISA": "SSE41",
        "OPENBLAS_CORETYPE": "Nehalem",
        "MKL_CBWR": "COMPATIBLE",
        "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
        "NPY_DISABLE_CPU_FEATURES": f"X86_V3 {WITHOUT_AVX512}",
    },
    "AVX2": {
        "ATEN_CPU_CAPABILITY": "avx2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "OPENBLAS_CORETYPE": "Haswell",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
        "NPY_DISABLE_CPU_FEATURES": WITHOUT_AVX512,
    },
    "AVX2, Zen, MKL compatible": {
        "ATEN_CPU_CAPABILITY": "avx2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "OPENBLAS_CORETYPE": "Zen",
        "MKL_CBWR": "COMPATIBLE",
        "NPY_DISABLE_CPU_FEATURES": WITHOUT_AVX512,
    },
    "AVX512": {"ATEN_CPU_CAPABILITY": "avx512", "ONEDNN_MAX_CPU_ISA": "AVX512_CORE", "OPENBLAS_CORETYPE": "SkylakeX"},
}


def left_out() -> dict[str, str]:
    """Settings that need not or cannot run on this processor, and why."""
    import torch

    if torch.backends.cpu.get_cpu_capability() == "AVX512":
        return {"AVX512": "this processor's own, as in make test"}
    own = "AVX2, Zen, MKL compatible" if environment()["cpu"].startswith("AMD") else "AVX2"
    return {"AVX512": "not on this processor", own: "this processor's own, as in make test"}


def main(arguments: list[str]) -> int:
    failed = []
    spared = left_out()
    for name, settings in SETTINGS.items():
        if name in spared:
            print(f"== {name}: {spared[name]}", flush=True)
            continue
        print(f"== {name}: {' '.join(f'{key}={value!r}' for key, value in settings.items())}", flush=True)
        started = time.monotonic()
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-m",
            "numerics and not slow",
            *MODULES,
            "-n",
            "2",
            "--dist",
            "worksteal",
            "-p",
            "no:cacheprovider",
            *arguments,
        ]
        code = subprocess.run(command, env={**os.environ, **settings}).returncode
        print(f"== {name}: {'passed' if code == 0 else 'FAILED'} after {time.monotonic() - started:.0f} s", flush=True)
        if code:
            failed.append(name)
    print(f"failed under: {', '.join(failed)}" if failed else "the numerical tests pass under every setting")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
