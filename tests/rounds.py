"""A few rounds of a small run in this process, for tests that look at its states."""

from raysoft.config.presets import load_config
from raysoft.federation.clock.rounds import run_round
from raysoft.federation.coordinator import build_parts
from raysoft.federation.executor import InlineExecutor
from raysoft.federation.parts import first_state
from raysoft.federation.workload import with_pack_size

SMALL = ("data.clients=6", "cohort.size=3", "train.steps=2", "eval.every=100", "metrics.clients=false", "rounds=4")


def rounds_of(preset, *words, count=4):
    """Server states before the first round and after each, and the records."""
    config = load_config(preset, [*SMALL, *words])
    executor = InlineExecutor(config)
    info = executor.start()
    parts = build_parts(with_pack_size(config, info), info, executor)
    states, records = [first_state(parts)], []
    for tick in range(1, count + 1):
        state, record = run_round(parts, states[-1], tick)
        states.append(state)
        records.append(record)
    return parts, states, records
