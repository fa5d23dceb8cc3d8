"""What plug-ins hand back: a wrong sum, sign, shape or id ends the run in one sentence: plug-in, round, client."""

import re
from dataclasses import dataclass, replace

import numpy as np
import pytest

from raysoft.config.presets import load_config
from raysoft.errors import RaysoftError, ResourceError
from raysoft.methods.extras.base import Plain
from raysoft.methods.folds import Sum
from raysoft.runs.run import run
from tests.conftest import SMALL_RUN
from tests.coordinators import coordinator, with_ends


def hostile(parts_or_worker, name, method, change):
    """A plug-in whose `method` gives what `change` makes of its result."""
    real = getattr(parts_or_worker, name)

    class Hostile:
        def __getattr__(self, key):
            value = getattr(real, key)
            return (lambda *args, **more: change(value(*args, **more))) if key == method else value

    return Hostile()


def first(array, value):
    out = np.array(array, dtype=float)
    out[0] = value
    return out


def folding(change):
    """A method whose fold finishes with what `change` makes of it."""

    @dataclass(frozen=True)
    class Hostile(Sum):
        def finish(self, total):
            return change(total)

    return lambda method: replace(method, fold=Hostile())


SERVER = [
    ("allocator", "select", lambda ids: np.repeat(ids[:1], 2), "is selected 2 times"),
    ("allocator", "select", lambda ids: ids[::-1], "out of the order"),
    ("allocator", "select", lambda ids: ids + 10**6, "not among the candidates"),
    ("allocator", "select", lambda ids: ids[:0], "no list of client ids"),
    ("allocator", "select", lambda ids: "everybody", "no list of client ids"),
    ("allocator", "allocate", lambda p: replace(p, bandwidth_hz_K=p.bandwidth_hz_K * 10), r"gives away 1e\+07 Hz of a"),
    ("allocator", "allocate", lambda p: replace(p, bandwidth_hz_K=-p.bandwidth_hz_K), "client .*bandwidth_hz_K is -"),
    ("allocator", "allocate", lambda p: replace(p, power_w_K=first(p.power_w_K, np.nan)), "client .*power_w_K is nan"),
    ("allocator", "allocate", lambda p: replace(p, units_K=p.units_K + 10**6), "client .*units, its menu has 0 to"),
    ("allocator", "allocate", lambda p: replace(p, weights_K=first(p.units_K, np.nan)), "client .*weights_K is nan"),
    ("allocator", "allocate", lambda p: replace(p, weights_K=first(p.units_K, -1.0)), "client .*weights_K is -1"),
    ("allocator", "allocate", lambda p: replace(p, weights_K=0.0 * p.units_K), "sum to zero"),
    ("allocator", "allocate", lambda p: replace(p, clients_K=p.clients_K + 1), "other clients"),
    ("allocator", "allocate", lambda p: replace(p, active_K=p.active_K[:2]), "active_K has shape"),
    ("allocator", "allocate", lambda p: replace(p, round_s=np.nan), "round_s is nan"),
    ("uplink", "deliver", lambda o: replace(o, latency_s_K=-o.latency_s_K), "client .*latency_s_K is -"),
    ("uplink", "deliver", lambda o: replace(o, energy_j_K=first(o.energy_j_K, np.inf)), "client .*energy_j_K is inf"),
    ("uplink", "deliver", lambda o: replace(o, arrived_K=o.arrived_K[:1]), "arrived_K has 1 entries"),
    ("uplink", "deliver", lambda o: replace(o, round_s=-1.0), "round_s is -1"),
    ("uplink", "receive", lambda s: {k: v * np.nan for k, v in s.items()}, "not finite"),
    ("uplink", "receive", lambda s: {k: v * 1e30 for k, v in s.items()}, "above"),
    ("uplink", "receive", lambda s: {k: v[:1] for k, v in s.items()}, "in shape"),
    ("uplink", "receive", lambda s: {}, "other values"),
    ("uplink", "receive", lambda s: None, "other values"),
    ("method", "aggregate", lambda s: replace(s, theta={k: v * np.nan for k, v in s.theta.items()}), "not finite"),
    ("method", "aggregate", lambda s: replace(s, theta={k: v + 1e20 for k, v in s.theta.items()}), "diverged"),
    ("method", "aggregate", lambda s: replace(s, theta={k: v[:1] for k, v in s.theta.items()}), "in shape"),
    ("method", "aggregate", lambda s: replace(s, theta={}), "other values than it had"),
    ("allocator", "select", lambda ids: 1 / 0, r"ZeroDivisionError: division by zero \(.*test_seam.py, line"),
    ("allocator", "allocate", lambda p: None, "allocate gives NoneType, not Allocation"),
    ("allocator", "observe", lambda s: 1 / 0, "ZeroDivisionError"),
    ("uplink", "deliver", lambda o: None, "deliver gives NoneType, not Outcome"),
    ("method", "broadcast", lambda b: {}["theta"], "KeyError"),
    ("method", "aggregate", lambda s: None, "aggregate gives NoneType, not ServerState"),
    ("method", "aggregate", lambda s: replace(s, extra={"moment": np.array([np.inf])}), "moment to values that"),
]


