"""Any two plug-ins of two kinds together, and odd but legal settings: whole runs whose records must add up.

The pairs are those of a covering array (tests/covering.py), a tenth of which runs in the quick suite. What cannot go
together is refused, by the right setting and for the right reason. Each run is tiny (digits, two rounds) and checked
against the identities that any run obeys, never against recorded numbers. Warnings are errors here: a user could do
nothing about them.
"""

from __future__ import annotations

import gc
import json
import math
import warnings
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raysoft.allocation.tsfa import WARM_UP
from raysoft.api.listing import KINDS, Compatibility
from raysoft.config import Plugin, RunConfig, Traits, registry
from raysoft.config.clashes import CLASHES, Chosen
from raysoft.config.presets import load_config
from raysoft.errors import ConfigError, RaysoftError
from raysoft.runs.run import run
from raysoft.types import RANK_BITS
from tests import noisy_sum
from tests.conftest import records, summary
from tests.covering import Pair, covering, pairs_of

TINY = [
    "executor=inline",
    "rounds=2",
    "data.clients=12",
    "cohort.size=4",
    "train.steps=1",
    "train.batch_size=4",
    "data.max_test_samples=100",
    "tracking.tensorboard=false",
    "actors.pack_size=2",
]
NONE = "none"
# The values of every kind: each plug-in as it is, and some in other ways, which send or need something else.
VALUES: dict[str, dict[str, dict[str, Any]]] = {
    "method": {
        **{name: {"name": name} for name in registry.METHODS},
        "soft one order": {"name": "soft", "shared_mask": True},
        "soft in singular coordinates": {"name": "soft", "reorthogonalize": True},
    },
    "extra": {NONE: {}, **{name: {"name": name} for name in registry.EXTRAS}},
    "codec": {
        **{name: {"name": name} for name in registry.CODECS},
        "chain": {"name": "chain", "codecs": [{"name": "topk"}, {"name": "quantize"}]},
        "topk update": {"name": "topk", "of": "update"},
        "topk remembered": {"name": "topk", "error_feedback": True},
        "rank_components remembered": {"name": "rank_components", "error_feedback": "transport"},
        "randomk entries": {"name": "randomk", "unit": "entry"},
        "randomk unbiased": {"name": "randomk", "unbiased": True},
    },
    "allocator": {name: {"name": name} for name in registry.ALLOCATORS},
    "uplink": {name: {"name": name} for name in (*registry.UPLINKS, "noisy_sum")},
    "channel": {name: {"name": name} for name in registry.CHANNELS if name != "trace"},  # which needs a file
}
# A budget that the dense uplink with values beside it can meet over every channel.
ROOMY = "allocator.latency_budget_s=2"
IDEAL = ["allocator.name=ideal", "uplink.name=ideal"]


@cache
def traits(kind: str, value: str) -> Traits:
    """What a plug-in needs of the others."""
    section = VALUES[kind][value]
    found: Traits = noisy_sum.Config.TRAITS if value == "noisy_sum" else registry.traits(kind, Plugin(**section))
    return found


def works(run: Mapping[str, str]) -> bool:
    """Whether no clash of the table is between the plug-ins that are chosen so far."""
    named = {kind: value for kind, value in run.items() if value != NONE}
    chosen = Chosen(
        names=named,
        traits={kind: traits(kind, value) for kind, value in named.items() if kind != "extra"},
        extras={value: traits(kind, value) for kind, value in named.items() if kind == "extra"},
        plain_sgd=True,
        train_head=True,
        lora_init="peft",
        latency_budget_s=0.3,
        others=registry.with_trait,
    )
    return not any(clash.when(chosen) for clash in CLASHES if set(clash.kinds) <= set(named))


RUNS, IMPOSSIBLE = covering({kind: list(values) for kind, values in VALUES.items()}, works, seed=0)
QUICK = len(RUNS) // 10


def settings_of(run: Mapping[str, str]) -> list[str]:
    """The overrides of a run, with what its plug-ins need besides."""
    words = [ROOMY] + [
        f"{kind}.{key}={value if key == 'name' else json.dumps(value)}"
        for kind in run
        if kind != "extra"
        for key, value in VALUES[kind][run[kind]].items()
    ]
    if run["extra"] != NONE:
        words.append(f"method.extras={json.dumps([VALUES['extra'][run['extra']]])}")
        words += ["train.clip_norm=null"] if traits("extra", run["extra"]).plain_sgd else []
    return words + (["model.lora.train_head=true"] if traits("method", run["method"]).needs_head else [])


