"""Who runs what: hands calls to workers and decides what follows a fault. Knows no Ray.

A worker has one message at a time. A message holds several calls where they are short and many: its own cost, near a
millisecond, would otherwise be that of a call. Which calls travel together never touches a result.

Any worker can run any call and gives the same bytes, so whatever was lost is run again. When
clients have homes, a call for a pack waits for the home of the pack's first client. Workers that were lost with their
node, and that no other node has room for, are away: the others do their work until they are back.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict, deque
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
class _Errand:
    """A message on its way: which calls (by their numbers), their handles to be, until when it is waited for."""

    items: list[int]
    made: Sequence[Any]
    slot: int
    began: float
    deadline: float

    @property
    def first(self) -> int:
        """The call that is named when something goes wrong."""
        return self.items[0]

    @property
    def is_single(self) -> bool:
        """Whether a fault can only be this call's; of several calls nobody knows which one it was."""
        return len(self.items) == 1


class _Waiting:
    """Calls that have not begun, in order, by the worker that is to run them (None: any)."""

    def __init__(self, homes: Iterable[int | None], workers: int) -> None:
        self._homes = list(homes)
        self._workers = workers
        self._alone: set[int] = set()  # calls that share a message with no other
        self._queues: defaultdict[int | None, deque[int]] = defaultdict(deque)
        for item, home in enumerate(self._homes):
            self._queues[home].append(item)

    def take(self, slot: int, most: int, away: Iterable[int]) -> list[int]:
        """The next calls for this worker, at most `most`: its own, else anybody's, else those of workers away."""
        sources = (slot, None, *away)
        source = next((one for one in sources if self._queues[one]), None)
        queue = self._queues[source]
        if not queue:
            return []
        # Half of a worker's share at a time: messages get shorter towards the end, and all end at about one time.
        sharing = 1 if source == slot else self._workers
        most = min(most, len(queue) // (2 * sharing))
        items = [queue.popleft()]
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
class _StageCalls:
    """One `map` in progress. Every call, known by its number, is in one place: waiting, running, or done."""

    name: str
    calls: list[Call]  # a lost handle is replaced here
    waiting: _Waiting
    idle: list[int]  # workers, the next one to be given something first
    stuck_at: float  # when it ends if nothing has run until then
    attempts: Counter[int] = field(default_factory=Counter)
    running: dict[Any, _Errand] = field(default_factory=dict)  # by the reply that is waited for
    results: dict[int, tuple[Any, Handle | None]] = field(default_factory=dict)

    def is_done(self) -> bool:
        return len(self.results) == len(self.calls)


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
        work = self._begin(
            stage, [Call(stage, down, request, made) for request, made in zip(requests, before, strict=True)]
        )
        while not work.is_done():
            self._hand_out(work)
            self._check_progress(work)
            ready = self.crew.wait(list(work.running), POLL_S)
            # Overdue calls are looked for only while no reply is there to be taken.
            for reply in ready or self._overdue(work.running):
                job = work.running.pop(reply)
                try:
                    if not ready:
                        raise WorkerLost(self._too_long())
                    values = self.crew.fetch(job.slot, reply)
                except (WorkerLost, ResultLost) as fault:
                    self._after_fault(work, job, fault)
                else:
                    self._after_reply(work, job, values)
        return [work.results[item] for item in range(len(work.calls))]

    def _begin(self, stage: str, calls: list[Call]) -> _StageCalls:
        waiting = _Waiting((self._home(call) for call in calls), self.crew.size)
        idle = [slot for slot in range(self.crew.size) if slot not in self._away]
        return _StageCalls(stage, calls, waiting, idle, stuck_at=self.clock() + self.timeout_s)

    def _hand_out(self, work: _StageCalls) -> None:
        """A message to every idle worker for which there is one."""
        work.idle += self._back()
        for slot in list(work.idle):
            if items := work.waiting.take(slot, self._most(work.name), self._away):
                work.idle.remove(slot)
                reply, made = self.crew.start(slot, [work.calls[item] for item in items])
                work.running[reply] = _Errand(items, made, slot, self.clock(), self._deadline(slot))

    def _check_progress(self, work: _StageCalls) -> None:
        """Raises RaysoftError where calls have waited too long without any worker that could run one."""
        if work.running:
            work.stuck_at = self.clock() + self.timeout_s
        elif self.clock() > work.stuck_at:
            stuck = work.calls[work.waiting.first()]
            raise RaysoftError(f"{stuck}: no node has had room for a client actor {self._for_long()}")

    def _after_reply(self, work: _StageCalls, job: _Errand, values: Sequence[Any]) -> None:
        """The calls of a message are done, and its worker is idle again."""
        self._starting.discard(job.slot)
        self._seconds[work.name] = (self.clock() - job.began) / len(job.items)
        for item, value, made in zip(job.items, values, job.made, strict=True):
            call = work.calls[item]
            work.results[item] = (value, Handle(made, self._home(call), call))
        work.idle.append(job.slot)

    def _after_fault(self, work: _StageCalls, job: _Errand, fault: Exception) -> None:
        """The calls of a message are run again, or the clients of its only call are dropped."""
        call = work.calls[job.first]
        work.attempts[job.first] += job.is_single
        if self._recover(job.slot, call, work.attempts[job.first], fault):
            if isinstance(fault, ResultLost) and job.is_single:
                work.calls[job.first] = self._with_handles(job.slot, call)
            work.waiting.put_back(job.items)
        else:
            work.results[job.first] = (None, None)
        # A worker that was just replaced is alive for certain, so it gets the call again: among several that died
        # together, one call would otherwise use up its attempts.
        work.idle.insert(0, job.slot)
        if isinstance(fault, WorkerLost):
            work.idle = self._without_the_lost(work.idle, job.slot)

    def _home(self, call: Call) -> int | None:
        """The worker that has to run a call; None: any."""
        if call.handles:
            return call.handles[0].home
        return None if call.pack is None else self.home(call.pack)

    def _most(self, stage: str) -> int:
        """How many calls a message may hold: one until it is known that they are short."""
        if stage not in self._seconds:
            return 1
        if stage == "train" and self.on_failure == "drop_client":
            return 1  # a lost message must not drop the clients of several packs
        budget_s = min(MESSAGE_S, self.timeout_s / 10)
        return int(min(MOST_CALLS, budget_s / max(self._seconds[stage], 1e-9)))

    def _deadline(self, slot: int) -> float:
        return self.clock() + self.timeout_s * (2 if slot in self._starting else 1)

    def _overdue(self, running: Mapping[Any, _Errand]) -> list[Any]:
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
                # On another worker, where this one's node is gone; on this one, where all of them are.
                slot = next((one for one in range(self.crew.size) if one not in self._away), slot)
            except ResultLost:  # what it is made from is lost, too
                call = self._with_handles(slot, call)
            else:
                self._starting.discard(slot)
                return replace(handle, ref=made[0], call=call)
        raise RaysoftError(f"{call}: its result was lost and could not be made again")