@pytest.mark.parametrize("kind,method,change,words", SERVER)
def test_the_servers_plug_ins_are_checked_and_nothing_is_committed(kind, method, change, words):
    made, _ = coordinator("soft")
    before = made.state
    made.parts = replace(made.parts, **{kind: hostile(made.parts, kind, method, change)})
    name = getattr(made.config, kind).name
    with pytest.raises(RaysoftError, match=f"^{kind} {name}, round 1.*{words}"):
        made.round(1)
    assert made.state is before


CLIENT = [
    ("menu", lambda c: replace(c, error_J=c.error_J * np.nan), "menu"),
    ("menu", lambda c: replace(c, bits_J=c.bits_J + 1), "menu"),
    ("menu", lambda c: replace(c, error_J=c.error_J[:3]), "menu"),
    ("menu", lambda c: replace(c, error_J=c.error_J[::-1]), "menu must leave no larger error for more bits"),
    ("menu", lambda c: replace(c, told_bits=-1), "told_bits must be a whole number of bits from 0, got -1"),
    ("menu", lambda c: replace(c, told_bits=0.5), "told_bits must be a whole number"),
    ("decode", lambda u: {k: v[:1] for k, v in u.items()}, "in shape"),
    ("decode", lambda u: dict(list(u.items())[1:]), "decodes other values than are trained"),
    ("decode", lambda u: {**u, "more": np.zeros(1)}, "decodes other values than are trained, e.g. more"),
    ("decode", lambda u: None, "decodes other values than are trained"),
    (
        "decode",
        lambda u: {k: v + np.float32(1e-3) for k, v in u.items()},
        "decodes to another .* than `received` holds",
    ),
    ("menu", lambda c: None, "menu gives NoneType, not Curve"),
    ("encode", lambda e: None, "encode gives NoneType, not Encoded"),
    ("encode", lambda e: replace(e, received=None), "decodes other values than are trained"),
    ("encode", lambda e: replace(e, received={k: v[:1] for k, v in e.received.items()}), "in shape"),
    ("encode", lambda e: replace(e, received=zeros(e.received)), "decodes to another .* than `received` holds"),
    ("encode", lambda e: 1 / 0, r"ZeroDivisionError: division by zero \(.*test_seam.py, line"),
    ("encode", lambda e: replace(e, payload=replace(e.payload, num_bits=-5)), "-5 bits"),
    ("encode", lambda e: replace(e, stats=None), "its stats are no mapping of names to numbers"),
    ("encode", lambda e: replace(e, stats={1: np.array(1.0)}), "its stats are no mapping of names to numbers"),
    ("encode", lambda e: replace(e, stats={"sent": np.array(1.0)}), r"`sent` as float64 \(\), it must be bool"),
    ("encode", lambda e: replace(e, stats={"mine": np.array("abc")}), "only `sent` may be more than a number"),
    ("encode", lambda e: replace(e, stats={"mine": np.zeros(3)}), "only `sent` may be more than a number"),
]


@pytest.mark.parametrize("method,change,words", CLIENT)
def test_a_codec_is_checked_client_by_client(method, change, words):
    made, executor = coordinator("soft")
    executor.worker.codec = hostile(executor.worker, "codec", method, change)
    with pytest.raises(RaysoftError, match=rf"^codec rank_components, round 1, client \d+: .*{words}"):
        made.round(1)
    assert made.state.server.version == 0


