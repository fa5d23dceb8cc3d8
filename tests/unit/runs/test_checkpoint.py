"""Checkpoints: every array comes back bit for bit, and no damage goes unnoticed."""

import json
import shutil
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from raysoft.config import CheckpointConfig
from raysoft.errors import DiskHungError, RaysoftError
from raysoft.federation.parts import RunState, Totals
from raysoft.rundir.folder import Position
from raysoft.runs import checkpoint as module
from raysoft.runs.checkpoint import Checkpoint, CheckpointDamagedError, list_checkpoints, load, newest, prune, save
from raysoft.runs.checkpoint_writer import CheckpointWriter
from raysoft.types import ClientState, ServerState

LINES = [b'{"round":%d}\n' % tick for tick in range(10)]


def position(tick):
    return Position.of(b"".join(LINES[: tick + 1]))


def state(seed=0, clients=(3, 1, 20)):
    """Every part filled: scalars, NaN, empty arrays, names with dots, clients out of order."""
    rng = np.random.default_rng(seed)

    def tensors(*names):
        return {name: rng.standard_normal((2, 3)).astype(np.float32) for name in names}

    return RunState(
        server=ServerState(theta=tensors("b.lora_B", "a.lora_A"), version=7, extra={"age": np.arange(4)}),
        allocator={"queue_s": np.array(np.nan), "starts_s": np.zeros(0), "n": np.array(3, dtype=np.int64)},
        clients={
            k: ClientState(rank=4 + k, method={"on": np.array([True, False])}, codec=tensors("z.lora_A", "a.lora_A"))
            for k in clients
        },
        clock_s=0.1 + 0.2,
        totals=Totals(dense_bits=2**70, sent_counts=np.arange(5, dtype=np.int64)),
    )


def checkpoint(tick=3, seed=0, **changes):
    fresh = Checkpoint(
        tick,
        state(seed),
        {"rounds": 9, "train": {"lr": 0.1}},
        "hash",
        "base",
        position(tick),
        1.5,
        {"2": {"actor_failed": 3}},
    )
    return replace(fresh, **changes)


def same(a, b):
    """Bit for bit, order of keys included."""
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    if hasattr(a, "__dataclass_fields__"):
        return all(same(getattr(a, item.name), getattr(b, item.name)) for item in fields(a))
    return type(a) is type(b) and a == b


def run_folder(tmp_path, ticks=(2, 3)):
    """A run folder with rounds.jsonl and checkpoints of these rounds."""
    (tmp_path / "rounds.jsonl").write_bytes(b"".join(LINES[: max(ticks) + 2]))
    for tick in ticks:
        save(checkpoint(tick, seed=tick), tmp_path / "checkpoints")
    return tmp_path / "checkpoints", tmp_path / "rounds.jsonl"


def test_everything_comes_back_bit_for_bit(tmp_path):
    written = checkpoint()
    assert same(load(save(written, tmp_path)), written)


ARRAYS = hnp.arrays(
    dtype=st.sampled_from([np.float32, np.float64, np.int64, np.uint8, np.bool_]),
    shape=hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3),
)
TENSORS = st.dictionaries(st.text("ab._/0", min_size=1, max_size=6), ARRAYS, max_size=3)


@settings(max_examples=60, deadline=None)
@given(TENSORS, TENSORS, st.dictionaries(st.integers(0, 10**12), TENSORS, max_size=3), st.floats(0, 1e9))
def test_any_state_comes_back(tmp_path_factory, theta, allocator, memories, clock_s):
    clients = {k: ClientState(rank=1, codec=codec) for k, codec in memories.items()}
    written = checkpoint(state=RunState(ServerState(theta), allocator, clients, clock_s))
    assert same(load(save(written, tmp_path_factory.mktemp("any"))), written)


