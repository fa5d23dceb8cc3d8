"""What a kind of plug-in promises is kept by all that come along and by the templates, and seen where it is not."""

import re
from pathlib import Path

import pytest

from raysoft.config import registry
from raysoft.config.presets import load_config
from raysoft.errors import ConfigError
from raysoft.runs.conformance.checking import CHECKS, findings, runs
from raysoft.runs.conformance.new import how_to_use, write_template
from raysoft.runs.conformance.subject import kind_of

TRACE = "client,round,value\n" + "".join(f"{c},{n},{(c + 1) * n * 1e-10}\n" for c in range(3) for n in range(1, 5))
NEEDED = {
    "chain": ["codec.codecs=[rank_components, quantize]"],
    "trace": ["channel.file=trace.csv", "channel.quantity=gain", "channel.at_end=loop"],
}
REGISTERED = [(kind, name) for kind in registry.KINDS for name in registry.KINDS[kind]]


@pytest.fixture(autouse=True)
def here(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    Path("trace.csv").write_text(TRACE)


@pytest.fixture
def without_runs(monkeypatch):
    """The run at the end takes a second, and every preset has its own."""
    for kind, checks in CHECKS.items():
        monkeypatch.setitem(CHECKS, kind, tuple(check for check in checks if check is not runs))


def faults(kind, name, words=()):
    return {one.promise: one.fault for one in findings(kind, name, words) if one.fault is not None}


@pytest.mark.parametrize(("kind", "name"), REGISTERED)
def test_every_plug_in_that_comes_along_keeps_its_promises(without_runs, kind, name):
    assert faults(kind, name, NEEDED.get(name, ())) == {}


@pytest.mark.parametrize("kind", registry.KINDS)
def test_the_template_of_every_kind_keeps_all_of_them_and_runs(kind):
    path = write_template(kind, f"my_{kind}")
    assert kind_of(str(path)) == kind
    assert faults(kind, str(path)) == {}
    assert "NAME" not in path.read_text()
    command = how_to_use(kind, path).replace("'", "").split()
    assert command[:3] == ["raysoft", "run", "fedit"]
    assert load_config(command[2], command[3:]).plugin_files()
    with pytest.raises(ConfigError, match="is there already, and is not overwritten"):
        write_template(kind, f"my_{kind}.py")


@pytest.mark.parametrize(("kind", "name"), [("thing", "x"), ("codec", "9"), ("codec", "a/b"), ("codec", "")])
def test_what_cannot_be_a_template_is_refused(kind, name):
    with pytest.raises(ConfigError, match="must be"):
        write_template(kind, name)
    assert [path.name for path in Path().iterdir()] == ["trace.csv"]


PLAN = "return cohort.fastest_plan(units_K[cohort.index], {})"
REPLACED = """plan = cohort.fastest_plan(units_K[cohort.index], {})
    from dataclasses import replace
    return replace(plan, %s)"""
# One line of a template changed, and the promise that it breaks.
BROKEN = [
    ("codec", "8 * len(data))", "8 * len(data) + 1)", "payload bits = bytes", "rank 1, .*: 1 bits are said"),
    (
        "codec",
        "bits = BITS * sum",
        "bits = 1 + BITS * sum",
        "menu = encode",
        r"the menu says \d+ bits, the payload has",
    ),
    (
        "codec",
        "received = self.decode(payload, view, units)",
        "received = {n: v + 1 for n, v in self.decode(payload, view, units).items()}",
        "decode = received",
        "decodes to another",
    ),
    ("codec", "np.clip(value, -65504.0, 65504.0)", "value", "finite updates", "not finite"),
    (
        "codec",
        "        names = sorted(view.trains) if units else []",
        "        update[min(update)][:] += 1\n        names = sorted(view.trains) if units else []",
        "pure",
        "changes .* of the update|another",
    ),
    ("codec", "np.array([0, bits])", "np.array([8, bits])", "a menu begins at 0 bits", "must begin at 0 bits"),
    (
        "codec",
        "np.array([factors.energy(), min",
        "np.array([3 * factors.energy(), min",
        "the menu's error at 0 units",
        "the menu says",
    ),
    (
        "codec",
        "Encoded(payload, received, memory, memory,",
        "Encoded(payload, received, {'kept': 3}, memory,",
        "what it remembers",
        "kept, which is no array",
    ),
    (
        "method",
        "change_of=change)",
        "change_of=change, then=lambda before, after, got: type(after)({}))",
        "the next global model",
        "aggregates other values than it had",
    ),
    (
        "method",
        "return Averaging(config, space, change_of=change)",
        """calls = []

    def counted(server, folded):
        calls.append(1)
        return {name: len(calls) * value for name, value in folded.items()}

    return Averaging(config, space, change_of=counted)""",
        "pure",
        "another global model",
    ),
    (
        "method",
        "return Averaging(config, space, change_of=change)",
        """from raysoft.methods.folds import Sum

    class First(Sum):
        def join(self, one, two):
            return one

    return Averaging(config, space, fold=First(), change_of=change)""",
        "the order of the clients",
        "differs by",
    ),
    (
        "extra",
        """        if received.folded is None:  # nobody arrived
            return proposed
        shrink = np.float32(1.0 - self.config.decay)""",
        "        shrink = np.float32(0.5)",
        "where nobody arrived",
        "although nobody arrived",
    ),
    (
        "extra",
        "    def step(",
        """    def upload(self, upload, job, end, view, memory, rng):
        return replace(upload, update={})

    def step(""",
        "an upload holds what was trained",
        "upload changes the names or shapes of what is sent",
    ),
    (
        "allocator",
        PLAN,
        REPLACED % "bandwidth_hz_K=2 * plan.bandwidth_hz_K",
        "a plan keeps to the band",
        "gives away .* Hz of a band",
    ),
    (
        "allocator",
        PLAN,
        REPLACED % "active_K=plan.active_K | True, latency_s_K=np.ones(len(plan.active_K))",
        "who has no channel",
        "no gain at all",
    ),
    (
        "allocator",
        PLAN,
        REPLACED % "bandwidth_hz_K=np.sort(plan.bandwidth_hz_K)",
        "permuted clients",
        "bandwidth_hz_K is",
    ),
    ("uplink", "Outcome(active_K & ~late_K,", "Outcome(active_K | True,", "outcomes are finite", "told not to send"),
    (
        "uplink",
        "last_s = self.config.deadline_s or max(plan.round_s, 1.0) * 10",
        "last_s = np.inf",
        "outcomes are finite",
        "latency_s_K is inf",
    ),
    (
        "uplink",
        "return folded.values",
        "return {name: value[:1] for name, value in folded.values.items()}",
        "receive keeps names",
        "in shape",
    ),
    (
        "uplink",
        "return folded.values",
        "return {n: v + np.random.default_rng().normal() for n, v in folded.values.items()}",
        "receive keeps names",
        "the second time",
    ),
    (
        "uplink",
        'np.where(late_K, "deadline", np.where(active_K, "", "outage"))',
        'np.where(active_K, "", "outage")',
        "who does not arrive has a reason",
        "not arrived, reason ''",
    ),
    (
        "channel",
        '"NAME.position", clients_K)',
        '"NAME.position", np.arange(len(clients_K)))',
        "a gain is a function of",
        "in company|order",
    ),
    (
        "channel",
        '"NAME.fading", clients_K, block)',
        '"NAME.fading", clients_K, np.random.default_rng().integers(99))',
        "a gain is a function of",
        "the second time",
    ),
    (
        "channel",
        "return ChannelState(path_K * power_K, path_K * power_K)",
        "return ChannelState(-path_K, path_K)",
        "gains are finite",
        "finite and not negative",
    ),
    ("channel", 'return [("Path loss"', 'return [(1, 2), ("Path loss"', "describe, where there is one", "as text"),
]


@pytest.mark.parametrize(("kind", "old", "new", "promise", "fault"), BROKEN)
def test_a_broken_promise_is_seen_and_named(without_runs, kind, old, new, promise, fault):
    path = write_template(kind, "broken")
    old, new = old.replace("NAME", "broken"), new.replace("NAME", "broken")
    source = path.read_text()
    assert old in source
    path.write_text(source.replace(old, new))
    found = faults(kind, str(path))
    said = next((text for name, text in found.items() if name.startswith(promise)), None)
    assert said is not None, found
    assert re.search(fault, said), said
    assert "\n" not in said


def test_what_a_plug_in_raises_is_named_with_its_line(without_runs):
    path = write_template("channel", "broken")
    path.write_text(path.read_text().replace("        path_K = ", "        1 / 0\n        path_K = "))
    line = next(n for n, text in enumerate(path.read_text().splitlines(), 1) if "1 / 0" in text)
    assert set(faults("channel", str(path)).values()) >= {
        f"ZeroDivisionError: division by zero (broken.py, line {line})"
    }


def test_a_run_that_does_not_go_through_is_a_fault():
    path = write_template("allocator", "late")
    source = path.read_text().replace(
        "def decide(share: float, cohort: Cohort, tick: int, rng: Rng) -> Allocation:",
        """def decide(share, cohort, tick, rng):
    if tick == 2 and len(cohort.active_K) == 3:
        raise ValueError('late')""",
    )
    path.write_text(source)
    found = faults("allocator", str(path))
    assert [name for name in found if name.startswith("a run of two rounds")], found
    assert "allocator late, round 2: ValueError: late" in " ".join(found.values())


def test_a_file_of_no_kind_is_refused():
    Path("no.py").write_text("x = 1\n")
    with pytest.raises(ConfigError, match=r"^no\.py has no class `Config` that derives from one of MethodConfig, "):
        kind_of("no.py")
    Path("half.py").write_text("from raysoft.codecs.base import CodecConfig\nclass Config(CodecConfig): ...\n")
    with pytest.raises(ConfigError, match=r"^half\.py has no function `build`"):
        kind_of("half.py")
