"""Signs of life of trials: Tune waits without end for a process that hangs, so the driver listens for itself.

They go through the key-value store of Ray's head, which every node of a cluster reaches.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.experimental.internal_kv import _internal_kv_get, _internal_kv_put

from raysoft.federation.liveness import BEAT_S, Steps, Vitals

NAMESPACE = b"raysoft"


def give_sign(trial: str) -> None:
    """In the process of a trial, every second."""
    _internal_kv_put(trial, f"{time.monotonic()} {Steps.done}", overwrite=True, namespace=NAMESPACE)


@dataclass
class _Heard:
    """Of one process: its last sign; that of an earlier process counts for nothing."""

    sign: bytes | None
    vitals: Vitals = field(default_factory=Vitals)

    def hear(self, sign: bytes | None) -> None:
        if sign is not None and sign != self.sign:
            self.sign = sign
            self.vitals.heard(int(sign.split()[1]))


class Listener:
    """In the driver: ends the processes of trials that are silent for too long. Tune then begins them again."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._trials: dict[str, _Heard] = {}
        self._looked = time.monotonic()

    def listen(self, trials: list[Any]) -> dict[str, str]:
        """Look at the running trials, once a second at most; those whose process was ended, and why."""
        if time.monotonic() - self._looked < BEAT_S:
            return {}
        self._looked = time.monotonic()
        running = {str(trial): trial for trial in trials if trial.status == "RUNNING"}
        self._trials = {name: heard for name, heard in self._trials.items() if name in running}
        ended = {}
        for name, trial in running.items():
            sign = _internal_kv_get(name, namespace=NAMESPACE)
            if name not in self._trials:
                self._trials[name] = _Heard(sign)
                self._trials[name].vitals.begin(self._timeout_s)
            heard = self._trials[name]
            heard.hear(sign)
            verdict = heard.vitals.verdict()
            if verdict is not None:
                ray.kill(trial.temporary_state.ray_actor)
                del self._trials[name]
                ended[name] = verdict
        return ended
