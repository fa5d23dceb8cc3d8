"""What allocators, uplinks and channels promise: plans within band and menus, finite outcomes, keyed gains."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from raysoft.allocation.base import AllocationContext, Allocator
from raysoft.config import registry
from raysoft.federation.seam import check_cohort, check_outcome, check_plan, check_received
from raysoft.rng import Rng
from raysoft.runs.conformance.subject import Broken, Check, Subject, frozen, same, space_of, unchanged, values_of
from raysoft.types import Allocation, Array, ChannelState, ClientReport, Curve, Folded, Outcome, Participants
from raysoft.wireless.base import gains
from raysoft.wireless.link import Link

IDS = np.array([2, 3, 5, 11, 17, 19])
UNITS, BITS, POWER_W = 8, 4000, 0.1
FAR = 0.0  # a power gain at which nobody is heard


def _link(subject: Subject) -> Link:
    return Link.from_config(registry.options("channel", subject.config.channel))


def _report(client: int, which: int) -> ClientReport:
    """Of a client; `which`: size and shape of its update."""
    steps = np.arange(UNITS + 1)
    error_J = (1.0 + which) * (1 - steps / UNITS) ** (1.5 + 0.25 * which)
    curve = Curve(64, steps * (BITS // UNITS), error_J)
    return ClientReport(client, 10, 4, 1.0, 1e8, 0, 32 * BITS, curve, update_norm=1.0 + which)


def _round(which_K: Array, out: tuple[int, ...] = ()) -> tuple[tuple[ClientReport, ...], Participants]:
    """A round: `which_K` says what each client is like; those of `out` (places) have no channel."""
    gain_K = 1e-12 * 1.7**which_K
    gain_K[list(out)] = FAR
    seconds_K = 0.05 + 0.01 * which_K
    power_K = np.full(len(IDS), POWER_W)
    reports = tuple(_report(int(one), int(kind)) for one, kind in zip(IDS, which_K, strict=True))
    weights_K = np.full(len(IDS), 1 / len(IDS))
    channel = ChannelState(gain_K, gain_K.copy())
    return reports, Participants(IDS, weights_K, seconds_K, 0.01 * seconds_K, 0.002, power_K, channel)


EACH_ANOTHER = np.arange(len(IDS))
ROUNDS: tuple[tuple[Array, tuple[int, ...]], ...] = (  # what the clients are like, and who has no channel
    (EACH_ANOTHER, ()),
    (EACH_ANOTHER[::-1].copy(), ()),
    (np.zeros(len(IDS), int), ()),
    (EACH_ANOTHER, (1, 4)),
    (EACH_ANOTHER, tuple(range(len(IDS)))),
)


# ---------------------------------------------------------------------------------------------------------- allocators


def _allocator(subject: Subject) -> Allocator:
    found: Allocator = subject.build(AllocationContext(_link(subject), 0.4, 0.05, 1.0))
    return found


def _band_hz(subject: Subject) -> float:
    return _link(subject).bandwidth_hz if subject.options.traits.needs_channel else float("inf")


def _as_planned(plan: Allocation) -> Outcome:
    active_K = np.asarray(plan.active_K, dtype=bool)
    reason_K = tuple(np.where(active_K, "", "outage").tolist())
    return Outcome(active_K, np.where(active_K, plan.latency_s_K, 0.0), np.zeros(len(IDS)), reason_K, plan.round_s)


def _plans(subject: Subject, seed: int = 0) -> Iterator[tuple[str, Allocation, tuple[ClientReport, ...], Participants]]:
    """Of some rounds in a row: ordinary ones, two clients without a channel, nobody with one."""
    allocator, rng = _allocator(subject), Rng(seed)
    state = allocator.init()
    for tick, (which_K, out) in enumerate(ROUNDS, start=1):
        reports, who = _round(which_K, out)
        plan = allocator.allocate(reports, who, state, tick, rng)
        yield f"{len(out)} of {len(IDS)} without a channel" if out else f"round {tick}", plan, reports, who
        state = allocator.observe(plan, _as_planned(plan), state)


def cohorts_are_of_candidates(subject: Subject) -> None:
    """a cohort is of candidates, each once, by client id"""
    allocator = _allocator(subject)
    _, who = _round(EACH_ANOTHER)
    check_cohort(subject.config, 1, allocator.select(IDS, who.channel, allocator.init(), 1, Rng(0)), IDS)


def plans_keep_band_and_menus(subject: Subject) -> None:
    """a plan keeps to the band and to the menus, also where clients have no channel"""
    for what, plan, reports, _ in _plans(subject):
        try:
            check_plan(subject.config, 1, plan, reports, _band_hz(subject))
        except Exception as error:
            raise Broken(f"{what}: {error}") from error


def outages_are_seen(subject: Subject) -> None:
    """who has no channel is not told to send"""
    if not subject.options.traits.needs_channel:
        return
    for what, plan, _, who in _plans(subject):
        lost_K = (who.channel.reported_gain_K == FAR) & np.asarray(plan.active_K, dtype=bool)
        if lost_K.any():
            raise Broken(f"{what}: client {IDS[lost_K.argmax()]} has no gain at all and is told to send")


def plans_follow_the_clients(subject: Subject) -> None:
    """permuted clients get permuted plans (where nothing is drawn)"""
    drawn = zip(_plans(subject, 0), _plans(subject, 1), strict=True)
    if not all(same(one[1], two[1]) for one, two in drawn):
        return
    plans = []
    for which_K in (EACH_ANOTHER, EACH_ANOTHER[::-1].copy()):
        allocator = _allocator(subject)
        plans.append(allocator.allocate(*_round(which_K), allocator.init(), 1, Rng(0)))
    for name in ("active_K", "units_K", "bandwidth_hz_K", "latency_s_K"):
        one, two = (np.asarray(getattr(plan, name), dtype=float) for plan in plans)
        if not np.allclose(one[::-1], two, rtol=1e-6, atol=1e-9, equal_nan=True):
            raise Broken(f"{name} is {one[::-1].tolist()} for clients that were turned round, and then {two.tolist()}")


def allocators_are_pure(subject: Subject) -> None:
    """pure: the same plan twice, from another instance too; state and reports stay as they are"""
    allocator = _allocator(subject)
    reports, who = _round(EACH_ANOTHER)
    state = allocator.init()
    given = {f"curve of {one.client}": one.curve.error_J for one in reports}
    given |= {"gains": who.channel.reported_gain_K, "compute_s_K": who.compute_s_K, "weights_K": who.weights_K}
    before, states = frozen(given), frozen(state)
    plans = [one.allocate(reports, who, state, 1, Rng(0)) for one in (allocator, allocator, _allocator(subject))]
    if not (same(plans[0], plans[1]) and same(plans[0], plans[2])):
        raise Broken("gives another plan the second time")
    after = [allocator.observe(plans[0], _as_planned(plans[0]), state) for _ in range(2)]
    if not same(*after):
        raise Broken("remembers something else the second time")
    unchanged("reports", before, given)
    unchanged("state", states, state)
    if strange := [name for name, value in after[0].items() if not isinstance(value, np.ndarray)]:
        raise Broken(f"its state holds {strange[0]}, which is no array")


# ------------------------------------------------------------------------------------------------------------- uplinks


def _delivered(subject: Subject) -> Iterator[tuple[str, Outcome, Allocation, Participants]]:
    """Plans of equal shares: everybody, some told not to send, nobody, some without a channel; gains known and not."""
    link, rng = _link(subject), Rng(0)
    uplink = subject.build(link)
    some_K = np.isin(np.arange(len(IDS)), (0, 3))
    for what, silent_K, out in (
        ("everybody sends", np.zeros_like(some_K), ()),
        ("two are told not to send", some_K, ()),
        ("nobody is told to send", np.ones_like(some_K), ()),
        ("two send without a channel", np.zeros_like(some_K), (1, 4)),
    ):
        for wrong in (1.0, 0.5):
            _, who = _round(EACH_ANOTHER, out)
            channel = ChannelState(who.channel.gain_K, who.channel.gain_K / wrong)
            who = replace(who, channel=channel)
            active_K = ~silent_K
            plan = Allocation(
                clients_K=IDS,
                active_K=active_K,
                units_K=np.where(active_K, UNITS, 0),
                bandwidth_hz_K=np.where(active_K, link.bandwidth_hz / len(IDS), 0.0),
                power_w_K=who.power_w_K,
                latency_s_K=np.full(len(IDS), 0.5),
                round_s=0.5,
                control_bits_K=np.full(len(IDS), 48),
            )
            bits_K = np.where(active_K, float(BITS), 0.0)
            name = what if wrong == 1.0 else f"{what}, gains are half of what was reported"
            yield name, uplink.deliver(plan, bits_K, who, 1, rng), plan, who


def outcomes_are_finite(subject: Subject) -> None:
    """outcomes are finite and not negative, and nobody arrives who was told not to send"""
    for what, outcome, plan, who in _delivered(subject):
        try:
            check_outcome(subject.config, 1, outcome, plan, who)
        except Exception as error:
            raise Broken(f"{what}: {error}") from error


def losses_have_reasons(subject: Subject) -> None:
    """who does not arrive has a reason, and who arrives has none"""
    for what, outcome, _, _ in _delivered(subject):
        for client, arrived, reason in zip(IDS, outcome.arrived_K, outcome.reason_K, strict=True):
            if bool(arrived) != (reason == ""):
                raise Broken(
                    f"{what}: client {client} has {'arrived' if arrived else 'not arrived'}, reason {reason!r}"
                )


def receives_what_was_summed(subject: Subject) -> None:
    """receive keeps names and shapes, and gives finite values"""
    uplink = subject.build(_link(subject))
    values = {name: value.astype(np.float64) for name, value in values_of(space_of(), 4, 4).items()}
    support = {name: np.abs(value) > 0.05 for name, value in values.items()} if subject.options.traits.analog else None
    before = frozen(values)
    for what, outcome, _, _ in _delivered(subject):
        after = uplink.receive(Folded(values, support), outcome, 1, Rng(0))
        try:
            check_received(subject.config, 1, values, after)
        except Exception as error:
            raise Broken(f"{what}: {error}") from error
        if not same(after, uplink.receive(Folded(values, support), outcome, 1, Rng(0))):
            raise Broken(f"{what}: receives something else the second time")
        unchanged("sums", before, values)


def uplinks_are_pure(subject: Subject) -> None:
    """pure: the same outcome twice, from another instance too"""
    for (what, one, _, _), (_, two, _, _) in zip(_delivered(subject), _delivered(subject), strict=True):
        if not same(one, two):
            raise Broken(f"{what}: gives another outcome the second time")


# ------------------------------------------------------------------------------------------------------------ channels

CLIENTS, BLOCKS = np.array([0, 1, 2, 3, 7, 50, 999_999]), (1, 2, 3, 60)


def gains_are_gains(subject: Subject) -> None:
    """gains are finite and not negative, one a client, of any client id and block"""
    channel = subject.build(Rng(0))
    for block in BLOCKS:
        gains(channel, CLIENTS, block)
    if not any(gains(channel, CLIENTS, block).gain_K.any() for block in BLOCKS):
        raise Broken("gives no client any gain")


def gains_are_keyed(subject: Subject) -> None:
    """a gain is a function of (seed, client, block) alone: whatever the company, the order and what was asked before"""
    channel = subject.build(Rng(0))
    whole = {block: gains(channel, CLIENTS, block) for block in BLOCKS}
    again = subject.build(Rng(0))
    for block in reversed(BLOCKS):
        for name in ("gain_K", "reported_gain_K"):
            known = getattr(whole[block], name)
            if not same(getattr(gains(channel, CLIENTS, block), name), known):
                raise Broken(f"block {block}: gives another {name} the second time")
            turned = getattr(gains(again, CLIENTS[::-1], block), name)[::-1]
            if not np.array_equal(turned, known):
                raise Broken(f"block {block}: {name} depends on the order of the clients, or on what was asked before")
            for at, client in enumerate(CLIENTS):
                alone = getattr(gains(again, np.array([client]), block), name)
                if alone[0] != known[at]:
                    raise Broken(
                        f"block {block}, client {client}: {name} is {known[at]:.6g} in company and {alone[0]:.6g} alone"
                    )


def it_describes_itself(subject: Subject) -> None:
    """describe, where there is one, gives rows of names and values"""
    describe = getattr(subject.options, "describe", None)
    for row in describe() if describe is not None else ():
        if len(row) != 2 or not all(isinstance(cell, str) for cell in row):
            raise Broken(f"describe gives {row!r:.80}, not a name and a value as text")


ALLOCATORS: tuple[Check, ...] = (
    cohorts_are_of_candidates,
    plans_keep_band_and_menus,
    outages_are_seen,
    plans_follow_the_clients,
    allocators_are_pure,
)
UPLINKS: tuple[Check, ...] = (outcomes_are_finite, losses_have_reasons, receives_what_was_summed, uplinks_are_pure)
CHANNELS: tuple[Check, ...] = (gains_are_gains, gains_are_keyed, it_describes_itself)
