"""The dispatcher with a crew that lives in this process: order, faults of every kind, bounded attempts."""

from dataclasses import dataclass, field

import pytest

from raysoft.distributed.dispatch import Dispatcher, ResultLost, WorkerLost
from raysoft.errors import RaysoftError
from raysoft.federation.liveness import ATTEMPTS
from raysoft.types import Pack


@dataclass(frozen=True)
class Request:
    pack: Pack


@dataclass
class FakeCrew:
    """Workers that compute (stage, clients, handle) at once, unless they are dead or told to hang."""

    size: int = 3
    dead: set[int] = field(default_factory=set)
    hang: int = 0  # how many calls will never be answered
    lost: set[int] = field(default_factory=set)  # handles that are gone
    fails: Exception | None = None  # what every call raises
    now: float = 0.0
    started: list = field(default_factory=list)
    replaced: list = field(default_factory=list)
    busy: dict = field(default_factory=dict)
    homeless: set[int] = field(default_factory=set)  # lost with their node, and no other has room

    def start(self, slot, calls):
        (call,) = calls
        assert slot not in self.busy.values(), "one request at a time"
        number = len(self.started)
        self.started.append((slot, call.stage, None if call.pack is None else call.pack.clients))
        handle = None if not call.handles else call.handles[0].ref
        self.busy[number] = slot
        state = "hang" if self.hang else "dead" if slot in self.dead else "ok"
        if self.hang:
            self.hang -= 1
        return (number, state, call, handle), [number]

    def wait(self, replies, seconds):
        for reply in replies:
            if reply[1] != "hang":
                return [reply]
        self.now += seconds
        return []

    def fetch(self, slot, reply):
        number, state, call, handle = reply
        self.now += 0.3  # too long for several calls in a message
        del self.busy[number]
        if self.fails:
            raise self.fails
        if state == "dead":
            raise WorkerLost("its process died")
        if handle in self.lost:
            raise ResultLost("gone")
        return [(call.stage, call.pack and call.pack.clients, handle)]

    def replace(self, slot):
        self.dead.discard(slot)
        self.busy = {number: at for number, at in self.busy.items() if at != slot}
        self.replaced.append(slot)

    def without_room(self):
        return set(self.homeless)


REQUESTS = [Request(Pack(4, (2 * i, 2 * i + 1))) for i in range(5)]


def dispatcher(crew, on_failure="retry", home=lambda pack: None):
    return Dispatcher(crew, on_failure, 10.0, home, clock=lambda: crew.now)


def clients(results):
    return [value[1] for value, _ in results]


def test_replies_come_in_the_order_of_requests_and_handles_reach_the_next_stage():
    crew = FakeCrew()
    work = dispatcher(crew)
    trained = work.map("train", None, REQUESTS)
    assert clients(trained) == [r.pack.clients for r in REQUESTS]
    assert {slot for slot, *_ in crew.started} == {0, 1, 2}
    encoded = work.map("encode", None, [None] * 5, [(handle,) for _, handle in trained])
    assert [value[2] for value, _ in encoded] == [handle.ref for _, handle in trained]
    assert clients(encoded) == clients(trained), "the pack is known from the handle"
    assert work.map("evaluate", None, []) == []
    assert len(crew.started) == 10


@pytest.mark.parametrize("size", [1, 3, 4, 8])
def test_all_workers_may_die_at_once(size):
    crew = FakeCrew(size=size, dead=set(range(size)))
    results = dispatcher(crew).map("train", None, REQUESTS)
    assert clients(results) == [r.pack.clients for r in REQUESTS]
    assert sorted(crew.replaced) == list(range(min(size, 5)))


def test_a_worker_that_does_not_answer_is_replaced_after_the_timeout():
    crew = FakeCrew(hang=1)
    work = dispatcher(crew)
    assert clients(work.map("train", None, REQUESTS)) == [r.pack.clients for r in REQUESTS]
    assert crew.replaced == [0]
    assert 10.0 < crew.now < 13.0
    assert "actors.timeout_s=10" in work.notices[0]