@pytest.fixture(autouse=True, scope="module")
def _clean() -> None:
    """Files and processes that earlier modules left to the garbage collector are no warnings of these runs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gc.collect()


@pytest.fixture(autouse=True)
def _noisy_sum(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The analog uplink among the built-in ones."""
    with monkeypatch.context() as patch:
        patch.setitem(registry.UPLINKS, "noisy_sum", "tests.noisy_sum")
        _forget()
        yield
    _forget()


def _forget() -> None:
    for known in (registry.names, registry.plugin):
        known.cache_clear()


# With few samples each: a thousand of them are evaluated in the end.
MILLION = ["data.partition=virtual", "data.clients=1000000", "data.samples_per_client=16"]
EVERYBODY_OUT = ["channel.bandwidth_hz=1", "allocator.name=equal"]
ODD = {
    "mixed ranks": ["model.lora.rank={low: 2, high: 8}"],
    "mixed steps": ["train.steps={low: 1, high: 3}"],
    "trained head in 8 bits": ["model.lora.train_head=true", "codec.head_bits=8"],
    "trained head in 1 bit, adamw": ["model.lora.train_head=true", "codec.head_bits=1", "train.optimizer=adamw"],
    "head only": ["model.lora.train_head=true", "method.name=head_only"],
    "head only, in 8 bits, without a channel": [
        "model.lora.train_head=true",
        "method.name=head_only",
        "codec.head_bits=8",
        *IDEAL,
    ],
    "ecsq, head only": ["codec.name=ecsq", "model.lora.train_head=true", "method.name=head_only"],
    "ecsq, mixed ranks, trained head in 8 bits, error feedback": [
        "codec={name: ecsq, gain: unbiased, head_bits: 8, error_feedback: true}",
        "model.lora.rank={low: 2, high: 8}",
        "model.lora.train_head=true",
        "allocator.name=minmax",
    ],
    "error feedback": ["codec.error_feedback=true"],
    "error feedback, everything lost": ["codec.error_feedback=true", "uplink.deadline_s=1e-6", "allocator.name=equal"],
    "imperfect CSI": ["channel.csi_error=0.3"],
    "no CSI to speak of": ["channel.csi_error=0.99"],
    "correlated fading": ["channel.correlation_time_rounds=5"],
    "packet errors": ["uplink.packet_error=snr"],
    "sensitivity": ["uplink={name: fdma, sensitivity_dbm: 300}"],
    "broadcast": ["uplink.downlink=broadcast"],
    "deadline": ["uplink.deadline_s=0.05"],
    "everybody in outage": EVERYBODY_OUT,
    "a million clients": MILLION,
    "evaluated every third round": ["eval.every=3", "rounds=4"],
    "one of the cohort": ["cohort.size=1"],
    "one client": ["data.clients=1", "cohort.size=1"],
    "a thousand times the payload": ["device.payload_scale=1000", "allocator.latency_budget_s=300"],
    "a huge band": ["channel.bandwidth_hz=1e12"],
    **{f"channel {name}": [f"channel={{name: {name}}}"] for name in registry.CHANNELS if name != "trace"},
    "largest budget": ["allocator.latency_budget_s=1e30"],
    "largest v": ["allocator.v=1e30"],
    "smallest v, certified": ["allocator.v=1e-30", "allocator.certify=1e-3"],
    "largest start queue": ["allocator.queue_start=1e30"],
    "empty start queue": ["allocator.queue_init=zero"],
    "largest energies": [
        "device.kappa=1e30",
        "device.cpu_hz=1e30",
        "device.compute_scale=1e30",
        "allocator={name: equal}",
    ],
    "slowest processors": ["device.cpu_hz=1e-30", "allocator.name=equal"],
    "least of nothing": ["codec.min_kept_fraction=1e-320", "codec.kept_fraction=1e-320", "allocator.name=equal"],
    "large alpha": ["model.lora.alpha=1e30", "rounds=1"],
    "batch larger than the data": ["train.batch_size=100000"],
}


class Counted:
    """A codec whose payloads are noted, and must be read as what their `received` says.

    Also noted: how many values travel at full length, which is what SCAFFOLD sends beside a payload.
    """

    def __init__(self, codec: Any, seen: list[tuple[Any, int]]) -> None:
        self._codec, self._seen = codec, seen

    def __getattr__(self, name: str) -> Any:
        return getattr(self._codec, name)

    def encode(self, update: Any, view: Any, memory: Any, units: int, rng: Any) -> Any:
        encoded = self._codec.encode(update, view, memory, units, rng)
        self._seen.append((encoded.payload, sum(view.start[name].size for name in view.trains)))
        read = self._codec.decode(encoded.payload, view, units)
        assert set(read) == set(encoded.received) == view.trains
        assert all(read[name].tobytes() == value.tobytes() for name, value in encoded.received.items())
        return encoded


