"""SOFT's parts under other methods (6.11): the penalty as an extra, and the component codec under each of them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from raysoft.codecs import rank_components
from raysoft.codecs.measure.factors import Layout
from raysoft.config import TrainConfig
from raysoft.config.presets import load_config
from raysoft.errors import ConfigError
from raysoft.federation.client import Worker
from raysoft.kernels.lowrank import product_norm2
from raysoft.methods import ffa, flora
from raysoft.methods.building import ExtraError, build_method
from raysoft.methods.extras import orthogonal
from raysoft.methods.extras.base import ExtraContext
from raysoft.methods.folds import STACK, Arrived
from raysoft.methods.initial import initial_theta
from raysoft.methods.rules.orthogonality import OrthogonalityPenalty
from raysoft.methods.rules.shared_order import AGE, NEVER, order_bits
from raysoft.rng import Rng
from raysoft.types import ORDER, LocalJob, ServerState
from tests import noisy_sum
from tests.plug_in_packages import make_package
from tests.rounds import rounds_of
from tests.unit.methods.spaces import PAIRS, space

COMPONENTS = "codec={name: rank_components, kept_fraction: 0.4}"
ORTHOGONAL = "method.extras=[orthogonal]"
METHODS = ("fedit", "ffa", "rolora", "lora_fair", "flora")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("head", ["false", "true"])
def test_counted_bits_are_those_of_the_bytes(monkeypatch, method, head):
    """Two rounds of each composition; what is booked is the length of what was serialised."""
    encoded, sent = Worker._encoded, []

    def noted(worker, *args):
        found = encoded(worker, *args)
        assert len(found.payload.data) == -(-found.payload.num_bits // 8)
        sent.append(found.payload.num_bits)
        return found

    monkeypatch.setattr(Worker, "_encoded", noted)
    words = (f"method.name={method}", COMPONENTS, ORTHOGONAL, f"model.lora.train_head={head}")
    _, _, records = rounds_of("minmax", *words, "allocator.outage_factor=1e9", count=2)
    assert len(sent) == 6
    assert sum(record.uplink_bits for record in records) == sum(sent)
    for record in records:
        assert record.participants == 3
        assert record.kept_fraction_mean <= 0.4 if head == "false" else record.kept_fraction_mean < 1.0


def test_fedit_with_both_parts_is_soft_bit_for_bit():
    """Everything alike, also which components travel and what is booked."""
    _, soft, records = rounds_of("soft", count=3)
    _, fedit, others = rounds_of("soft", "method={name: fedit, extras: [orthogonal]}", count=3)
    for one, two in zip(soft, fedit, strict=True):
        assert all(one.server.theta[name].tobytes() == two.server.theta[name].tobytes() for name in one.server.theta)
    assert [replace(one, wall_time_s=0.0) for one in records] == [replace(two, wall_time_s=0.0) for two in others]


BOTH = "extras: [orthogonal, shared_order]"


def test_with_the_shared_order_it_is_soft_with_a_shared_mask_bit_for_bit():
    """The order, what it costs on the way down, and the uploads without a mask."""
    _, soft, records = rounds_of("soft", "method.shared_mask=true", count=3)
    parts, fedit, others = rounds_of("soft", f"method={{name: fedit, {BOTH}}}", count=3)
    for one, two in zip(soft, fedit, strict=True):
        assert one.server.extra.keys() == two.server.extra.keys()
        for before, after in ((one.server.theta, two.server.theta), (one.server.extra, two.server.extra)):
            assert all(before[name].tobytes() == after[name].tobytes() for name in before)
    assert [replace(one, wall_time_s=0.0) for one in records] == [replace(two, wall_time_s=0.0) for two in others]
    views = [parts.method.view(parts.method.broadcast(fedit[-1].server, 4), 0, rank, 4) for rank in (8, 3)]
    pairs = len(parts.info.space.pairs)
    assert [view.downlink.side for view in views] == [order_bits(pairs * 8), order_bits(pairs * 3)]


@pytest.mark.parametrize("method", ["ffa", "lora_fair", "flasc"])
def test_the_shared_order_under_other_methods(method):
    """Every client sends the same components, values alone; whoever waits is next."""
    words = (f"method={{name: {method}, {BOTH}}}", COMPONENTS, "allocator.outage_factor=1e9")
    parts, states, records = rounds_of("minmax", *words, count=3)
    pairs, rank = parts.info.space.pairs, parts.info.space.rank
    width = pairs[0].out_features * (1 if method == "ffa" else 2)
    assert {(pair.out_features, pair.in_features) for pair in pairs} == {(pairs[0].out_features,) * 2}
    for record in records:
        assert record.uplink_bits % (3 * 32 * width) == 0  # whole components of all three, and not a bit more
    count = records[0].uplink_bits // (3 * 32 * width)
    sent = [int((state.server.extra[AGE] == 0).sum()) for state in states[1:]]
    assert sent == [count] * 3
    assert (states[3].server.extra[AGE] != NEVER).sum() == min(3 * count, len(pairs) * rank)


def test_a_shared_order_makes_any_method_fit_for_the_air(monkeypatch, tmp_path):
    """All send the same entries, which an analog uplink can add up."""
    monkeypatch.syspath_prepend(
        make_package(tmp_path / "site", "uplinks", "noisy_sum", Path(noisy_sum.__file__).read_text())
    )
    words = ("allocator={name: ideal}", "uplink.name=noisy_sum", "uplink.noise_std=0", COMPONENTS)
    _, _, records = rounds_of("soft", "method={name: ffa, extras: [shared_order]}", *words, count=2)
    assert [record.participants for record in records] == [3, 3]
    with pytest.raises(ConfigError, match=r"^codec\.name: rank_components, as it is set, sends other entries"):
        load_config("soft", ["method={name: ffa}", *words])


def test_an_order_that_no_trait_tells_is_an_error():
    """It would travel for nothing."""
    method = build_method(load_config("soft", ["method={name: fedit, extras: [shared_order]}"]), space(), 4)
    server = ServerState({name: np.zeros(shape, np.float32) for name, shape in space().shapes.items()})
    assert ORDER in method.broadcast(server, 1).side
    with pytest.raises(ExtraError, match="shared_order: side gives an order: its Config needs the trait common_order"):
        replace(method, gives_order=False).broadcast(server, 1)


def job_of(trains, **options):
    """The job of a client as the extra changes it."""
    theta = {name: np.zeros(shape, np.float32) for name, shape in space().shapes.items()}
    made = build_method(load_config("fedit"), space(), 4)
    view = replace(made.view(made.broadcast(ServerState(theta), 1), 0, 3, 1), trains=frozenset(trains))
    extra = orthogonal.build(orthogonal.Config(**options), ExtraContext(space(), TrainConfig(), 4))
    return extra.local(LocalJob(view.start, 1, view.trains), view, {}, np.random.default_rng(0))


def test_the_penalty_by_hand():
    """Two components, rows (1, 0, ..) and (3, 4, ..) of A: cos = 0.6; columns of B: (1, 1, ..) and (1, 0, ..)."""
    now = {name: torch.zeros(1, *shape, dtype=torch.float64) for name, shape in space(2).shapes.items()}
    now["first.lora_A"][0, 0, 0], now["first.lora_A"][0, 1, :2] = 1.0, torch.tensor([3.0, 4.0])
    now["first.lora_B"][0, :2, 0], now["first.lora_B"][0, 0, 1] = 1.0, 1.0
    leaves = {name: value.requires_grad_() for name, value in now.items()}
    both = job_of(space().shapes, weight=0.5).loss_term(leaves, leaves)
    assert both.item() == pytest.approx(0.5 * 2 * (0.36 + 0.5))  # cos^2 of either order
    off = job_of(space().shapes, weight=0.5, penalty="offdiag").loss_term(leaves, leaves)
    assert off.item() == pytest.approx(0.5 * 2 * (9.0 + 1.0))  # squared inner products
    off.backward()
    # d/da_0 of 2 (a_0 . a_1)^2 = 4 (a_0 . a_1) a_1, half of it; likewise b_1: 4 (b_0 . b_1) b_0
    np.testing.assert_allclose(leaves["first.lora_A"].grad[0, 0].numpy(), [18.0, 24.0, 0.0, 0.0, 0.0])
    np.testing.assert_allclose(leaves["first.lora_B"].grad[0, :, 1].numpy(), [2.0, 2.0, 0.0, 0.0, 0.0, 0.0])
    assert not leaves["second.lora_A"].grad.any()


@pytest.mark.parametrize("letter", ["A", "B"])
def test_a_frozen_factor_has_no_part_in_it(letter):
    trained = [name for name in space().shapes if name.endswith(f"lora_{letter}")]
    draws = torch.Generator().manual_seed(1)
    now = {name: torch.randn(2, *shape, generator=draws) for name, shape in space().shapes.items()}
    term = job_of(trained).loss_term
    whole = OrthogonalityPenalty(space(), "cosine", 1e-3, 1e-2)
    other = {
        name: value if name in trained else torch.eye(*value.shape[1:]).expand_as(value) for name, value in now.items()
    }
    torch.testing.assert_close(term(now, now), whole(other, other))


def test_without_a_weight_nothing_is_added():
    assert job_of(space().shapes, weight=0.0).loss_term is None


def uploaded(module, seed=0):
    """The view of a client, and the change it wants to send; A has orthogonal rows."""
    method = module.build(module.Config(), space())
    theta = initial_theta(space(), {"head": np.zeros((2, 4))}, "orthogonal", Rng(seed))
    view = method.view(method.broadcast(ServerState(theta), 1), 0, 3, 1)
    draws = np.random.default_rng(seed)
    end = {n: v + draws.normal(size=v.shape).astype(np.float32) if n in view.trains else v for n, v in theta.items()}
    return method, view, end, method.upload(view, method.local(view, {}, 1), end, {}).update


@pytest.mark.parametrize("units", [1, 3, 5])
@pytest.mark.parametrize("importance", ["norm", "update"])
def test_under_flora_the_error_is_the_norm_of_what_was_left_out(units, importance):
    """B begins at zero, so a component that is not sent is zero in what is merged: nothing of the broadcast stays."""
    method, view, end, update = uploaded(flora)
    codec = rank_components.build(rank_components.Config(importance=importance), space())
    encoded = codec.encode(update, view, {}, units, np.random.default_rng(0))
    kept = encoded.stats["sent"].reshape(len(PAIRS), 3)
    folded = method.fold.part([Arrived(encoded.received, 1.0, view.start)])
    left_out = energy = 0.0
    for number, pair in enumerate(PAIRS):
        b, a = end[pair.b].astype(float), end[pair.a].astype(float)
        gone = ~kept[number]
        missing = b @ a - folded[STACK + pair.b] @ folded[STACK + pair.a]
        np.testing.assert_allclose(missing, b[:, gone] @ a[gone], atol=1e-6)
        left_out += product_norm2(b[:, gone], a[gone])
        energy += product_norm2(b, a)
    assert encoded.relative_error == pytest.approx(left_out / energy, rel=1e-6)


def test_under_flora_norm_is_the_choice_of_eckart_and_young():
    """With orthogonal factors the components are the singular triples: no other set of as many loses less."""
    _, view, _, update = uploaded(flora)
    update = dict(update)
    rng = np.random.default_rng(3)
    singular = {}
    for pair in PAIRS:
        b = np.linalg.qr(rng.normal(size=(pair.out_features, 3)))[0] * rng.uniform(0.1, 2.0, size=3)
        update[pair.b], update[pair.a] = b.astype(np.float32), np.zeros_like(update[pair.a])
        singular[pair.module] = np.linalg.svd(b @ view.start[pair.a].astype(float), compute_uv=False)[:3]
    config = rank_components.Config(importance="norm", scope="matrix")
    codec = rank_components.build(config, space())
    for kept in (1, 2):
        encoded = codec.encode(update, view, {}, kept * len(PAIRS), rng)
        lost = sum(float((values[kept:] ** 2).sum()) for values in singular.values())
        assert encoded.relative_error == pytest.approx(lost / sum((v**2).sum() for v in singular.values()), rel=1e-5)


def test_under_ffa_the_error_is_that_of_the_columns_of_b():
    """Rows of A are common, orthogonal and equally long here: what is left out is told by ||db_j|| alone."""
    _, view, _, update = uploaded(ffa)
    codec = rank_components.build(rank_components.Config(), space())
    encoded = codec.encode(update, view, {}, 3, np.random.default_rng(0))
    kept = encoded.stats["sent"].reshape(len(PAIRS), 3)
    lengths = [np.linalg.norm(view.start[pair.a].astype(float), axis=1) for pair in PAIRS]
    columns = np.array(
        [((update[p.b].astype(float) ** 2).sum(axis=0)) * n**2 for p, n in zip(PAIRS, lengths, strict=True)]
    )
    assert encoded.relative_error == pytest.approx(columns[~kept].sum() / columns.sum(), rel=1e-6)
    assert Layout(space(), 3).kind(view.trains) == "b"


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (
            ("method.name=head_only", "model.lora.train_head=true", ORTHOGONAL),
            "orthogonal acts on the LoRA factors, of w",
        ),
        (("method.extras=shared_order", "codec.name=topk"), r"^method\.extras: shared_order gives all .*topk does not"),
        (("method={name: soft, shared_mask: true, extras: [shared_order]}", COMPONENTS), "would each give an ord"),
        (("method={name: flora, extras: [shared_order]}", COMPONENTS), "name=flora changes between rounds"),
        (("method.extras=[{name: orthogonal, penalty: identity}]",), r"^method\.extras\.0\.penalty: "),
        (("method.extras=[{name: orthogonal, weight: -1}]",), r"^method\.extras\.0\.weight: "),
    ],
)
def test_what_it_cannot_act_on_is_refused(words, match):
    with pytest.raises(ConfigError, match=match):
        load_config("fedit", list(words))