def test_a_starting_worker_has_twice_the_time():
    crew = FakeCrew(size=1, hang=2)
    dispatcher(crew).map("train", None, REQUESTS[:1])
    assert 30.0 < crew.now < 34.0


def test_a_call_that_always_kills_ends_the_run_and_is_named():
    class Deadly(FakeCrew):
        def replace(self, slot):
            super().replace(slot)
            self.dead.add(slot)

    crew = Deadly(size=2, dead={0, 1})
    with pytest.raises(RaysoftError, match=r"train of round 4, clients \[\d, \d\].*3 times in a row"):
        dispatcher(crew).map("train", None, REQUESTS)
    assert max(sum(one[2] == r.pack.clients for one in crew.started) for r in REQUESTS) == ATTEMPTS


def test_abort_stops_at_the_first_fault():
    crew = FakeCrew(dead={1})
    with pytest.raises(RaysoftError, match=r"clients \[2, 3\].*on_failure=abort"):
        dispatcher(crew, "abort").map("train", None, REQUESTS)
    assert not crew.replaced


def test_drop_client_drops_what_was_lost_in_training_and_repeats_later_stages():
    crew = FakeCrew(dead={1})
    work = dispatcher(crew, "drop_client")
    trained = work.map("train", None, REQUESTS)
    assert [pair == (None, None) for pair in trained] == [False, True, False, False, False]
    assert "dropped" in work.notices[0]
    crew.dead = {0}
    left = [(handle,) for _, handle in trained if handle]
    assert clients(work.map("encode", None, [None] * 4, left)) == [REQUESTS[i].pack.clients for i in (0, 2, 3, 4)]


def test_a_lost_result_is_made_again_from_the_stages_before():
    crew = FakeCrew(size=2)
    work = dispatcher(crew)
    trained = work.map("train", None, REQUESTS[:2])
    encoded = work.map("encode", None, [None] * 2, [(handle,) for _, handle in trained])
    crew.lost = {trained[1][1].ref, encoded[1][1].ref}  # a node took both with it
    before = len(crew.started)
    summed = work.map("fold", None, [None] * 2, [(handle,) for _, handle in encoded])
    assert clients(summed) == [(0, 1), (2, 3)]
    stages = [stage for _, stage, who in crew.started[before:] if who == (2, 3)]
    assert stages == ["fold", "encode", "train", "encode", "fold"]
    assert not crew.replaced, "nobody has died"


def test_a_broadcast_that_is_lost_for_good_ends_the_run():
    crew = FakeCrew(lost={None})
    with pytest.raises(RaysoftError, match=r"evaluate.*3 times"):
        dispatcher(crew).map("evaluate", None, [None])


def test_clients_with_a_home_wait_for_it():
    crew = FakeCrew()
    work = dispatcher(crew, home=lambda pack: 2)
    trained = work.map("train", None, REQUESTS)
    assert {slot for slot, *_ in crew.started} == {2}
    crew.dead = {2}
    work.map("encode", None, [None] * 5, [(handle,) for _, handle in trained])
    assert {slot for slot, *_ in crew.started} == {2}
    assert crew.replaced == [2]


def test_an_error_of_the_stage_itself_is_passed_on_and_not_repeated():
    crew = FakeCrew(fails=RaysoftError("train of round 4: boom"))
    with pytest.raises(RaysoftError, match="boom"):
        dispatcher(crew).map("train", None, REQUESTS)
    assert not crew.replaced


# ---------------------------------------------------------------------------------------------------------- lost nodes


