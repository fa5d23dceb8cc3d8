"""Independence, determinism, masks and loss terms of the packed trainer, and its evaluation."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from raysoft.config import TrainConfig
from raysoft.data.base import StepBatch
from raysoft.errors import RaysoftError, ResourceError
from raysoft.models.trainers.packed_lora import PackedTrainer
from raysoft.models.trainers.stack import StackLayout
from tests import tolerances
from tests.packs import KINDS, make_base, make_batches, make_examples, make_jobs, make_theta, peft_model, space_of

ADAMW = TrainConfig(optimizer="adamw", lr=1e-2, weight_decay=0.1)
SIZES = ((4, 3, 4), (2, 4, 4))


def setup(family="vit", task="auto", ranks=(4, 2, 4), sizes=SIZES, steps=None, **job):
    base = make_base(family, task)
    space, head = space_of(base, rank=4, train_head=job.pop("train_head", False))
    return PackedTrainer(base, space), make_jobs(space, head, ranks, steps, **job), make_batches(base, sizes, steps)


def same(left, right):
    return left.loss == right.loss and all(
        np.array_equal(left.end[name], right.end[name], equal_nan=False) for name in left.end
    )


def disturb(batches, client, scale=-3.0):
    """Other samples, other labels, another padding for one client."""
    changed = []
    for batch in batches:
        inputs = {name: value.copy() for name, value in batch.inputs.items()}
        labels, mask = batch.labels.copy(), batch.mask_KB.copy()
        for name, value in inputs.items():
            if name == "attention_mask":
                value[client] = np.arange(value.shape[-1]) < 5
            elif name == "input_ids":
                value[client] = (value[client] * 7 + 3) % 71 + 3
            else:
                value[client] = value[client] * scale + 1
        labels[client] = np.where(labels[client] < 0, labels[client], (labels[client] + 1) % 3)
        mask[client] = np.arange(mask.shape[1]) < 2
        changed.append(dataclasses.replace(batch, inputs=inputs, labels=labels, mask_KB=mask))
    return changed


@pytest.mark.parametrize("attention", ("short", "long"))
@pytest.mark.parametrize("family,task", list(KINDS))
def test_a_client_does_not_depend_on_its_neighbours(family, task, attention, monkeypatch):
    """Perturb one client's data and start: the others do not move a bit, at the same padded shapes."""
    if attention == "long":  # the fused kernel that long sequences use
        monkeypatch.setattr("raysoft.models.attention.EAGER_TOKENS", 0)
    trainer, jobs, batches = setup(family, task, train_head=(family, task) != ("gpt2", "auto"))
    before = trainer.train(jobs, batches, ADAMW)
    jobs[1] = dataclasses.replace(jobs[1], start={n: v * np.float32(1.5) + 0.01 for n, v in jobs[1].start.items()})
    after = trainer.train(jobs, disturb(batches, 1), ADAMW)
    assert same(before[0], after[0])
    assert same(before[2], after[2])
    assert not same(before[1], after[1])


@pytest.mark.parametrize("attention", ("short", "long"))
@pytest.mark.parametrize("family,task", [key for key in KINDS if key[0] != "vit"])
def test_a_neighbours_padding_does_not_choose_the_kernel(family, task, attention, monkeypatch):
    """Libraries skip the mask when nobody pads; that must not be seen in the bits of the others."""
    if attention == "long":
        monkeypatch.setattr("raysoft.models.attention.EAGER_TOKENS", 0)
    trainer, jobs, batches = setup(family, task, sizes=((4, 4, 4), (4, 4, 4)))
    for batch in batches:
        batch.inputs["attention_mask"][:] = 1
        batch.inputs["input_ids"][:] = np.maximum(batch.inputs["input_ids"], 3)
    before = trainer.train(jobs, batches, ADAMW)
    for batch in batches:
        batch.inputs["attention_mask"][1, :, 6:] = 0
    after = trainer.train(jobs, batches, ADAMW)
    assert same(before[0], after[0])
    assert same(before[2], after[2])
    assert not same(before[1], after[1])


