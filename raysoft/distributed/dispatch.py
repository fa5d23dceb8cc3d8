"""Who runs what: hands calls to workers and decides what follows a fault. Knows no Ray.

A worker has one message at a time. A message holds several calls where they are short and many: its own cost, near a
millisecond, would otherwise be that of a call. Which calls travel together never touches a result.

Any worker can run any call and gives the same bytes, so whatever was lost is run again. When
clients have homes, a call for a pack waits for the home of the pack's first client. Workers that were lost with their
node, and that no other node has room for, are away: the others do their work until they are back.
"""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from raysoft.errors import RaysoftError
from raysoft.federation.liveness import ATTEMPTS
from raysoft.types import Pack

POLL_S = 1.0  # how often overdue calls are looked for
MOST_CALLS, MESSAGE_S = 8, 0.5  # a message: at most so many calls, and seconds of work as far as is known


class WorkerLost(Exception):  # noqa: N818 - a fault to be handled, not an error to be shown
    """A worker died, or gave no answer in time."""


class ResultLost(Exception):  # noqa: N818
    """A handle that a call needs is gone, e.g. with the node that held it."""


@dataclass(frozen=True)
class Call:
    """One stage on one request; `down` is the round's broadcast as the store knows it."""

    stage: str
    down: Any
    request: Any
    handles: tuple[Handle, ...] = ()

    @property
    def pack(self) -> Pack | None:
        """The pack it works on, or the first of several; None for an evaluation."""
        own = getattr(self.request, "pack", None)
        return own if own is not None or not self.handles else self.handles[0].call.pack

    def __str__(self) -> str:
        return self.stage if self.pack is None else f"{self.stage} of {self.pack}"


@dataclass(frozen=True)
class Handle:
    """What a call left in the store, the home of its clients, and how to make it again."""

    ref: Any
    home: int | None
    call: Call


class Crew(Protocol):
    """Workers, numbered from 0."""

    size: int

    def start(self, slot: int, calls: Sequence[Call]) -> tuple[Any, Sequence[Any]]:
        """Begin calls, one after the other; references to their common reply and to their handles."""
        ...

    def wait(self, replies: Sequence[Any], seconds: float) -> list[Any]:
        """Those that are there (or have failed), after at most `seconds`; returns as soon as there is one."""
        ...

    def fetch(self, slot: int, reply: Any) -> Sequence[Any]:
        """What each call replied. Raises WorkerLost, ResultLost, or the RaysoftError that ended the call."""
        ...

    def replace(self, slot: int) -> None:
        """Put a new worker in this place. Does not wait for it: its calls queue behind its start."""
        ...

    def without_room(self) -> set[int]:
        """Places whose node is lost, and for which no other has room now; a new worker starts when one has."""
        ...


@dataclass(frozen=True)
class _Job:
    """A message on its way: which calls, where their handles will be, and until when it is waited for."""

    items: list[int]
    made: Sequence[Any]
    slot: int
    began: float
    deadline: float


