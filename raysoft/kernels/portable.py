"""The same bytes on unlike processors: `actors.portable: true`.

Numerical libraries pick their kernels by the processor, and kernels differ in the last bits. Their switches hold every
library to one path; they are read when the libraries load, so a process must start with them set, and the command line
starts itself anew. One function obeys no switch: MKL's vector square root, which PyTorch calls and which is rounded
correctly on some processors and not on others. `raysoft.models.runtime` puts the exact one in its place.

Checked on emulated processors of two makers against a third one: trained values and the first steps of the embedded
base's pretraining agree in every bit. Needs an x86-64 processor with AVX2 (OpenBLAS's Haswell kernels) and equal
versions of the libraries. A round takes about twice the time.
"""

from __future__ import annotations

import os
import platform
import sys
from typing import NoReturn

from raysoft.errors import ConfigError

SETTINGS = {
    "ATEN_CPU_CAPABILITY": "default",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
    "MKL_CBWR": "COMPATIBLE",
    "OPENBLAS_CORETYPE": "Haswell",
    "NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL AVX512_SPR",
}
FIELD = "actors.portable"


class NotPortableError(ConfigError):
    """The run is to be portable and this process did not start as such; a command can start itself anew."""


def active() -> bool:
    """Whether this process has the switches."""
    return all(os.environ.get(name) == value for name, value in SETTINGS.items())


def require(portable: bool) -> None:
    """Raise NotPortableError where a portable run would begin in a process that is not, ConfigError where it cannot."""
    if not portable or active():
        return
    if platform.machine().lower() not in ("x86_64", "amd64"):
        raise ConfigError(FIELD, f"is true, which needs an x86-64 processor, and this is {platform.machine()}")
    switches = " ".join(f"{name}='{value}'" for name, value in SETTINGS.items())
    raise NotPortableError(
        FIELD, f"is true, but this Python started without the switches; start it with `env {switches} python ...`"
    )


def restart() -> NoReturn:
    """This command again, in this process's place, with the switches set."""
    os.environ.update(SETTINGS)
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606


def actor_environment(portable: bool) -> dict[str, object]:
    """Options of a Ray actor that give its process the switches, on whatever node it is."""
    return {"runtime_env": {"env_vars": dict(SETTINGS)}} if portable else {}
