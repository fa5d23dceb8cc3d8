"""Packed training against peft and torch.optim, one client at a time."""

import numpy as np
import pytest
import torch

from raysoft.config import TrainConfig
from raysoft.models.packed_lora import PackedTrainer
from tests.packs import KINDS, make_base, make_batches, make_jobs, space_of, train_with_peft

RANKS = (4, 2, 3)
SIZES = ((5, 3, 4), (2, 5, 5), (5, 5, 1))
SGD = TrainConfig(lr=0.05, momentum=0.9, weight_decay=0.01, clip_norm=0.5)
# Adam divides a gradient by its own size, so where gradients are near 1e-8 it turns rounding into whole steps; an eps
# well above rounding keeps the comparison about the update rule.
ADAMW = TrainConfig(optimizer="adamw", lr=1e-2, betas=(0.9, 0.99), eps=1e-5, weight_decay=0.1, clip_norm=1.0)


def assert_parity(family, task, settings, steps=None, trainable=None, sizes=SIZES, ranks=RANKS, **lora):
    base = make_base(family, task)
    space, head = space_of(base, rank=max(ranks), alpha=6.0, **lora)
    jobs = make_jobs(space, head, ranks, steps, trainable)
    batches = make_batches(base, sizes, steps)
    results = PackedTrainer(base, space).train(jobs, batches, settings)
    for k, (job, result) in enumerate(zip(jobs, results, strict=True)):
        end, loss = train_with_peft(family, task, base, space, job, batches, k, settings)
        assert result.loss == pytest.approx(loss, abs=1e-5)
        assert set(result.end) == set(job.start)
        for name, value in end.items():
            assert result.end[name].shape == job.start[name].shape
            assert result.end[name].dtype == np.float32
            np.testing.assert_allclose(result.end[name], value, atol=1e-5, rtol=0, err_msg=f"client {k}: {name}")
            if (trainable or {}).get(name, True):
                assert not np.array_equal(result.end[name], job.start[name]), f"{name} did not move"


@pytest.mark.parametrize("settings", (SGD, ADAMW), ids=("sgd", "adamw"))
@pytest.mark.parametrize("family,task", list(KINDS))
def test_mixed_ranks_and_batches_equal_peft(family, task, settings):
    assert_parity(family, task, settings)


@pytest.mark.parametrize("settings", (SGD, ADAMW), ids=("sgd", "adamw"))
@pytest.mark.parametrize("family", ("vit", "roberta", "llama"))
def test_trained_head_with_its_own_learning_rate(family, settings):
    settings = settings.model_copy(update={"head_lr": 5e-3, "eps": 1e-4})
    assert_parity(family, "auto", settings, train_head=True)


@pytest.mark.parametrize("settings", (SGD, ADAMW), ids=("sgd", "adamw"))
def test_unequal_steps(settings):
    assert_parity("vit", "auto", settings, steps=(1, 3, 2))


def test_frozen_factors_neither_move_nor_count_for_clipping():
    base = make_base("roberta")
    space, _ = space_of(base, rank=4)
    frozen = {pair.a: False for pair in space.pairs}
    assert_parity("roberta", "auto", SGD, trainable=frozen)
    assert_parity("roberta", "auto", ADAMW, trainable=frozen)


@pytest.mark.parametrize("targets,layers", (("all-linear", "all"), ("auto", [1]), (["o_proj", "fc1"], [0])))
def test_other_targets_and_layers(targets, layers):
    assert_parity("vit", "auto", ADAMW, targets=targets, layers=layers)


def test_wide_matrices_use_the_factored_form():
    """Rank 1 on 32 x 32 is beyond the limit of the merged form; both forms must meet the same oracle."""
    from raysoft.models.packed_layers import merges

    assert [merges(32, 32, rank, torch.float32) for rank in (1, 4)] == [False, True]
    assert_parity("vit", "auto", ADAMW, ranks=(1, 1, 1))
    assert_parity("gpt2", "auto", SGD, ranks=(1, 1, 1))


def test_no_momentum_no_clipping_no_decay():
    assert_parity("gpt2", "auto", TrainConfig(lr=0.1, momentum=0.0, clip_norm=None))