def test_a_diverged_neighbour_stays_alone():
    """A client whose values are no numbers any more is rejected later; the others must not catch it."""
    trainer, jobs, batches = setup("llama")
    before = trainer.train(jobs, batches, ADAMW)
    jobs[1] = dataclasses.replace(jobs[1], start={n: v * np.float32(np.nan) for n, v in jobs[1].start.items()})
    after = trainer.train(jobs, batches, ADAMW)
    assert same(before[0], after[0])
    assert same(before[2], after[2])
    assert math.isnan(after[1].loss)


def test_padding_all_neighbours_away_changes_nothing():
    """A neighbour without any sample of text to see must not bring NaN into the batch."""
    trainer, jobs, batches = setup("roberta")
    before = trainer.train(jobs, batches, ADAMW)
    for batch in batches:
        batch.mask_KB[1] = False
    after = trainer.train(jobs, batches, ADAMW)
    assert same(before[0], after[0])
    assert same(before[2], after[2])
    assert after[1].loss == 0.0
    assert all(np.isfinite(value).all() for value in after[1].end.values())


def test_every_sample_sees_a_token():
    """Some attention kernels give NaN for a sample without any, and 0 * NaN would reach the gradients."""
    trainer, jobs, batches = setup("roberta", sizes=((4, 3, 3), (2, 4, 4)), steps=(2, 1, 2))
    assert not any(batch.inputs["attention_mask"].any(-1).all() for batch in batches)
    seen = []
    trainer.module.register_forward_pre_hook(
        lambda module, args, inputs: seen.append(inputs["attention_mask"]), with_kwargs=True
    )
    trainer.train(jobs, batches, ADAMW)
    assert [len(mask) for mask in seen if len(mask) > 2] == [12, 8], "the second client has one step only"
    assert all(mask.any(-1).all() for mask in seen)


def test_what_stands_in_padding_is_never_read():
    trainer, jobs, batches = setup("roberta")
    before = trainer.train(jobs, batches, ADAMW)
    for batch in batches:
        batch.inputs["input_ids"][~batch.mask_KB] = 9
        batch.labels[~batch.mask_KB] = 2
    assert all(same(a, b) for a, b in zip(before, trainer.train(jobs, batches, ADAMW), strict=True))


@pytest.mark.parametrize("settings", (ADAMW, TrainConfig(weight_decay=0.1)), ids=("adamw", "sgd"))
def test_finished_clients_stand_still(settings):
    """Steps a client does not take change nothing of it: not its values, not its moments, not by weight decay."""
    trainer, jobs, batches = setup("vit", sizes=((4, 4, 4),) * 3, steps=(3, 1, 2))
    results = trainer.train(jobs, batches, settings)
    alone = trainer.train(jobs, batches[:1], settings)
    assert same(results[1], alone[1])
    idle = [dataclasses.replace(batch, active_K=np.zeros(3, bool)) for batch in batches]
    for result, job in zip(trainer.train(jobs, idle, settings), jobs, strict=True):
        assert result.loss == 0.0
        assert all(np.array_equal(result.end[name], job.start[name]) for name in job.start)


def test_a_pause_keeps_moments_and_step_count():
    """Steps 0 and 2 of one client equal its steps 0 and 1 when the step between them is not its own."""
    trainer, jobs, batches = setup("vit", sizes=((4, 4, 4),) * 3)
    pause = [batches[0], dataclasses.replace(batches[1], active_K=np.array([True, False, True])), batches[2]]
    skipped = trainer.train(jobs, pause, ADAMW)[1]
    direct = trainer.train(jobs, [batches[0], batches[2]], ADAMW)[1]
    assert same(skipped, direct)


@pytest.mark.parametrize("family", ("vit", "llama"))
def test_same_inputs_give_the_same_bytes(family):
    first, second = (PackedTrainer(*_base_and_space(family)) for _ in range(2))
    _, jobs, batches = setup(family)
    one = first.train(jobs, batches, ADAMW)
    first.evaluate(jobs[0].start, make_examples(make_base(family), 5), 2)
    for again in (first.train(jobs, batches, ADAMW), second.train(jobs, batches, ADAMW)):
        assert all(same(a, b) for a, b in zip(one, again, strict=True))


def _base_and_space(family):
    base = make_base(family)
    return base, space_of(base, rank=4)[0]