METHOD = [
    ("view", lambda v: 1 / 0, "ZeroDivisionError"),
    ("view", lambda v: replace(v, trains=frozenset()), "trains nothing"),
    ("view", lambda v: replace(v, trains=v.trains | {"more"}), "trains more, which is not in its start"),
    ("local", lambda job: 1 / 0, "ZeroDivisionError"),
    ("upload", lambda u: 1 / 0, "ZeroDivisionError"),
    ("upload", lambda u: None, "upload gives NoneType, not Upload"),
    ("upload", lambda u: replace(u, update={}), "uploads other values than are trained"),
    ("upload", lambda u: replace(u, update=None), "uploads other values than are trained"),
    ("upload", lambda u: replace(u, update={**u.update, "more": np.zeros(1)}), "than are trained, e.g. more"),
    ("upload", lambda u: replace(u, update={k: v[:1] for k, v in u.update.items()}), "in shape .*, the client has"),
]


@pytest.mark.parametrize("method,change,words", METHOD)
def test_a_method_is_checked_client_by_client(method, change, words):
    made, executor = coordinator("soft")
    executor.worker.method = hostile(executor.worker, "method", method, change)
    with pytest.raises(RaysoftError, match=rf"^method soft, round 1, client \d+: .*{words}"):
        made.round(1)
    assert made.state.server.version == 0


EXTRA = [
    ("side", lambda *_: 1 / 0, "round 1: ZeroDivisionError: division by zero .*test_seam.py, line"),
    ("side", lambda *_: None, "round 1: side gives NoneType, not Mapping"),
    ("local", lambda *_: 1 / 0, r"round 1, client \d+: ZeroDivisionError"),
    ("local", lambda *_: None, r"round 1, client \d+: local gives NoneType, not LocalJob"),
    ("upload", lambda *_: 1 / 0, r"round 1, client \d+: ZeroDivisionError"),
    ("upload", lambda *_: None, r"round 1, client \d+: upload gives NoneType, not Upload"),
    ("upload", lambda upload, *_: replace(upload, update={}), r"round 1, client \d+: upload changes the names"),
    ("step", lambda *_: 1 / 0, "round 1: ZeroDivisionError"),
    ("step", lambda *_: None, "round 1: step gives NoneType, not ServerState"),
]


@pytest.mark.parametrize("hook,does,words", EXTRA)
def test_what_an_extra_does_wrong_is_named_as_the_extras(hook, does, words):
    made, executor = coordinator("soft", "method.extras=[{name: fedprox}]")
    does.__name__ = hook
    wrong = type("Wrong", (Plain,), {hook: staticmethod(does)})()
    method = replace(executor.worker.method, extras={"fedprox": wrong})
    executor.worker.method = method
    made.parts = replace(made.parts, method=method)
    with pytest.raises(RaysoftError, match=f"^extra fedprox, {words}"):
        made.round(1)
    assert made.state.server.version == 0


@pytest.mark.parametrize("hook,wanted", [("local", "LocalJob"), ("upload", "Upload"), ("aggregate", "ServerState")])
def test_what_a_method_does_wrong_is_not_named_as_its_extras(hook, wanted):
    made, executor = coordinator("soft", "method.extras=[{name: fedprox}]")
    method = executor.worker.method
    method = replace(method, inner=hostile(method, "inner", hook, lambda answer: None))
    executor.worker.method = method
    made.parts = replace(made.parts, method=method)
    with pytest.raises(RaysoftError, match=f"^method soft, .*{hook} gives NoneType, not {wanted}"):
        made.round(1)


def test_an_extra_without_memory_is_nobodys_fault():
    made, executor = coordinator("soft", "method.extras=[{name: fedprox}]")

    class Hungry(Plain):
        def local(self, *_):
            raise MemoryError("Unable to allocate 9 TiB")

    executor.worker.method = replace(executor.worker.method, extras={"fedprox": Hungry()})
    with pytest.raises(ResourceError, match=r"not enough memory .*Unable to allocate"):
        made.round(1)


FOLD = [
    (lambda total: 1 / 0, "ZeroDivisionError"),
    (lambda total: None, "fold gives NoneType, not Mapping"),
    (lambda total: {k: v[:1] for k, v in total.items()}, "folds .* in shape .*, the model has"),
    (lambda total: {k: v * np.nan for k, v in total.items()}, "folds .* to values that are not finite"),
    (lambda total: {k: v + 1e20 for k, v in total.items()}, r"folds .* above 1e\+15"),
    (lambda total: {**total, "stack/x": np.array([np.inf])}, "folds stack/x to values that are not finite"),
]


