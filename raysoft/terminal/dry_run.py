"""What `raysoft run --dry-run` prints: what would be trained, on what, and at what cost."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from raysoft.config import RunConfig
from raysoft.errors import ConfigError
from raysoft.federation.preflight import said
from raysoft.quantities import amount, percent
from raysoft.runs.rehearsal import Rehearsal, rehearse, why_not
from raysoft.terminal.console import Console, aligned, plugins, say

Rows = list[tuple[str, str]]
_SIZES = (("TB", 8e12), ("GB", 8e9), ("MB", 8e6), ("kB", 8e3), ("bytes", 8.0))  # in bits


def print_plan(
    console: Console, config: RunConfig, folder: Path | str, *, overwrite: bool = False, given: bool = True
) -> None:
    """What a run would do, without doing it. A folder in the way is refused where it was `given`, else only noted."""
    from raysoft.rundir.remote import check_free
    from raysoft.runs.inputs import check_inputs, check_tight_budget
    from raysoft.runs.radio import radio_of

    taken = ""
    try:
        check_free(folder, "--out", overwrite)
    except ConfigError as error:
        if given:
            raise
        taken = error.message
    check_inputs(config, download=False)
    actors: Rows = []
    if config.executor == "ray":
        from raysoft.distributed.resources import plan_actors

        plan = plan_actors(config)
        actors.append(("actors", f"{plan.actors} x {plan.cpus_per_actor:g} cores"))
    reason = why_not(config)
    if reason:
        check_tight_budget(config)
        rows = _announced(config)
        costs = [("costs", f"not estimated: {reason}")]
    else:
        found = rehearse(config)
        rows = _trained(found)
        costs = _costs(config, found)
    rows = [("folder", str(folder)), *rows, ("method", plugins(config)), ("rounds", _rounds(config)), *actors]
    say(console, aligned([*rows, *costs, ("config hash", config.config_hash())]), indent=13)
    console.print()
    say(console, aligned(radio_of(config)), indent=38)
    console.print()
    console.print("The settings are valid and their files are there; nothing was run.")
    if taken:
        say(console, f"Without --out, --name or --overwrite the run itself would be refused: {taken}")


def _announced(config: RunConfig) -> Rows:
    """What is known before model and data are read."""
    clients = "a client a group" if config.data.partition == "natural" else f"{config.data.clients} clients"
    return [
        ("model", f"{config.model.name}, LoRA rank {config.model.lora.rank}"),
        ("data", f"{config.data.task}, {clients}, {config.data.partition} partition"),
    ]


def _rounds(config: RunConfig) -> str:
    steps = config.train.steps
    text = steps if isinstance(steps, int) else f"{steps.low} to {steps.high}"
    return f"{config.rounds} of {config.cohort.size} clients x {text} steps, seed {config.seed}"


def _trained(found: Rehearsal) -> Rows:
    """Model, adapted matrices, data, and how many samples clients have."""
    rows: Rows = []
    for name, text in found.info.description.items():
        more = ""
        if name == "trained" and found.info.space.pairs:
            more = f" ({', '.join(dict.fromkeys(pair.module.rpartition('.')[2] for pair in found.info.space.pairs))})"
        if name == "clients":
            more = f"; {_spread(found.samples_K)}"
        rows.append((name, text + more))
    return rows


def _spread(samples_K: Sequence[int]) -> str:
    least, quarter, middle, three, most = (int(one) for one in np.quantile(samples_K, [0, 0.25, 0.5, 0.75, 1]))
    if least == most:
        return f"{least} samples each"
    return f"{least} to {most} samples each, median {middle}, half of them {quarter} to {three}"


def _costs(config: RunConfig, found: Rehearsal) -> Rows:
    ahead, rounds = found.prospect, config.rounds
    share = percent(ahead.sent_bits / ahead.dense_bits if ahead.dense_bits else None)
    clients = f"{found.timed_clients} client{'s' * (found.timed_clients > 1)}"
    at_once = f"{found.at_once} process{'es' * (found.at_once > 1)}"
    trained = f"{clients} trained, encoded and summed for a round in {amount(found.timed_s, 's', 2)}"
    simulated = f"{plain(rounds * ahead.round_s, 's')} and {plain(rounds * ahead.energy_j, 'J')} simulated"
    return [
        ("up", f"{size(ahead.sent_bits)} a client and round expected, {share} of the dense {size(ahead.dense_bits)}"),
        ("", f"{size(ahead.least_bits)} at least, {size(ahead.whole_bits)} for everything"),
        ("down", f"{size(ahead.downlink_bits)} a client and round"),
        (
            "a round",
            f"{plain(ahead.round_s, 's')} and {plain(ahead.energy_j, 'J')} simulated, "
            f"{percent(ahead.senders)} of the cohort send",
        ),
        ("all rounds", f"{simulated}, {size(rounds * config.cohort.size * ahead.senders * ahead.sent_bits)} up"),
        ("", f"({_looked_at(ahead.ticks)}, with updates of the clients that were timed)"),
        ("wall time", f"about {duration(found.wall_s)}, besides start and loading"),
        ("memory", f"about {size(8 * found.memory_bytes)}"),
        ("", f"(measured here: {trained}, then evaluation; the run has {at_once} at once)"),
    ]


def _looked_at(ticks: Sequence[int]) -> str:
    """
    >>> _looked_at(range(1, 65)), _looked_at([1]), _looked_at([1, 50, 100])  # doctest: +ELLIPSIS
    ('the first 64 cohorts and their channels', 'the first cohort and its channel', 'cohorts and channels of 3 ... 100')
    """
    if len(ticks) < ticks[-1]:
        return f"cohorts and channels of {said(ticks)}"
    return (
        f"the first {len(ticks)} cohorts and their channels" if len(ticks) > 1 else "the first cohort and its channel"
    )


def size(bits: float) -> str:
    """Bits in bytes, with the unit that suits.

    >>> size(524288), size(8e9), size(80)
    ('65.5 kB', '1 GB', '10 bytes')
    """
    unit, one = next(((unit, one) for unit, one in _SIZES if bits >= one), _SIZES[-1])
    return amount(bits / one, unit, 3)


def plain(value: float, unit: str) -> str:
    """Three figures, or whole where there are more.

    >>> plain(0.30129, "s"), plain(12345.6, "J")
    ('0.301 s', '12,346 J')
    """
    return f"{value:,.0f} {unit}" if 999.5 <= value < 1e9 else amount(value, unit, 3)


def duration(seconds: float) -> str:
    """Seconds as a person says them.

    >>> duration(0.42), duration(112.4), duration(600), duration(90000)
    ('0.42 s', '112 s', '10 min', '25 h')
    """
    for unit, one in (("h", 3600.0), ("min", 60.0)):
        if seconds >= 3 * one:
            return plain(float(f"{seconds / one:.2g}"), unit)
    return amount(seconds, "s", 3 if seconds >= 99.5 else 2)