def test_pack_sizes_agree_to_rounding():
    trainer, jobs, batches = setup("vit")
    settings = ADAMW.model_copy(update={"eps": 1e-2})  # see tests.tolerances
    packed = trainer.train(jobs, batches, settings)
    for k, job in enumerate(jobs):
        single = [
            StepBatch(
                {n: v[k : k + 1] for n, v in b.inputs.items()},
                b.labels[k : k + 1],
                b.mask_KB[k : k + 1],
                b.active_K[k : k + 1],
            )
            for b in batches
        ]
        alone = trainer.train([job], single, settings)[0]
        for name, value in packed[k].end.items():
            bound = tolerances.training(settings, len(batches))
            np.testing.assert_allclose(alone.end[name], value, atol=bound, rtol=0)


def test_inputs_may_be_read_only():
    """Arrays from a shared store are read-only; nothing of a job or a batch is written."""
    trainer, jobs, batches = setup("roberta")
    for batch in batches:
        for value in (*batch.inputs.values(), batch.labels, batch.mask_KB, batch.active_K):
            value.flags.writeable = False
    for job in jobs:
        for value in job.start.values():
            value.flags.writeable = False
    results = trainer.train(jobs, batches, ADAMW)
    assert all(value.flags.writeable for value in results[0].end.values())


def _pull(now, start):
    """0.5 * |now - start|^2 + 2 * sum(now), per client."""
    return sum(0.5 * (now[n] - start[n]).flatten(1).square().sum(1) + 2.0 * now[n].flatten(1).sum(1) for n in now)


def test_loss_term_is_added_to_the_gradient():
    """Without data the gradient is that of the term alone, (now - start) + 2: two SGD steps have a closed form."""
    trainer, jobs, batches = setup("vit", ranks=(4, 2, 3), loss_term=_pull)
    for batch in batches:
        batch.mask_KB[:] = False
    lr = 0.1
    settings = TrainConfig(lr=lr, momentum=0.0, clip_norm=None)
    for steps, moved in ((1, -2 * lr), (2, -4 * lr + 2 * lr**2)):
        for result, job in zip(trainer.train(jobs, batches[:steps], settings), jobs, strict=True):
            for name, value in result.end.items():
                np.testing.assert_allclose(value, job.start[name] + moved, atol=steps * 4 * tolerances.EPSILON)


def test_loss_term_of_some_clients_only():
    trainer, jobs, batches = setup("vit")
    plain = trainer.train(jobs, batches, ADAMW)
    jobs[2] = dataclasses.replace(jobs[2], loss_term=_pull)
    mixed = trainer.train(jobs, batches, ADAMW)
    assert same(plain[0], mixed[0])
    assert same(plain[1], mixed[1])
    assert not same(plain[2], mixed[2])
    assert mixed[2].loss != plain[2].loss  # from the second step on


def test_loss_terms_with_infinite_slope_at_zero_cannot_reach_padding():
    """The square root of a padded zero row has an infinite derivative; the padding must stay out of it."""

    def rough(now, start):
        return sum(value.flatten(2).norm(dim=2).sqrt().sum(1) for name, value in now.items() if name.endswith("_A"))

    trainer, jobs, batches = setup("vit", ranks=(4, 2, 4), loss_term=rough)
    for result in trainer.train(jobs, batches, TrainConfig(lr=0.01)):
        assert all(np.isfinite(value).all() for value in result.end.values())


@pytest.mark.parametrize("family,task", list(KINDS))
def test_evaluation_equals_peft_and_adds_up(family, task):
    base = make_base(family, task)
    space, head = space_of(base, rank=4, train_head=family in ("vit", "roberta"))
    theta = make_theta(space, head)
    examples = make_examples(base, 11)
    trainer = PackedTrainer(base, space)
    found = trainer.evaluate(theta, examples, batch_size=4)

    with torch.no_grad():
        inputs = {name: torch.from_numpy(value) for name, value in examples.inputs.items()}
        logits = peft_model(family, task, space, theta)(**inputs).logits
    labels = torch.from_numpy(examples.labels)
    if base.kind == "causal-lm":
        logits, labels = logits[:, :-1], labels[:, 1:]
    scored = labels != -100
    losses = torch.nn.functional.cross_entropy(logits[scored].double(), labels[scored], reduction="sum")
    assert found["count"] == int(scored.sum())
    assert found["correct"] == int((logits.argmax(-1) == labels)[scored].sum())
    assert found["loss_sum"] == pytest.approx(losses.item(), abs=int(scored.sum()) * tolerances.logits(logits))

    parts = [trainer.evaluate(theta, examples.take(np.arange(a, b)), 4) for a, b in ((0, 6), (6, 11))]
    for key in found:
        assert sum(part[key] for part in parts) == pytest.approx(
            found[key], abs=int(scored.sum()) * tolerances.logits(logits)
        )
    assert trainer.evaluate(theta, examples.take(np.arange(0)), 4) == {"count": 0, "correct": 0, "loss_sum": 0}