def ran(folder: Path, overrides: list[str], monkeypatch: pytest.MonkeyPatch, report: bool = False) -> RunConfig:
    """Run, and hold the records against what every run obeys."""
    build, sent = registry.build, []

    def counting(kind: str, *args: Any) -> Any:
        built = build(kind, *args)
        return Counted(built, sent) if kind == "codec" else built

    monkeypatch.setattr(registry, "build", counting)
    run(load_config("soft", [*TINY, *overrides]), folder, report=report)
    config = load_config(str(folder / "config.yaml"))
    rows = records(folder)
    check_records(config, rows)
    assert all(len(payload.data) == -(-payload.num_bits // 8) for payload, _ in sent)
    beside = 32 if "scaffold" in {extra["name"] for extra in config.method.options()["extras"]} else 0
    rank = RANK_BITS if config.method.name == "hetlora" else 0  # it says how many components it sends
    on_the_air = sum(payload.num_bits + rank + beside * values for payload, values in sent)
    on_the_air *= config.device.payload_scale
    assert math.isclose(sum(row["uplink_bits"] for row in rows), on_the_air, rel_tol=1e-12, abs_tol=len(rows))
    return config


def check_records(config: RunConfig, rows: list[dict[str, Any]]) -> None:
    assert [row["round"] for row in rows] == list(range(config.rounds + 1))
    clock = 0.0
    for row in rows[1:]:
        clients = row["metrics"]["clients"]
        assert row["participants"] + row["dropped"] == config.cohort.size
        assert sum(row["drop_reasons"].values()) == row["dropped"]
        assert clients["status"].count("ok") == row["participants"]
        for key in ("round_latency_s", "simulated_time_s", "energy_j", "train_loss"):
            assert row[key] is not None, key
        for key in ("round_latency_s", "energy_j", "uplink_bits", "control_bits", "downlink_bits"):
            assert row[key] >= 0, key
        assert (row["accuracy"] is None) == bool(row["round"] % config.eval.every and row["round"] != config.rounds)
        assert row["kept_fraction_mean"] is None or 0 < row["kept_fraction_mean"] <= 1
        assert row["sparsification_error"] is None or row["sparsification_error"] >= -1e-9
        assert (row["sparsification_error"] is None) == (row["participants"] == 0)
        assert all(value is not None for value in row["metrics"].values())
        assert all(0 <= kept <= 1 for kept in clients["kept_fraction"])
        assert all(value is not None for key in ("latency_s", "energy_j") for value in clients[key])
        if config.uplink.name == "fdma":
            shared = math.fsum(clients["bandwidth_hz"])
            assert shared <= config.channel.options()["bandwidth_hz"] * (1 + 1e-4)  # six digits are recorded
        clock += row["round_latency_s"]
        assert math.isclose(row["simulated_time_s"], clock, rel_tol=1e-9)
    if config.allocator.name == "tsfa" and config.rounds:
        check_queue(config.allocator.options()["latency_budget_s"], rows[1:])


def check_queue(budget_s: float, rows: list[dict[str, Any]]) -> None:
    """Z_(t+1) = max(Z_t + tau_t - budget, 0) step by step, and what follows for the mean latency.

    While a steady start is being found, a round that tells its stationary queue begins as if the run had started at
    the median of those told so far, with the overrun since; the others begin where the round before ended.
    """
    starts = [row["metrics"]["queue_s"] for row in rows]
    ends = [row["queue_s"] for row in rows]
    size = max(budget_s, *starts, *ends)
    told: list[float] = []
    overrun, begun = 0.0, starts[0]  # `begun`: what the run counts as having started at
    for number, (start, end, row) in enumerate(zip(starts, ends, rows, strict=True)):
        if "queue_start_s" in row["metrics"]:
            told.append(row["metrics"]["queue_start_s"])
            begun = float(np.median(told))
            assert math.isclose(start, max(begun + overrun, 0.0), rel_tol=1e-9, abs_tol=1e-9 * size)
        elif number:
            assert start == ends[number - 1]
        assert math.isclose(end, max(start + row["round_latency_s"] - budget_s, 0.0), rel_tol=1e-9, abs_tol=1e-9 * size)
        overrun += row["round_latency_s"] - budget_s
    assert len(told) <= WARM_UP
    mean = math.fsum(row["round_latency_s"] for row in rows) / len(rows)
    assert mean <= budget_s + (ends[-1] - begun) / len(rows) + 1e-9 * size


pytestmark = pytest.mark.filterwarnings("error")


def id_of(run: Mapping[str, str]) -> str:
    return "-".join(run.values())


@pytest.mark.parametrize(
    "chosen",
    [pytest.param(one, marks=[pytest.mark.slow] if n >= QUICK else [], id=id_of(one)) for n, one in enumerate(RUNS)],
)
def test_plugins_work_together(tmp_path, monkeypatch, chosen):
    ran(tmp_path / "run", settings_of(chosen), monkeypatch)


FOLLOWERS = {"rank_components", "rank_components remembered"}
ANALOG = ("uplink", "noisy_sum")
MOVING = {
    "flora": "name=flora",
    "flexlora": "name=flexlora",
    "hetlora": "gamma=0.99",
    "rolora": "name=rolora",
    "soft in singular coordinates": "reorthogonalize=true",
}
PRODUCTS = ("flora", "flexlora", "fedex", "hetlora", "lora_fair", "median")  # need more of each client than sums
# Every two that cannot go together: the setting at which they are refused, and some words of the reason.
REFUSED = {
    (("allocator", "ideal"), ("uplink", "fdma")): ("allocator.name", "ideal has no channel limit"),
    **{
        (("allocator", name), ("uplink", uplink)): ("uplink.name", f"{uplink} has no bandwidth to share")
        for name in VALUES["allocator"]
        for uplink in ("ideal", "noisy_sum")
        if name != "ideal"
    },
    **{
        (("method", "soft one order"), ("codec", name)): (
            "method.shared_mask",
            f"{VALUES['codec'][name]['name']} does not",
        )
        for name in VALUES["codec"]
        if name not in FOLLOWERS
    },
    **{
        (("method", name), ("codec", "topk remembered")): ("codec.error_feedback", f"method.{setting} changes between")
        for name, setting in MOVING.items()
    },
    (("method", "rolora"), ("codec", "rank_components remembered")): ("codec.error_feedback", "rolora does not train"),
    (("method", "flasc"), ("codec", "rank_components remembered")): ("codec.error_feedback", "transport goes by the"),
    **{
        (("method", name), ("extra", extra)): ("method.extras", f"method.{setting} changes between")
        for name, setting in MOVING.items()
        for extra in registry.EXTRAS
        if traits("extra", extra).fixed_gauge or (traits("extra", extra).server_step and name != "rolora")
    },
    **{
        (("method", "head_only"), ("extra", extra)): ("method.extras", f"{extra} acts on the LoRA factors")
        for extra in registry.EXTRAS
        if traits("extra", extra).needs_factors
    },
    (("method", "soft one order"), ("extra", "shared_order")): ("method.extras", "would each give an order"),
    **{
        (("extra", "shared_order"), ("codec", name)): ("method.extras", f"{VALUES['codec'][name]['name']} does not")
        for name in VALUES["codec"]
        if name not in FOLLOWERS
    },
    **{(("method", name), ANALOG): ("uplink.name", f"{name} needs") for name in PRODUCTS},
    **{
        (("codec", name), ANALOG): ("codec.name", f"{VALUES['codec'][name]['name']}, as it is set, sends other entries")
        for name in VALUES["codec"]
        if name not in {"identity", *FOLLOWERS}
    },
    **{
        (("method", "median"), ("codec", name)): ("codec.name", "cannot tell who sent a component")
        for name in VALUES["codec"]
        if not traits("codec", name).sends_components
    },
    **{
        (("method", name), ("codec", codec)): ("codec.fallback", "zero needs a method that sends both factors")
        for name in ("ffa", "rolora", "head_only")
        for codec in VALUES["codec"]
        if traits("codec", codec).needs_both_factors
    },
    (("extra", "scaffold"), ANALOG): ("uplink.name", "scaffold sends exact values beside the update"),
}
PLAIN = {
    "method": "fedit",
    "extra": NONE,
    "codec": "identity",
    "allocator": "equal",
    "uplink": "fdma",
    "channel": "static",
}


@pytest.mark.parametrize("pair", REFUSED, ids=lambda pair: "-".join(value for _, value in pair))
def test_what_cannot_work_together_is_refused_with_the_reason(pair):
    field, words = REFUSED[pair]
    company = {"allocator": "ideal", "uplink": "ideal"} if dict(pair).get("uplink", "fdma") != "fdma" else {}
    if dict(pair).get("extra") == "shared_order":
        company["codec"] = "rank_components"
    with pytest.raises(ConfigError) as refused:
        load_config("soft", settings_of({**PLAIN, **company, **dict(pair)}))
    assert refused.value.field == field
    assert words in str(refused.value)


def every_pair(values: Mapping[str, Iterable[str]]) -> set[Pair]:
    return {
        pair
        for one, two in combinations(KINDS, 2)
        for pair in product(product([one], values[one]), product([two], values[two]))
    }


def test_every_pair_is_run_or_refused():
    assert {kind for clash in CLASHES for kind in clash.kinds} <= set(KINDS) == set(registry.KINDS)
    assert set(IMPOSSIBLE) == set(REFUSED)
    assert {pair for one in RUNS for pair in pairs_of(one, KINDS)} == every_pair(VALUES) - set(REFUSED)


def test_the_registry_says_the_same_of_each_two_plug_ins():
    """What `raysoft list --matrix` shows: no array and no table of clashes, each pair is asked in some company."""
    asked = Compatibility()
    pairs = every_pair(registry.KINDS)
    refused = {pair: error for pair in sorted(pairs) if (error := asked.refusal(dict(pair))) is not None}
    # The list's chain begins with rank_components, not topk.
    chain = {(("method", "median"), ("codec", "chain")), (("extra", "shared_order"), ("codec", "chain"))}
    alone = (("codec", "rank_components"), ANALOG)  # needs method.shared_mask=true, which is no default
    assert set(refused) == ((set(REFUSED) & pairs) - chain) | {alone}
    for pair, error in refused.items():
        field, words = REFUSED.get(pair, ("codec.name", "rank_components, as it is set, sends other entries"))
        assert (error.field, words in str(error)) == (field, True), pair


@pytest.mark.parametrize("case", ODD)
def test_odd_but_legal_settings(tmp_path, monkeypatch, case):
    ran(tmp_path / "run", ODD[case], monkeypatch)


def test_training_that_diverges_says_so(tmp_path, monkeypatch):
    """The energies of such updates have no float32, so no codec could report its curve."""
    with pytest.raises(RaysoftError, match=r"round 1: no client's update is finite; training diverged"):
        ran(tmp_path / "run", ["train.weight_decay=1e30", "rounds=1"], monkeypatch)


@pytest.mark.parametrize("overrides", [EVERYBODY_OUT, ["rounds=0"], ["data.clients=1", "cohort.size=1"]])
def test_odd_runs_have_a_report_without_a_warning(tmp_path, monkeypatch, overrides):
    ran(tmp_path / "run", overrides, monkeypatch, report=True)
    assert (tmp_path / "run" / "report.html").stat().st_size > 10_000


def test_a_report_of_the_largest_energies(tmp_path, monkeypatch):
    """The closing table and the radio table multiply what the records hold: still finite at the ends of all ranges."""
    ran(tmp_path / "run", ODD["largest energies"], monkeypatch, report=True)
    assert json.dumps(summary(tmp_path / "run"), allow_nan=False)


@pytest.mark.parametrize(
    "overrides",
    [
        ["model.lora.rank={low: 2, high: 8}", "train.steps={low: 1, high: 3}", "codec.error_feedback=true"],
        [
            "codec={name: chain, codecs: [{name: topk}, {name: quantize}], error_feedback: true}",
            "model.lora.train_head=true",
            "codec.head_bits=8",
        ],
        [
            "codec.name=randomk",
            "codec.unbiased=true",
            "channel={name: umi}",
            "channel.csi_error=0.3",
            "uplink.packet_error=snr",
        ],
        ["allocator.name=random", *MILLION, "train.optimizer=adamw"],
    ],
)
def test_odd_runs_repeat_and_do_not_depend_on_the_pack_size(tmp_path, monkeypatch, overrides):
    folders = {name: tmp_path / name for name in ("one", "two", "packed")}
    for name, folder in folders.items():
        with monkeypatch.context() as patch:
            ran(folder, [*overrides, *(["actors.pack_size=4"] if name == "packed" else [])], patch)
    assert records(folders["one"]) == records(folders["two"])
    assert summary(folders["one"])["adapter_sha256"] == summary(folders["two"])["adapter_sha256"]
    for one, packed in zip(records(folders["one"])[1:], records(folders["packed"])[1:], strict=True):
        assert one["metrics"]["clients"]["id"] == packed["metrics"]["clients"]["id"]
        assert math.isclose(one["train_loss"], packed["train_loss"], rel_tol=1e-4)