@pytest.mark.parametrize("change,words", FOLD)
def test_what_a_method_folds_is_checked(change, words):
    made, _ = coordinator("soft")
    before = made.state
    made.parts = replace(made.parts, method=folding(change)(made.parts.method))
    with pytest.raises(RaysoftError, match=f"^method soft, round 1: .*{words}"):
        made.round(1)
    assert made.state is before


def test_a_fold_that_fails_where_packs_were_trained_is_named():
    class Hostile(Sum):
        def part(self, arrived):
            return 1 / 0

    made, executor = coordinator("soft")
    executor.worker.method = replace(executor.worker.method, fold=Hostile())
    with pytest.raises(RaysoftError, match=r"^method soft, round 1: ZeroDivisionError"):
        made.round(1)
    assert made.state.server.version == 0


def only(executor, kind, method, client):
    """The worker's plug-in, which raises for one client alone, told by what it trains from."""
    plug_in, calls = getattr(executor.worker, kind), []
    order = executor.worker.train

    def counted(down, request):
        calls.clear()
        calls.extend(request.pack.clients)
        return order(down, request)

    executor.worker.train = counted

    class Hostile:
        def __getattr__(self, key):
            value = getattr(plug_in, key)
            if key != method:
                return value

            def maybe(*args, **more):
                mine = calls.pop(0)
                return 1 / 0 if mine == client else value(*args, **more)

            return maybe

    setattr(executor.worker, kind, Hostile())


@pytest.mark.parametrize("kind,method", [("method", "local"), ("method", "upload"), ("codec", "menu")])
def test_a_client_whose_code_raises_is_left_out_where_the_settings_say_so(kind, method):
    cohort = coordinator("soft")[0].round(1).metrics["clients"]["id"]
    made, executor = coordinator("soft", "actors.on_failure=drop_client")
    only(executor, kind, method, cohort[1])
    record = made.round(1)
    assert record.drop_reasons.get("client_failed") == 1
    assert record.metrics["clients"]["id"] == [client for client in cohort if client != cohort[1]]
    assert record.metrics["failed"].startswith(f"{kind} ")
    assert f"client {cohort[1]}: ZeroDivisionError" in record.metrics["failed"]
    assert cohort[1] not in made.state.clients or made.state.clients[cohort[1]].codec == {}
    made, executor = coordinator("soft", "actors.on_failure=retry")
    only(executor, kind, method, cohort[1])
    with pytest.raises(RaysoftError, match=f"client {cohort[1]}: ZeroDivisionError"):
        made.round(1)


def test_a_client_whose_codec_fails_on_the_way_out_does_not_arrive():
    made, executor = coordinator("soft", "actors.on_failure=drop_client")
    real, failing = executor.worker.codec, []

    class Hostile:
        def __getattr__(self, key):
            return getattr(real, key)

        def encode(self, *args):
            failing.append(1)
            return 1 / 0 if len(failing) == 2 else real.encode(*args)

    executor.worker.codec = Hostile()
    record = made.round(1)
    assert record.drop_reasons["client_failed"] == 1
    assert record.metrics["clients"]["status"].count("client_failed") == 1
    assert record.participants == len(record.metrics["clients"]["id"]) - record.dropped > 0


def test_too_many_failing_clients_end_the_run():
    made, executor = coordinator("soft", "actors.on_failure=drop_client")
    executor.worker.codec = hostile(executor.worker, "codec", "menu", lambda curve: 1 / 0)
    with pytest.raises(RaysoftError, match=r"6 of 6 clients failed, below actors.quorum=0.5; the first: codec rank_"):
        made.round(1)


def zeros(tensors):
    return {name: np.zeros_like(value) for name, value in tensors.items()}


def decoding(executor, change):
    """The worker's codec decodes, on either end, what `change` makes of it."""
    worker = executor.worker
    worker.codec = hostile(worker, "codec", "decode", change)
    worker.codec = hostile(worker, "codec", "encode", lambda e: replace(e, received=change(e.received)))


