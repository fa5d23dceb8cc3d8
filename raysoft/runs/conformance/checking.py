"""`raysoft check ./mine.py`: the promises of a kind, one after the other, and a run of seconds at the end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from raysoft.federation.clock.rounds import run_round
from raysoft.federation.coordinator import build_parts
from raysoft.federation.executor import InlineExecutor
from raysoft.federation.parts import first_state
from raysoft.federation.workload import with_pack_size
from raysoft.runs.conformance import codecs, methods, radio
from raysoft.runs.conformance.subject import Broken, Check, Subject, raises, same

ROUNDS = 2


def runs(subject: Subject) -> None:
    """a run of two rounds goes through, and a second one gives the same model"""
    config = subject.config
    executor = InlineExecutor(config)
    info = executor.start()
    found = []
    for _ in range(2):
        parts = build_parts(with_pack_size(config, info), info, executor)
        state = first_state(parts)
        for tick in range(1, ROUNDS + 1):
            state, _ = run_round(parts, state, tick)
        found.append(state.server)
    if not same(*found):
        raise Broken("the second run ends with another model")


CHECKS: dict[str, tuple[Check, ...]] = {
    "method": (*methods.CHECKS, runs),
    "extra": (*methods.CHECKS, runs),
    "codec": (*codecs.CHECKS, runs),
    "allocator": (*radio.ALLOCATORS, runs),
    "uplink": (*radio.UPLINKS, runs),
    "channel": (*radio.CHANNELS, runs),
}


@dataclass(frozen=True)
class Finding:
    """A promise, and what is wrong with it on one line; None: it is kept."""

    promise: str
    fault: str | None


def findings(kind: str, name: str, words: Sequence[str] = ()) -> Iterator[Finding]:
    """Hold a plug-in (a short name or a file) to what its kind promises, in the smallest run that it goes with.

    `words`: settings of that run, for options without a default. Raises ConfigError where it cannot be loaded or set.
    """
    subject = Subject.of(kind, name, words)
    for check in CHECKS[kind]:
        yield Finding((check.__doc__ or "").strip(), raises(check, subject))