def mutations(data, count, rng):
    """Truncations at the start, the end and in between; single bits, everywhere."""
    for size in {0, 1, 7, 8, 9, len(data) // 2, len(data) - 1, *rng.integers(0, len(data), count).tolist()}:
        yield data[:size]
    for at in {0, len(data) - 1, *rng.integers(0, len(data), 2 * count).tolist()}:
        bit = 1 << int(rng.integers(8))
        yield data[:at] + bytes([data[at] ^ bit]) + data[at + 1 :]
    yield data + b"\0"


@pytest.mark.parametrize("name", ["manifest.json", "state.safetensors"])
def test_no_damage_is_loaded_and_the_one_before_is_taken(tmp_path, name):
    folder, rounds = run_folder(tmp_path)
    before, file = load(folder / "round-000002"), folder / "round-000003" / name
    data, tried = file.read_bytes(), 0
    for damaged in mutations(data, 60, np.random.default_rng(1)):
        file.write_bytes(damaged)
        tried += 1
        with pytest.raises(CheckpointDamagedError, match="round-000003"):
            load(folder / "round-000003")
        found, notes = newest(folder, rounds)
        assert same(found, before)
        assert len(notes) == 1
    assert tried > 150
    file.write_bytes(data)
    assert newest(folder, rounds)[0].round == 3


@pytest.mark.parametrize("name", ["manifest.json", "state.safetensors"])
def test_a_missing_or_exchanged_file_is_damage(tmp_path, name):
    folder, rounds = run_folder(tmp_path)
    shutil.copy(folder / "round-000002" / name, folder / "round-000003" / name)
    assert newest(folder, rounds)[0].round == 2
    (folder / "round-000003" / name).unlink()
    assert newest(folder, rounds)[0].round == 2


def test_a_folder_under_another_name_is_damage(tmp_path):
    folder, rounds = run_folder(tmp_path)
    (folder / "round-000003").rename(folder / "round-000004")
    found, notes = newest(folder, rounds)
    assert found.round == 2
    assert "holds round 3" in notes[0]


def test_rounds_that_were_changed_do_not_agree_with_the_checkpoint(tmp_path):
    folder, rounds = run_folder(tmp_path)
    rounds.write_bytes(rounds.read_bytes().replace(b'"round":3', b'"round":8'))
    found, notes = newest(folder, rounds)
    assert found.round == 2
    assert "rounds.jsonl" in notes[0]
    rounds.write_bytes(b"")
    found, notes = newest(folder, rounds)  # the state is sound whatever became of the records
    assert (found.round, found.records_intact, len(notes)) == (3, False, 2)


def test_all_damaged_is_an_error_and_none_is_not(tmp_path):
    folder, rounds = run_folder(tmp_path)
    for path in folder.glob("*/state.safetensors"):
        path.write_bytes(b"")
    with pytest.raises(RaysoftError, match=r"no checkpoint can be used.*begin at round 0"):
        newest(folder, rounds)
    shutil.rmtree(folder)
    assert newest(folder, rounds) == (None, [])


@pytest.mark.parametrize("bad_value", [np.nan, np.inf, 1e28])
def test_a_model_that_is_not_finite_or_diverged_is_passed_over(tmp_path, bad_value):
    folder, rounds = run_folder(tmp_path)
    shutil.rmtree(folder / "round-000003")
    bad = checkpoint(3)
    theta = {name: np.full_like(value, bad_value) for name, value in bad.state.server.theta.items()}
    save(replace(bad, state=replace(bad.state, server=replace(bad.state.server, theta=theta))), folder)
    found, notes = newest(folder, rounds)
    assert found.round == 2
    assert "its global model is not finite" in notes[0]


def test_another_format_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "FORMAT", 99)
    path = save(checkpoint(), tmp_path)
    monkeypatch.undo()
    with pytest.raises(RaysoftError, match="format 99"):
        load(path)


def test_a_checkpoint_of_the_first_version_names_who_reads_it(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "FORMAT", 1)
    path = save(checkpoint(), tmp_path)
    monkeypatch.undo()
    with pytest.raises(RaysoftError, match=r"has format 1, .* reads format 2; resume with raysoft 0\.1$"):
        load(path)


@dataclass(frozen=True)
class Flight:
    client: int
    left: np.ndarray | None


@dataclass(frozen=True)
class Later:
    """A state with fields of every kind that one may get."""

    flights: tuple[Flight, ...]
    versions: Mapping[int, Mapping[str, np.ndarray]]
    note: str | None = None
    share: float = 0.0


@given(
    st.lists(st.tuples(st.integers(0, 10), st.none() | hnp.arrays(np.float64, 3)), max_size=3),
    st.dictionaries(st.integers(0, 9), st.dictionaries(st.text(max_size=3), hnp.arrays(np.int64, 2), max_size=2)),
    st.none() | st.text(max_size=4),
    st.floats(allow_nan=False, allow_infinity=False),
)
@settings(max_examples=40, deadline=None)
def test_a_state_with_other_fields_comes_back_whole(flights, versions, note, share):
    before = Later(tuple(Flight(*one) for one in flights), versions, note, share)
    tensors = {}
    tree = json.loads(json.dumps(module.taken_apart(before, "", tensors)))
    assert same(before, module.put_together(Later, tree, tensors))


def test_scalars_of_numpy_come_back_as_numbers(tmp_path):
    written = checkpoint(state=replace(state(), clock_s=np.float64(1.5), allocator={"queue_s": 2.5}))
    read = load(save(written, tmp_path)).state
    assert (type(read.clock_s), read.clock_s) == (float, 1.5)
    assert read.allocator["queue_s"] == np.array(2.5)