class _Waiting:
    """Calls that have not begun, in order, by the worker that is to run them (None: any)."""

    def __init__(self, homes: Iterable[int | None], workers: int) -> None:
        self._homes = list(homes)
        self._workers = workers
        self._alone: set[int] = set()
        self._queues: defaultdict[int | None, deque[int]] = defaultdict(deque)
        for item, home in enumerate(self._homes):
            self._queues[home].append(item)

    def take(self, slot: int, most: int, away: Iterable[int]) -> list[int]:
        """The next calls for this worker, at most `most` and half of its share, so that all end at about one time.

        Those of workers that are away are anybody's.
        """
        home = next((one for one in (slot, None, *away) if self._queues[one]), None)
        queue, workers = self._queues[home], 1 if home == slot else self._workers
        most = min(most, len(queue) // (2 * workers))
        items = [queue.popleft()] if queue else []
        while len(items) < most and self._alone.isdisjoint((items[0], queue[0])):
            items.append(queue.popleft())
        return items

    def first(self) -> int:
        """A call that waits; there must be one."""
        return min(queue[0] for queue in self._queues.values() if queue)

    def put_back(self, items: Sequence[int]) -> None:
        """Calls that have to be run again come first, and each by itself: one of them may be the culprit."""
        for item in reversed(items):
            self._alone.add(item)
            self._queues[self._homes[item]].appendleft(item)


@dataclass
class Dispatcher:
    """Maps calls over a crew. `home` gives the worker that is home to a pack, or None where any will do.

    `on_failure`: retry (up to ATTEMPTS times in all), drop_client (a `train` that was lost is not repeated; its reply
    is None) or abort. `timeout_s` bounds each message in wall-clock seconds, twice that on a worker that is starting.
    """

    crew: Crew
    on_failure: str
    timeout_s: float
    home: Callable[[Pack], int | None]
    clock: Callable[[], float] = time.monotonic
    notices: list[str] = field(default_factory=list)  # for people: what was replaced or dropped
    _starting: set[int] = field(default_factory=set)
    _seconds: dict[str, float] = field(default_factory=dict)  # what a call of this stage took last
    _away: set[int] = field(default_factory=set)

    def map(
        self, stage: str, down: Any, requests: Sequence[Any], handles: Sequence[tuple[Handle, ...]] | None = None
    ) -> list[tuple[Any, Handle | None]]:
        """Replies and handles in request order. Raises RaysoftError naming stage, round and clients."""
        before: Sequence[tuple[Handle, ...]] = handles or [()] * len(requests)
        calls = [Call(stage, down, request, made) for request, made in zip(requests, before, strict=True)]
        waiting = _Waiting((self._home(call) for call in calls), self.crew.size)
        idle = [slot for slot in range(self.crew.size) if slot not in self._away]
        attempts = [0] * len(calls)
        running: dict[Any, _Job] = {}
        results: dict[int, tuple[Any, Handle | None]] = {}
        stuck_at = self.clock() + self.timeout_s
        while len(results) < len(calls):
            idle += self._back()
            for slot in list(idle):
                if items := waiting.take(slot, self._most(stage), self._away):
                    idle.remove(slot)
                    reply, made = self.crew.start(slot, [calls[item] for item in items])
                    running[reply] = _Job(items, made, slot, self.clock(), self._deadline(slot))
            if running:
                stuck_at = self.clock() + self.timeout_s
            elif self.clock() > stuck_at:
                stuck = calls[waiting.first()]
                raise RaysoftError(f"{stuck}: no node has had room for a client actor {self._for_long()}")
            ready = self.crew.wait(list(running), POLL_S)
            for reply in ready or self._overdue(running):
                job = running.pop(reply)
                first = job.items[0]
                try:
                    if reply not in ready:
                        raise WorkerLost(self._too_long())
                    values = self.crew.fetch(job.slot, reply)
                except (WorkerLost, ResultLost) as fault:
                    single = len(job.items) == 1
                    attempts[first] += single  # of several calls nobody knows which one it was
                    if self._recover(job.slot, calls[first], attempts[first], fault):
                        if isinstance(fault, ResultLost) and single:
                            calls[first] = self._with_handles(job.slot, calls[first])
                        waiting.put_back(job.items)
                    else:
                        results[first] = (None, None)
                    # A worker that was just replaced is alive for certain, so it gets the call again: among several
                    # that died together, one call would otherwise use up its attempts.
                    idle.insert(0, job.slot)
                    if isinstance(fault, WorkerLost):
                        idle = self._without_the_lost(idle, job.slot)
                else:
                    self._starting.discard(job.slot)
                    self._seconds[stage] = (self.clock() - job.began) / len(job.items)
                    for item, value, made in zip(job.items, values, job.made, strict=True):
                        results[item] = (value, Handle(made, self._home(calls[item]), calls[item]))
                    idle.append(job.slot)
        return [results[item] for item in range(len(calls))]

    def _home(self, call: Call) -> int | None:
        """The worker that has to run a call; None: any."""
        if call.handles:
            return call.handles[0].home
        return None if call.pack is None else self.home(call.pack)

    def _most(self, stage: str) -> int:
        """How many calls a message may hold: one until it is known that they are short."""
        if stage not in self._seconds or (stage == "train" and self.on_failure == "drop_client"):
            return 1  # a lost message must not drop the clients of several packs
        budget_s = min(MESSAGE_S, self.timeout_s / 10)
        return int(min(MOST_CALLS, budget_s / max(self._seconds[stage], 1e-9)))

    def _deadline(self, slot: int) -> float:
        return self.clock() + self.timeout_s * (2 if slot in self._starting else 1)

    def _overdue(self, running: Mapping[Any, _Job]) -> list[Any]:
        now = self.clock()
        return [reply for reply, job in running.items() if now > job.deadline]

    def _too_long(self) -> str:
        return f"no answer {self._for_long()}"

    def _for_long(self) -> str:
        return f"within actors.timeout_s={self.timeout_s:g} seconds"

    def _without_the_lost(self, idle: Sequence[int], replaced: int) -> list[int]:
        """Idle workers but those whose node is gone: they are replaced before a call could meet them."""
        lost = self.crew.without_room()
        for slot in lost.intersection(idle) - {replaced}:
            self._replace(slot)
        self._away |= lost.intersection(idle)
        return [slot for slot in idle if slot not in lost]

    def _back(self) -> list[int]:
        """Workers that have found room since."""
        back = sorted(self._away - self.crew.without_room()) if self._away else []
        self._away.difference_update(back)
        return back

    def _recover(self, slot: int, call: Call, attempt: int, fault: Exception) -> bool:
        """Replace a lost worker. True: run the call again; False: drop the pack's clients."""
        what = f"{call}, client actor {slot}: {fault}"
        if self.on_failure == "abort":
            raise RaysoftError(f"{what} (actors.on_failure=abort)") from fault
        if isinstance(fault, WorkerLost):
            self._replace(slot)
        if self.on_failure == "drop_client" and call.stage == "train":
            self.notices.append(f"{what}; its clients are dropped from this round")
            return False
        if attempt >= ATTEMPTS:
            raise RaysoftError(f"{what}, {ATTEMPTS} times in a row") from fault
        self.notices.append(f"{what}; run again, with the same result")
        return True

    def _replace(self, slot: int) -> None:
        self.crew.replace(slot)
        self._starting.add(slot)

    def _with_handles(self, slot: int, call: Call) -> Call:
        """A call whose handles were made again: which of them is lost is not known."""
        return replace(call, handles=tuple(self._remake(slot, handle) for handle in call.handles))

    def _remake(self, slot: int, handle: Handle) -> Handle:
        """A lost handle once more, from the call that made it."""
        call = handle.call
        for _ in range(ATTEMPTS):
            reply, made = self.crew.start(slot, [call])
            try:
                if not self.crew.wait([reply], self._deadline(slot) - self.clock()):
                    raise WorkerLost(self._too_long())
                self.crew.fetch(slot, reply)
            except WorkerLost:
                self._replace(slot)
                self._without_the_lost([slot], slot)
                slot = next((one for one in range(self.crew.size) if one not in self._away), slot)
            except ResultLost:
                call = self._with_handles(slot, call)
            else:
                self._starting.discard(slot)
                return replace(handle, ref=made[0], call=call)
        raise RaysoftError(f"{call}: its result was lost and could not be made again")
