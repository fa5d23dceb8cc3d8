"""Packed training against peft and torch.optim, one client at a time."""

import numpy as np
import pytest
import torch

from raysoft.config import TrainConfig
from raysoft.models.optim import init_state, stepper
from raysoft.models.trainers.packed_lora import PackedTrainer
from raysoft.models.trainers.stack import gather, scatter
from tests import tolerances
from tests.packs import KINDS, make_base, make_batches, make_jobs, space_of, train_with_peft

RANKS = (4, 2, 3)
SIZES = ((5, 3, 4), (2, 5, 5), (5, 5, 1))
SGD = TrainConfig(lr=0.05, momentum=0.9, weight_decay=0.01, clip_norm=0.5)
# Adam divides a gradient by its own size plus eps: where gradients are smaller than eps, a rounding error is magnified
# by lr / eps. Equal values keep it at one, and since a gradient clipped to norm 1 over a thousand values has entries of
# about 0.02, the division still counts; `test_optimisers_equal_torch` has the rule itself at eps = 1e-8 in float64.
ADAMW = TrainConfig(optimizer="adamw", lr=1e-2, betas=(0.9, 0.99), eps=1e-2, weight_decay=0.1, clip_norm=1.0)


def assert_parity(family, task, settings, steps=None, trains=None, sizes=SIZES, ranks=RANKS, **lora):
    base = make_base(family, task)
    space, head = space_of(base, rank=max(ranks), alpha=6.0, **lora)
    jobs = make_jobs(space, head, ranks, steps, trains)
    batches = make_batches(base, sizes, steps)
    results = PackedTrainer(base, space).train(jobs, batches, settings)
    bound = tolerances.training(settings, len(sizes))
    for k, (job, result) in enumerate(zip(jobs, results, strict=True)):
        end, loss = train_with_peft(family, task, base, space, job, batches, k, settings)
        assert result.loss == pytest.approx(loss, abs=tolerances.logits(loss))
        assert set(result.end) == set(job.start)
        for name, value in end.items():
            assert result.end[name].shape == job.start[name].shape
            assert result.end[name].dtype == np.float32
            np.testing.assert_allclose(result.end[name], value, atol=bound, rtol=0, err_msg=f"client {k}: {name}")
            if trains is None or name in trains:
                assert np.abs(value - job.start[name]).max() > 10 * bound, f"{name} moved too little to compare"
            else:
                assert result.end[name].tobytes() == job.start[name].tobytes(), f"{name} moved"


@pytest.mark.parametrize("settings", (SGD, ADAMW), ids=("sgd", "adamw"))
@pytest.mark.parametrize("family,task", list(KINDS))
def test_mixed_ranks_and_batches_equal_peft(family, task, settings):
    assert_parity(family, task, settings)


@pytest.mark.parametrize("settings", (SGD, ADAMW), ids=("sgd", "adamw"))
@pytest.mark.parametrize("family", ("vit", "roberta", "llama"))
def test_trained_head_with_its_own_learning_rate(family, settings):
    settings = settings.model_copy(update={"head_lr": 5e-3})
    assert_parity(family, "auto", settings, train_head=True)


@pytest.mark.parametrize("settings", (SGD, ADAMW), ids=("sgd", "adamw"))
def test_unequal_steps(settings):
    assert_parity("vit", "auto", settings, steps=(1, 3, 2))


def test_frozen_factors_neither_move_nor_count_for_clipping():
    base = make_base("roberta")
    space, _ = space_of(base, rank=4)
    without_a = frozenset(space.shapes) - {pair.a for pair in space.pairs}
    assert_parity("roberta", "auto", SGD, trains=without_a)
    assert_parity("roberta", "auto", ADAMW, trains=without_a)


@pytest.mark.parametrize("targets,layers", (("all-linear", "all"), ("auto", [1]), (["o_proj", "fc1"], [0])))
def test_other_targets_and_layers(targets, layers):
    assert_parity("vit", "auto", ADAMW, targets=targets, layers=layers)


def test_wide_matrices_use_the_factored_form():
    """Rank 1 on 32 x 32 is beyond the limit of the merged form; both forms must meet the same oracle."""
    from raysoft.models.trainers.packed_layers import merges

    assert [merges(32, 32, rank, torch.float32) for rank in (1, 4)] == [False, True]
    assert_parity("vit", "auto", ADAMW, ranks=(1, 1, 1))
    assert_parity("gpt2", "auto", SGD, ranks=(1, 1, 1))


def test_no_momentum_no_clipping_no_decay():
    assert_parity("gpt2", "auto", TrainConfig(lr=0.1, momentum=0.0, clip_norm=None))


@pytest.mark.parametrize("momentum,decay", ((0.0, 0.0), (0.9, 0.01)))
@pytest.mark.parametrize("optimizer", ("sgd", "adamw"))
def test_optimisers_equal_torch(optimizer, momentum, decay):
    """The update rules by themselves, in float64 and at torch's own eps, for clients of unequal step counts."""
    settings = TrainConfig(optimizer=optimizer, lr=0.03, momentum=momentum, weight_decay=decay, clip_norm=None)
    assert settings.eps == 1e-8
    generator = torch.Generator().manual_seed(4)
    values = torch.randn(3, 50, generator=generator, dtype=torch.float64)
    # Gradients from 1e-10 to 10: below, near and far above eps.
    sizes = 10.0 ** torch.linspace(-10, 1, 50, dtype=torch.float64)
    singles = [value.clone().requires_grad_() for value in values]
    if optimizer == "sgd":
        theirs = [torch.optim.SGD([one], lr=0.03, momentum=momentum, weight_decay=decay) for one in singles]
    else:
        theirs = [
            torch.optim.AdamW([one], lr=0.03, betas=settings.betas, eps=1e-8, weight_decay=decay) for one in singles
        ]
    state, step = init_state(settings, values), stepper(settings)
    lr = torch.full((1, 50), 0.03, dtype=torch.float64)
    for tick in range(6):
        active = torch.tensor([k for k in range(3) if tick % (k + 1) == 0])
        grad = torch.randn(len(active), 50, generator=generator, dtype=torch.float64) * sizes
        for row, k in enumerate(active.tolist()):
            singles[k].grad = grad[row].clone()
            theirs[k].step()
        part, rows = gather(state, active), values[active]
        step(rows, grad, lr, part)
        values[active] = rows
        scatter(state, active, part)
    for mine, single in zip(values, singles, strict=True):
        torch.testing.assert_close(mine, single.detach(), rtol=1e-12, atol=1e-14)