def test_workers_without_room_are_away_and_the_others_do_their_work():
    crew = FakeCrew(size=4, dead={1, 2, 3}, homeless={1, 2, 3})
    work = dispatcher(crew)
    assert clients(work.map("train", None, REQUESTS)) == [r.pack.clients for r in REQUESTS]
    after = [slot for slot, *_ in crew.started[4:]]
    assert set(after) == {0}, "once one of them is missed, no call meets another"
    assert sorted(crew.replaced) == [1, 2, 3], "each of them starts anew where there will be room"
    assert {slot for slot, *_ in crew.started[len(crew.started) :]} == set()
    again = len(crew.started)
    work.map("train", None, REQUESTS)
    assert {slot for slot, *_ in crew.started[again:]} == {0}, "in the next stage as well"


def test_many_workers_of_one_node_cost_a_call_one_attempt():
    """Idle workers that died with it are found out before the call is handed from one to the next."""
    crew = FakeCrew(size=9, dead=set(range(8)), homeless=set(range(8)))
    assert clients(dispatcher(crew).map("train", None, REQUESTS[:1])) == [REQUESTS[0].pack.clients]
    assert [slot for slot, *_ in crew.started] == [0, 8]


def test_workers_come_back_when_there_is_room():
    crew = FakeCrew(size=2, dead={0}, homeless={0})
    work = dispatcher(crew)
    work.map("train", None, REQUESTS)
    crew.homeless.clear()
    again = len(crew.started)
    work.map("train", None, REQUESTS)
    assert {slot for slot, *_ in crew.started[again:]} == {0, 1}


def test_packs_whose_home_is_away_are_trained_elsewhere():
    crew = FakeCrew(size=2, dead={0}, homeless={0})
    work = dispatcher(crew, home=lambda pack: 0)
    trained = work.map("train", None, REQUESTS)
    assert clients(trained) == [r.pack.clients for r in REQUESTS]
    work.map("encode", None, [None] * 5, [(handle,) for _, handle in trained])
    assert {slot for slot, *_ in crew.started[1:]} == {1}


def test_nobody_left_is_an_error_after_the_timeout():
    crew = FakeCrew(size=2, dead={0, 1}, homeless={0, 1})
    with pytest.raises(RaysoftError, match=r"train of .*no node has had room for a client actor within .*timeout_s=10"):
        dispatcher(crew).map("train", None, REQUESTS)
    assert 10 < crew.now < 15


def test_a_lost_handle_is_made_again_by_a_worker_that_is_there():
    crew = FakeCrew(size=3)
    work = dispatcher(crew)
    trained = work.map("train", None, REQUESTS[:1])
    crew.lost = {trained[0][1].ref}
    crew.dead, crew.homeless = {0}, {0}
    [(value, _)] = work.map("encode", None, [None], [(trained[0][1],)])
    assert value[1] == REQUESTS[0].pack.clients


def test_a_call_may_need_several_handles_and_gets_them_in_order():
    class Several(FakeCrew):
        def start(self, slot, calls):
            self.given = [handle.ref for handle in calls[0].handles]
            return super().start(slot, calls)

    crew = Several(size=1)
    work = dispatcher(crew)
    trained = work.map("train", None, REQUESTS[:3])
    refs = [handle.ref for _, handle in trained]
    work.map("join", None, [None], [tuple(handle for _, handle in trained)])
    assert crew.given == refs
    crew.lost = {refs[0]}
    before = len(crew.started)
    work.map("join", None, [None], [tuple(handle for _, handle in trained)])
    stages = [stage for _, stage, _ in crew.started[before:]]
    assert stages == ["join", "train", "train", "train", "join"], "which one was lost is not known"
    assert crew.given[0] not in refs


@pytest.mark.parametrize("homes", [False, True])
def test_the_work_of_handing_out_calls_grows_with_their_number_only(homes):
    asked = []

    def home(pack):
        asked.append(pack)
        return pack.clients[0] % 7 if homes else None

    requests = [Request(Pack(1, (k,))) for k in range(2000)]
    crew = ManyCrew(size=7)
    results = dispatcher(crew, home=home).map("train", None, requests)
    assert clients(results) == [request.pack.clients for request in requests]
    assert len(asked) <= 2 * len(requests)  # when a call is queued, and when its handle is made