def test_a_state_of_other_fields_is_damage(tmp_path):
    path = save(checkpoint(), tmp_path)
    manifest = json.loads((path / "manifest.json").read_text())
    manifest.pop("checksum")
    del manifest["state"]["totals"]
    text = json.dumps({**manifest, "checksum": module.checksum_of(manifest)})
    (path / "manifest.json").write_text(text)
    with pytest.raises(CheckpointDamagedError, match="other fields than RunState has"):
        load(path)


def test_nothing_is_pickled(tmp_path):
    path = save(checkpoint(), tmp_path)
    assert sorted(item.name for item in path.iterdir()) == ["manifest.json", "state.safetensors"]
    json.loads((path / "manifest.json").read_text())


def test_a_half_written_checkpoint_is_none(tmp_path, monkeypatch):
    folder, rounds = run_folder(tmp_path)

    def no_room(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.os, "fsync", no_room)
    with pytest.raises(RaysoftError, match="round-000004: the checkpoint cannot be written: No space left"):
        save(checkpoint(4), folder)
    monkeypatch.undo()
    assert [tick for tick, _ in list_checkpoints(folder)] == [2, 3]
    assert newest(folder, rounds)[0].round == 3
    assert not list(folder.glob(".*"))


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc to tell what a handle is")
def test_rounds_are_durable_before_the_checkpoint_that_counts_on_them(tmp_path, monkeypatch):
    folder, rounds = run_folder(tmp_path)
    synced, real = [], module.os.fsync

    def fsync(handle):
        synced.append(Path(f"/proc/self/fd/{handle}").resolve().name)
        real(handle)

    monkeypatch.setattr(module.os, "fsync", fsync)
    with CheckpointWriter(folder, CheckpointConfig(), rounds) as writer:
        writer.put(checkpoint(4))
    assert synced == ["rounds.jsonl", "state.safetensors", "manifest.json", ".round-000004.part", "checkpoints"]


def test_a_crash_before_the_rename_leaves_something_that_prune_removes(tmp_path):
    (tmp_path / ".round-000004.part").mkdir()
    save(checkpoint(5), tmp_path)
    prune(tmp_path, keep=2, keep_every=None)
    assert [path.name for path in tmp_path.iterdir()] == ["round-000005"]


@pytest.mark.parametrize(
    "keep, every, left", [(2, None, [8, 9]), (1, None, [9]), (2, 3, [3, 6, 8, 9]), (1, 1, [*range(1, 10)])]
)
def test_what_stays(tmp_path, keep, every, left):
    for tick in range(1, 10):
        (tmp_path / f"round-{tick:06d}").mkdir()
    prune(tmp_path, keep, every)
    assert [tick for tick, _ in list_checkpoints(tmp_path)] == left


def test_the_writer_saves_when_due_and_reports_each(tmp_path):
    seen = []
    with CheckpointWriter(tmp_path, CheckpointConfig(every=3, keep=1)) as writer:
        for tick in range(8):
            if writer.due(tick, last=7):
                seen += writer.written(wait=True)
                writer.put(checkpoint(tick))
        seen += writer.written(wait=True)
    assert [tick for tick, _ in seen] == [3, 6, 7]
    assert [tick for tick, _ in list_checkpoints(tmp_path)] == [7]


def test_the_writer_says_that_there_was_no_room(tmp_path):
    (tmp_path / "file").write_text("")
    with CheckpointWriter(tmp_path / "file", CheckpointConfig()) as writer:
        writer.put(checkpoint(1))
        with pytest.raises(RaysoftError, match="cannot be written"):
            list(writer.written(wait=True))


def test_a_disk_that_hangs_is_not_waited_for_without_end(tmp_path, monkeypatch):
    never = threading.Event()
    monkeypatch.setattr("raysoft.runs.checkpoint_writer.save", lambda *_: never.wait())
    began = time.monotonic()
    with CheckpointWriter(tmp_path, CheckpointConfig(), timeout_s=0.2) as writer:
        writer.put(checkpoint(1))
        with pytest.raises(DiskHungError, match=rf"{tmp_path}: .*not on disk within actors.timeout_s=0.2 seconds"):
            list(writer.written(wait=True))
    with CheckpointWriter(tmp_path, CheckpointConfig(), timeout_s=0.2) as writer:
        writer.put(checkpoint(1))  # a run that fails for another reason leaves, too
    assert time.monotonic() - began < 20
    never.set()


def test_never_is_never(tmp_path):
    with CheckpointWriter(tmp_path, CheckpointConfig(every=None)) as writer:
        assert not any(writer.due(tick, last=5) for tick in range(6))
