"""FLoRA: what is merged is exact, and it is what is trained on, evaluated, exported, resumed and paid for."""

import json

import numpy as np
import pytest

from raysoft.config.presets import load_config
from raysoft.errors import ConfigError
from raysoft.models.adapter import as_adapter, import_peft
from raysoft.models.digest import adapter_sha256
from raysoft.runs.run import resume, run
from raysoft.types import GlobalModel
from tests.rounds import SMALL, rounds_of
from tests.unit.methods.spaces import space

TIERS = "model.lora.rank={low: 2, high: 8}"


def effective(model, shape):
    """The change of W0 by module."""
    return {
        pair.module: model.base.get(pair.module, 0.0)
        + shape.scale * model.theta[pair.b].astype(float) @ model.theta[pair.a].astype(float)
        for pair in shape.pairs
    }


def model_after(preset, *words, count=1):
    parts, states, _ = rounds_of(preset, *words, count=count)
    return effective(parts.method.model(states[-1].server), parts.info.space)


@pytest.mark.parametrize("other", ["flora", "lora-fair", "flexlora", "fedex"])
def test_one_client_leads_to_the_same_weights_as_with_fedit(other):
    alone = ("cohort.size=1", "model.lora.init=peft")
    one, two = (model_after(preset, *alone) for preset in ("fedit", other))
    for module, value in one.items():
        np.testing.assert_allclose(two[module], value, atol=1e-6)


@pytest.mark.parametrize("words", [(), (TIERS,)])
def test_the_products_add_up_exactly_for_any_ranks(words):
    parts, states, records = rounds_of("flora", *words, count=3)
    assert all(record.aggregation_covariance == 0.0 for record in records)
    assert all(record.metrics["applied_cosine"] == pytest.approx(1.0) for record in records)
    first, last = states[1].server, states[-1].server
    assert all((last.theta[pair.b] == 0).all() for pair in parts.info.space.pairs), "every round begins anew"
    assert any((first.theta[pair.a] != last.theta[pair.a]).any() for pair in parts.info.space.pairs)
    assert first.extra["flora/seed"] == last.extra["flora/seed"]
    ranks = [np.linalg.matrix_rank(value.astype(float), tol=1e-7) for value in first.base.values()]
    assert 8 < max(ranks) <= 24, "three clients of up to rank 8"


def test_every_run_draws_its_own_fresh_rows():
    one, two = (rounds_of("flora", f"seed={seed}", count=1)[1][-1].server for seed in (0, 1))
    assert any((one.theta[name] != two.theta[name]).any() for name in one.theta if name.endswith("lora_A"))


def test_a_warm_start_goes_on_along_what_was_merged_last():
    parts, states, records = rounds_of("flora", "method.restart=warm", "model.lora.init=orthogonal", count=2)
    one, two = (state.server for state in states[1:])
    assert all(record.aggregation_covariance == 0.0 for record in records)
    for pair in parts.info.space.pairs:
        last = two.base[pair.module].astype(float) - one.base[pair.module]
        a = two.theta[pair.a].astype(float)
        np.testing.assert_allclose(a @ a.T, np.eye(8) / 3, atol=1e-6)
        right = np.linalg.svd(last)[2][:8]
        captured = np.linalg.norm(last @ a.T) * np.sqrt(3)
        assert captured == pytest.approx(np.linalg.norm(last @ right.T), rel=1e-4)
        assert not two.theta[pair.b].any()
    view = parts.method.view(parts.method.broadcast(two, 3), 0, 4, 3, {"base_version": np.array(2)})
    assert view.downlink.total == 32 * 4 * sum(pair.in_features for pair in parts.info.space.pairs), "A is no seed"
    assert set(view.start) == view.trains


