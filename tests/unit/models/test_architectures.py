"""Every architecture that `auto` knows, built small: what is adapted is there and is called; clients packed together
train as they do alone; and plain transformers + peft, row by row without padding, read the exported adapter alike."""

import numpy as np
import pytest
import torch

from raysoft.config import LoraConfig, TrainConfig
from raysoft.data.base import Examples
from raysoft.errors import ConfigError
from raysoft.models.adapter import export_peft
from raysoft.models.frozen import freeze
from raysoft.models.probe import called_linears, with_padding_side
from raysoft.models.targets import _FAMILIES, lora_space
from raysoft.models.trainers.packed_lora import PackedTrainer
from raysoft.rng import Rng
from tests import tolerances
from tests.architectures import LABELS, ODD, PAD, VOCABULARY, kind_of, tiny
from tests.packs import make_jobs, make_theta

KNOWN = sorted({name for _, families in _FAMILIES for name in families})
EVERY = sorted({*KNOWN, *ODD})
READS_PADDING = ("convbert",)  # its convolution reaches from padding into the text
READS_THE_LAST = ("xlnet",)
SGD = TrainConfig(lr=0.05, momentum=0.0, clip_norm=1.0)


def make_base(model_type):
    return freeze(tiny(model_type), kind_of(model_type), f"tests/{model_type}")


def make_examples(base, count, seed=8):
    """Texts of unequal length, padded on the right as the tokenizers of these models do; or images."""
    generator = Rng(seed)("examples")
    labels = generator.integers(0, len(LABELS), count)
    if base.kind == "image-classification":
        return Examples({"pixel_values": generator.normal(size=(count, 3, 16, 16)).astype(np.float32)}, labels)
    lengths = generator.integers(4, 9, count)
    visible = np.arange(lengths.max())[None] < lengths[:, None]
    tokens = np.where(visible, generator.integers(3, VOCABULARY, visible.shape), PAD)
    tokens[np.arange(count), lengths - 1] = 2
    inputs = {"input_ids": tokens, "attention_mask": visible.astype(np.int64)}
    return Examples(inputs, np.where(visible, tokens, -100) if base.kind == "causal-lm" else labels, lengths)


def space_of(base, rank=2):
    targets = (
        "auto" if base.config()["model_type"] in KNOWN else ["in_proj"] if "mamba" in base.source else "all-linear"
    )
    return lora_space(base, LoraConfig(rank=rank, targets=targets), called_linears(base, make_examples(base, 1).inputs))


@pytest.mark.parametrize("model_type", KNOWN)
def test_what_auto_takes_is_called(model_type):
    base = make_base(model_type)
    chosen, _ = lora_space(base, LoraConfig(rank=2))
    called = called_linears(base, make_examples(base, 1).inputs)
    assert {pair.module for pair in chosen.pairs} <= called


@pytest.mark.parametrize("model_type", EVERY)
def test_a_pack_trains_as_its_clients_do_alone(model_type):
    base = make_base(model_type)
    space, head = space_of(base)
    jobs = make_jobs(space, head, (2, 1, 2), (2, 2, 2))
    examples = [make_examples(base, 3, seed=k) for k in range(3)]
    trainer = PackedTrainer(base, space)
    batches = [_batch(examples)] * 2
    packed = trainer.train(jobs, batches, SGD)
    bound = tolerances.training(SGD, 2)
    for k, (job, result) in enumerate(zip(jobs, packed, strict=True)):
        alone = PackedTrainer(base, space).train([job], [_batch([examples[k]], like=batches[0])] * 2, SGD)[0]
        for name, value in alone.end.items():
            np.testing.assert_allclose(result.end[name], value, rtol=0, atol=bound, err_msg=f"client {k}: {name}")
        moved = max(np.abs(alone.end[name] - job.start[name]).max() for name in alone.end)
        assert moved > 20 * bound


def _batch(examples, like=None):
    """One step of these clients, padded to a common width."""
    from raysoft.data.base import StepBatch

    width = max(part.inputs["input_ids"].shape[1] for part in examples) if examples[0].lengths is not None else None
    if like is not None and width is not None:
        width = like.inputs["input_ids"].shape[2]
    inputs = {}
    for name in examples[0].inputs:
        fill = {"input_ids": PAD, "attention_mask": 0}.get(name)
        inputs[name] = np.stack(
            [part.inputs[name] if width is None else _widen(part.inputs[name], width, fill) for part in examples]
        )
    labels = np.stack([_widen(p.labels, width, -100) if p.labels.ndim == 2 else p.labels for p in examples])
    count = len(examples[0])
    return StepBatch(inputs, labels, np.ones((len(examples), count), bool), np.ones(len(examples), bool))


def _widen(rows, width, fill):
    return np.pad(rows, ((0, 0), (0, width - rows.shape[1])), constant_values=fill)


@pytest.mark.parametrize("model_type", EVERY)
def test_peft_reads_the_exported_adapter_row_by_row(model_type, tmp_path):
    import peft

    base = make_base(model_type)
    space, head = space_of(base)
    theta = make_theta(space, head)
    examples = make_examples(base, 5)
    if model_type in READS_PADDING:
        with pytest.raises(ConfigError, match=r"^model\.name: .*ConvBert.* answers otherwise when padding"):
            with_padding_side(base, examples)
        return
    base = with_padding_side(base, examples)
    assert base.pad_left == (model_type in READS_THE_LAST)
    found = PackedTrainer(base, space).evaluate_samples(theta, examples, batch_size=5)
    export_peft(theta, base, space, LoraConfig(rank=2), tmp_path)
    model = peft.PeftModel.from_pretrained(tiny(model_type), str(tmp_path)).eval()
    for row in range(5):
        inputs = {name: torch.from_numpy(value[row : row + 1]) for name, value in examples.inputs.items()}
        labels = torch.from_numpy(examples.labels[row : row + 1])
        if examples.lengths is not None:
            inputs = {"input_ids": inputs["input_ids"][:, : examples.lengths[row]]}
        with torch.no_grad():
            logits = model(**inputs).logits.float()
        if base.kind == "causal-lm":
            logits, labels = logits[0, :-1], labels[0, 1 : examples.lengths[row]]
        loss = torch.nn.functional.cross_entropy(logits, labels, reduction="sum").item()
        count = len(labels)
        assert found[row, 0] == count
        assert found[row, 2] == pytest.approx(loss, abs=count * tolerances.logits(logits)), f"row {row}"