@dataclass
class ManyCrew(FakeCrew):
    """Takes several calls at once, each of which lasts `seconds`; the call for `deadly` clients kills its worker."""

    seconds: float = 0.01
    deadly: tuple = ()
    killings: int = 0  # left
    messages: list = field(default_factory=list)  # number of calls in each

    def start(self, slot, calls):
        self.messages.append(len(calls))
        return (len(self.messages), "ok", tuple(calls)), [call.pack.clients for call in calls]

    def fetch(self, slot, reply):
        _, _, calls = reply
        self.now += self.seconds * len(calls)
        packs = [call.pack.clients for call in calls]
        if self.deadly in packs and self.killings:
            self.killings -= 1
            raise WorkerLost("its process died")
        return [(call.stage, call.pack.clients) for call in calls]


MANY = [Request(Pack(1, (k,))) for k in range(100)]


def test_short_calls_travel_together_once_they_are_known_to_be_short():
    crew = ManyCrew(size=2)
    work = dispatcher(crew)
    for _ in range(2):
        crew.messages.clear()
        assert clients(work.map("encode", None, MANY)) == [request.pack.clients for request in MANY]
    assert sum(crew.messages) == 100
    assert max(crew.messages) == 8
    assert len(crew.messages) < 30
    assert crew.messages[-1] == 1, "the last ones are handed out one by one, so that all workers end together"


@pytest.mark.parametrize("seconds, most", [(0.1, 5), (0.4, 1), (30.0, 1)])
def test_long_calls_travel_alone(seconds, most):
    crew = ManyCrew(size=1, seconds=seconds)
    work = Dispatcher(crew, "retry", 300.0, lambda pack: None, clock=lambda: crew.now)
    work.map("encode", None, MANY)
    assert max(crew.messages) == most


def test_of_several_calls_only_the_one_that_kills_is_named_and_the_others_go_on():
    crew = ManyCrew(size=2, deadly=(50,), killings=10)
    with pytest.raises(RaysoftError, match=r"encode of round 1, clients \[50\].*3 times in a row"):
        dispatcher(crew).map("encode", None, MANY)
    assert crew.killings == 10 - 1 - ATTEMPTS, "once among others, then by itself"


def test_of_several_calls_that_were_lost_each_is_run_again():
    crew = ManyCrew(size=2, deadly=(50,), killings=1)
    work = dispatcher(crew)
    assert clients(work.map("encode", None, MANY)) == [request.pack.clients for request in MANY]
    assert len(crew.replaced) == 1
    assert sum(crew.messages) > 101, "it was lost with others"


def test_calls_that_were_lost_together_go_to_whoever_is_idle():
    class Late(ManyCrew):
        """The second worker's first message is answered last, by its death."""

        def wait(self, replies, seconds):
            self.now += 0.01
            return [min(replies, key=lambda reply: (reply[2][0].request.pack.clients == (1,), reply[0]))]

        def start(self, slot, calls):
            self.slots = [*getattr(self, "slots", []), slot]
            return super().start(slot, calls)

    crew = Late(size=2)
    work = dispatcher(crew)
    work.map("encode", None, MANY[2:])  # short, as is known from now on
    crew.deadly, crew.killings, crew.slots = (1,), 1, []
    assert clients(work.map("encode", None, [*MANY[1:2], *MANY[1:20]])) == [
        r.pack.clients for r in [MANY[1], *MANY[1:20]]
    ]
    assert set(crew.slots[-4:]) == {0, 1}


def test_a_lost_training_drops_one_pack_never_several():
    crew = ManyCrew(size=2, deadly=(50,), killings=1)
    trained = dispatcher(crew, "drop_client").map("train", None, MANY)
    assert set(crew.messages) == {1}
    assert [item for item, pair in enumerate(trained) if pair == (None, None)] == [50]