def test_who_was_away_pays_for_what_it_missed():
    parts, states, _ = rounds_of("flora", count=4)
    last = states[-1].server
    down = parts.method.broadcast(last, 5)
    sizes = [parts.method.view(down, 0, 8, 5, {"base_version": np.array(v)}).downlink.catch_up for v in range(5)]
    whole = 32 * sum(pair.out_features * pair.in_features for pair in parts.info.space.pairs)
    assert sizes == [min(sum(last.base_bits[v:]), whole) for v in range(5)]
    assert sizes[-1] == 0
    assert last.base_bits[0] == 3 * 32 * 8 * sum(p.out_features + p.in_features for p in parts.info.space.pairs)
    versions = {k: int(state.method["base_version"]) for k, state in states[-1].clients.items()}
    assert max(versions.values()) == 3, "who took part in round 4 has what the three rounds before it merged"


def test_an_adapter_of_the_untouched_base_is_the_merged_model():
    draws = np.random.default_rng(0)
    shape = space(3)
    theta = {name: draws.normal(size=size).astype(np.float32) for name, size in shape.shapes.items()}
    base = {p.module: draws.normal(size=(p.out_features, p.in_features)).astype(np.float32) for p in shape.pairs}
    made, values = as_adapter(shape, GlobalModel(theta, base))
    for module, wanted in effective(GlobalModel(theta, base), shape).items():
        np.testing.assert_allclose(effective(GlobalModel(values), made)[module], wanted, atol=1e-5)
    np.testing.assert_array_equal(values["head"], theta["head"])
    assert as_adapter(shape, GlobalModel(theta)) == (shape, theta)


def test_evaluated_exported_hashed_and_resumed_on_the_merged_model(tmp_path):
    config = load_config("flora", [*SMALL, TIERS, "executor=inline", "eval.every=1"])
    whole = run(config, tmp_path / "whole")
    half = load_config("flora", [*SMALL, TIERS, "executor=inline", "eval.every=1", "rounds=2"])
    run(half, tmp_path / "half")
    gone_on = resume(tmp_path / "half", ["rounds=4"])
    assert gone_on.summary["adapter_sha256"] == whole.summary["adapter_sha256"]
    rows = [
        [{k: v for k, v in json.loads(line).items() if k != "wall_time_s"} for line in text.splitlines()]
        for text in ((tmp_path / name / "rounds.jsonl").read_text() for name in ("whole", "half"))
    ]
    assert rows[0] == rows[1]
    # The folder alone, on the untouched base, gives the same accuracy as the last round's evaluation.
    parts, states, _ = rounds_of("flora", TIERS, count=4)
    made, values = as_adapter(parts.info.space, parts.method.model(states[-1].server))
    assert adapter_sha256(values) == whole.summary["adapter_sha256"]
    stored = import_peft(tmp_path / "whole" / "adapter", made)
    assert all((stored[name] == values[name]).all() for name in values)
    merged = effective(GlobalModel(stored), made)
    wanted = effective(parts.method.model(states[-1].server), parts.info.space)
    assert max(np.abs(merged[module] - wanted[module]).max() for module in wanted) < 1e-6
    assert rows[0][-1]["loss"] != rows[0][0]["loss"], "evaluation sees what was merged"


def test_what_remembers_coordinates_is_refused():
    for words, field in (
        (["codec.error_feedback=true"], r"codec\.error_feedback"),
        (["method.extras=[{name: scaffold}]", "train.clip_norm=null"], r"method\.extras"),
        (["model.lora.init=orthogonal"], r"model\.lora\.init"),
    ):
        with pytest.raises(ConfigError, match=f"{field}: .*flora"):
            load_config("flora", words)


def test_training_and_evaluation_go_on_from_the_merged_base():
    """A second round that starts at B = 0 must see the first one's loss, not the base's."""
    parts, states, _ = rounds_of("flora", "eval.every=1", "train.lr=1e-12", count=1)
    theta = states[-1].server.theta
    bases = {p.module: np.full((p.out_features, p.in_features), 0.05, np.float32) for p in parts.info.space.pairs}
    trainer = parts.executor.worker.trainer
    examples = parts.executor.worker.workload.data.test.take(np.arange(32))
    plain = trainer.evaluate(theta, examples, 32)["loss_sum"]
    trainer.rebase(bases)
    bent = trainer.evaluate(theta, examples, 32)["loss_sum"]
    trainer.rebase({})
    assert trainer.evaluate(theta, examples, 32)["loss_sum"] == plain
    assert bent != plain