def test_untouched_base_has_the_loss_of_the_base():
    """B = 0 is the base itself, bit for bit, in evaluation."""
    base = make_base("vit")
    space, head = space_of(base, rank=4)
    theta = {name: value * (0 if name.endswith("_B") else 1) for name, value in make_theta(space, head).items()}
    examples = make_examples(base, 6)
    from raysoft.models.base import build_module

    with torch.no_grad():
        module = build_module(base)
        module.set_attn_implementation("eager")
        logits = module(pixel_values=torch.from_numpy(examples.inputs["pixel_values"])).logits
    expected = torch.nn.functional.cross_entropy(logits, torch.from_numpy(examples.labels), reduction="none")
    assert PackedTrainer(base, space).evaluate(theta, examples, 6)["loss_sum"] == expected.double().sum().item()


def test_the_loss_at_the_start_is_the_uniform_one_for_a_zero_head():
    trainer, jobs, batches = setup("vit", train_head=True)
    jobs = [
        dataclasses.replace(job, start={n: v * (n.startswith("vit")) for n, v in job.start.items()}) for job in jobs
    ]
    for result in trainer.train(jobs, batches[:1], ADAMW):
        assert result.loss == pytest.approx(math.log(3), abs=1e-6)


def test_layout_round_trip():
    base = make_base("roberta")
    space, head = space_of(base, rank=4, train_head=True)
    jobs = make_jobs(space, head, (4, 1, 3))
    layout = StackLayout(space)
    rows = layout.stack([job.start for job in jobs])
    assert rows.shape == (3, space.num_values())
    live = layout.live(jobs)
    assert not rows[~live].any()
    assert live.sum(1).tolist() == [sum(v.size for v in job.start.values()) for job in jobs]
    for row, job in zip(rows, jobs, strict=True):
        back = layout.unstack(row, job.start)
        assert all(np.array_equal(back[name], job.start[name]) for name in space.shapes)


def test_misuse_is_refused():
    trainer, jobs, batches = setup("vit")
    with pytest.raises(RaysoftError, match="another number of clients"):
        trainer.train(jobs[:2], batches, ADAMW)
    first = next(iter(jobs[0].start))
    jobs[0] = dataclasses.replace(jobs[0], start={n: v for n, v in jobs[0].start.items() if n != first})
    with pytest.raises(RaysoftError, match="without a value for vit"):
        trainer.train(jobs, batches, ADAMW)
    assert trainer.train([], [], ADAMW) == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is present")
def test_cuda_without_a_device_is_refused():
    base, space = _base_and_space("vit")
    with pytest.raises(ResourceError, match=r"train\.device"):
        PackedTrainer(base, space, device="cuda")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("family,task", list(KINDS))
def test_cuda_agrees_with_the_cpu(family, task):
    settings = TrainConfig(lr=0.05, weight_decay=0.01)
    base = make_base(family, task)
    space, head = space_of(base, rank=4)
    jobs, batches = make_jobs(space, head, (4, 2, 3)), make_batches(base, SIZES)
    cpu, cuda = (PackedTrainer(base, space, device).train(jobs, batches, settings) for device in ("cpu", "cuda"))
    for left, right in zip(cpu, cuda, strict=True):
        assert right.loss == pytest.approx(left.loss, abs=1e-4)
        for name in left.end:
            np.testing.assert_allclose(right.end[name], left.end[name], atol=1e-4, rtol=0)