@pytest.mark.parametrize("kind", ["uplink", "method", "codec"])
def test_a_round_of_which_nothing_is_learnt_says_so(kind):
    made, executor = coordinator("soft")
    assert "unmoved" not in made.round(1).metrics
    if kind == "codec":
        decoding(executor, zeros)
    elif kind == "method":
        made.parts = replace(made.parts, method=folding(zeros)(made.parts.method))
    else:
        made.parts = replace(made.parts, uplink=hostile(made.parts, "uplink", "receive", zeros))
    record = made.round(2)
    assert record.participants > 0
    assert record.metrics["unmoved"] is True


def test_a_run_warns_once_that_nothing_is_learnt(tmp_path, caplog):
    config = load_config(
        "soft",
        [
            *SMALL_RUN,
            "rounds=3",
            "executor=inline",
            "train.lr=1e-30",
            "train.clip_norm=1e-30",
            "tracking.tensorboard=false",
        ],
    )
    run(config, tmp_path / "run")
    said = [one.message for one in caplog.records if "left the model as it was" in one.message]
    assert len(said) == 1
    assert re.match(r"round 1: \d+ updates arrived .*codec.name=rank_components", said[0])


def enlarged(executor, client, factor):
    """One client's training ends `factor` times as far away."""

    def further(one, start, end):
        return {n: start[n] + np.float32(factor) * (v - start[n]) for n, v in end.items()} if one == client else end

    with_ends(executor, further)


@pytest.mark.parametrize("factor,reason", [(1e6, "update_norm"), (1e30, "non_finite")])
def test_one_huge_finite_update_is_rejected_and_counted_with_client_and_round(factor, reason):
    made, executor = coordinator("ideal", "codec.error_feedback=true")
    cohort = coordinator("ideal")[0].round(1).metrics["clients"]["id"]
    enlarged(executor, cohort[2], factor)
    record = made.round(1)
    assert record.drop_reasons == {reason: 1}
    assert record.metrics.get("oversized_clients") == ([cohort[2]] if reason == "update_norm" else None)
    assert record.participants == len(cohort) - 1
    assert cohort[2] not in made.state.clients  # nothing of it is remembered
    assert max(np.abs(value).max() for value in made.state.server.theta.values()) < 10


def test_the_bound_can_be_set_and_lifted():
    for setting, dropped in (("2.0", 1), ("null", 0), ("1e9", 0)):
        made, executor = coordinator("ideal", f"train.max_update_norm={setting}")
        cohort = coordinator("ideal")[0].round(1).metrics["clients"]["id"]
        enlarged(executor, cohort[0], 100.0)
        record = made.round(1)
        assert ("oversized_clients" in record.metrics) == bool(dropped)


def leave(*_):
    raise SystemExit(0)


def test_a_plug_in_that_ends_the_program_has_failed():
    """Exit code 0 would pass for a finished run."""
    made, executor = coordinator("soft")
    made.parts = replace(made.parts, allocator=hostile(made.parts, "allocator", "allocate", leave))
    with pytest.raises(RaysoftError, match=r"^round 1: the code of a plug-in ended the program \(SystemExit 0 at"):
        made.round(1)
    made, executor = coordinator("soft")
    executor.worker.codec = hostile(executor.worker, "codec", "menu", leave)
    with pytest.raises(RaysoftError, match=r"^train of round 1, clients .*SystemExit 0"):
        made.round(1)


@pytest.mark.parametrize("tick", [1, 2])
def test_a_decoded_update_larger_than_all_that_it_came_from_is_the_codecs_mistake(tick):
    made, executor = coordinator("soft")
    for before in range(1, tick):
        made.round(before)
    decoding(executor, lambda u: {k: v * np.float32(1e6) for k, v in u.items()})
    words = (
        rf"^codec rank_components, round {tick}, client \d+: decodes an update of norm .* than train.max_update_norm"
    )
    with pytest.raises(RaysoftError, match=words):
        made.round(tick)


def test_a_decoded_update_beyond_all_measure_does_not_arrive():
    made, executor = coordinator("soft")
    decoding(executor, lambda u: {k: v * 1e30 for k, v in u.items()})
    before = made.state.server.theta
    record = made.round(1)
    assert record.participants == 0
    assert set(record.drop_reasons) == {"non_finite"}
    assert all(np.array_equal(value, before[name]) for name, value in made.state.server.theta.items())
