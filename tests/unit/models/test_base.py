"""Frozen bases: loading, refusing, sharing without copies, and the guard against writes."""

import json
import pickle
import shutil

import numpy as np
import pytest
import torch

from raysoft.errors import ConfigError, RaysoftError
from raysoft.models.base import build_module, checksum, freeze, load_base, verify
from raysoft.models.frozen import as_float32
from raysoft.models.trainers.packed_lora import PackedTrainer
from raysoft.rng import Rng
from tests.hf_folders import LABELS, make_folder, make_model
from tests.packs import KINDS, make_base, make_examples, make_theta, space_of


def load(folder, kind="image-classification", labels=LABELS, seed=0, name=None):
    count = None if kind == "causal-lm" else len(labels)
    return load_base(name or str(folder), kind, count, () if count is None else tuple(labels), None, Rng(seed))


def logits(module, base, count=3):
    inputs = {name: torch.from_numpy(value) for name, value in make_examples(base, count).inputs.items()}
    with torch.no_grad():
        return module(**inputs).logits


@pytest.mark.parametrize("family,task", list(KINDS))
def test_a_folder_loads_and_survives_pickling(tmp_path, family, task):
    folder = make_folder(tmp_path / "model", family, task)
    base = load(folder, KINDS[family, task])
    assert base.fresh == ()
    copy = pickle.loads(pickle.dumps(base))
    assert copy.checksum == base.checksum == checksum(copy.weights)
    module = build_module(copy)
    assert torch.equal(logits(module, base), logits(make_model(family, task), base))
    assert not module.training
    assert not any(p.requires_grad for p in module.parameters())


@pytest.mark.parametrize("family,task", list(KINDS))
def test_parameters_are_the_shared_arrays(family, task):
    base = make_base(family, task)
    module = build_module(base)
    tensors = {**dict(module.named_parameters(remove_duplicate=False)), **dict(module.named_buffers())}
    assert base.weights.keys() <= tensors.keys()
    for name, value in base.weights.items():
        assert np.shares_memory(tensors[name].numpy(), value), name
    arrays = list(base.weights.values())
    for name, tensor in tensors.items():  # also the tied ones
        assert any(np.shares_memory(tensor.numpy(), value) for value in arrays), name


def test_a_trainer_copies_no_frozen_weight_and_changes_none():
    base = make_base("llama")
    space, _ = space_of(base, rank=2)
    trainer = PackedTrainer(base, space)
    for pair in space.pairs:
        weight = trainer.module.get_submodule(pair.module).weight
        assert np.shares_memory(weight.numpy(), base.weights[f"{pair.module}.weight"])
    verify(base)


def test_tied_weights_are_stored_once_and_stay_tied():
    base = make_base("gpt2")
    assert ("lm_head.weight" in base.weights) != ("transformer.wte.weight" in base.weights)
    module = build_module(base)
    assert module.lm_head.weight is module.transformer.wte.weight


def test_arrays_are_aligned_and_read_only():
    """The same bits whatever process mapped them: matrix products may depend on alignment."""
    base = make_base("roberta")
    assert all(value.ctypes.data % 64 == 0 for value in base.weights.values())
    with pytest.raises(ValueError, match="read-only"):
        next(iter(base.weights.values()))[...] = 0
    shifted = {}
    for name, value in base.weights.items():
        raw = np.empty(value.nbytes + 128, np.uint8)
        start = -raw.ctypes.data % 64 + 8
        shifted[name] = raw[start : start + value.nbytes].view(value.dtype).reshape(value.shape)
        shifted[name][...] = value
    module = build_module(type(base)(**{**vars(base), "weights": shifted}))
    assert all(p.data_ptr() % 64 == 0 for p in module.parameters() if p.ndim > 1)


def test_a_write_through_torch_is_noticed():
    base = make_base("vit")
    verify(base)
    build_module(base).vit.layers[1].mlp.fc1.weight.data[3, 5] += 1e-3
    with pytest.raises(RaysoftError, match=r"process \d+ finds checksum"):
        verify(base)


def test_bfloat16_is_kept_bit_for_bit():
    model = make_model("llama").to(torch.bfloat16)
    base = freeze(model, "causal-lm", "bf16")
    name = "model.layers.0.mlp.up_proj.weight"
    assert base.weights[name].dtype == np.int16
    module = build_module(base)
    assert module.get_parameter(name).dtype == torch.bfloat16
    assert torch.equal(module.get_parameter(name), model.get_parameter(name))
    assert np.array_equal(as_float32(base.weights[name]), model.get_parameter(name).float().detach().numpy())
    space, head = space_of(base, rank=2, train_head=True)
    assert head["lm_head.weight"].dtype == np.float32
    examples = make_examples(base, 4)
    found = PackedTrainer(base, space).evaluate(make_theta(space, head), examples, 4)
    assert np.isfinite(found["loss_sum"])


def test_half_precision_is_widened():
    base = freeze(make_model("vit").half(), "image-classification", "fp16")
    assert {value.dtype for value in base.weights.values()} == {np.dtype(np.float32)}
    build_module(base)


def test_a_new_head_depends_on_the_seed_only(tmp_path):
    folder = make_folder(tmp_path / "model", "roberta")
    torch.manual_seed(1)
    first = load(folder, "sequence-classification", labels=list("abcde"))
    state = torch.random.get_rng_state()
    second = load(folder, "sequence-classification", labels=list("abcde"))
    assert torch.equal(state, torch.random.get_rng_state())
    other = load(folder, "sequence-classification", labels=list("abcde"), seed=1)
    assert first.fresh == ("classifier.out_proj.bias", "classifier.out_proj.weight")
    assert first.checksum == second.checksum != other.checksum
    weight = first.weights["classifier.out_proj.weight"]
    assert weight.shape == (5, 32)
    # 160 draws of N(0, 0.02): their standard deviation has a standard error of 0.02 / sqrt(2 * 159) = 0.0011.
    assert abs(weight.std() - 0.02) < 5 * 0.0011
    assert not first.weights["classifier.out_proj.bias"].any()
    assert first.config()["id2label"] == dict(zip("01234", "abcde", strict=True))


@pytest.mark.parametrize("family,task", [("vit", "auto"), ("roberta", "auto"), ("llama", "classification")])
def test_known_labels_in_another_order_are_put_right(tmp_path, family, task):
    folder = make_folder(tmp_path / "model", family, task)
    kind = KINDS[family, task]
    straight, mixed = load(folder, kind), load(folder, kind, labels=(LABELS[2], LABELS[0], LABELS[1]))
    before, after = logits(build_module(straight), straight), logits(build_module(mixed), straight)
    assert torch.equal(before[:, [2, 0, 1]], after)
    assert mixed.fresh


def test_sequence_models_are_told_what_the_texts_are_padded_with(tmp_path):
    folder = make_folder(tmp_path / "model", "llama", "classification", pad_token_id=None)
    base = load_base(str(folder), "sequence-classification", 3, LABELS, None, Rng(0), pad_id=7)
    assert base.config()["pad_token_id"] == 7


def broken(tmp_path, change):
    folder = make_folder(tmp_path / "model", "vit")
    change(folder)
    return folder


def _edit_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def _pickled(folder):
    (folder / "model.safetensors").unlink()
    torch.save({"x": torch.zeros(2)}, folder / "pytorch_model.bin")


def _other_weights(folder):
    other = make_folder(folder.parent / "other", "vit", num_hidden_layers=1)
    shutil.copy(other / "model.safetensors", folder / "model.safetensors")


REFUSED = {
    "pickled weights": (_pickled, r"pytorch_model\.bin, which can run code"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "holds no weights; only safetensors"),
    "no config": (lambda f: (f / "config.json").unlink(), r"no config\.json"),
    "adapter": (lambda f: (f / "adapter_config.json").write_text("{}"), "adapter, not a base model"),
    "unknown architecture": (lambda f: _edit_config(f, model_type="nonesuch"), "does not know"),
    "no such head": (lambda f: _edit_config(f, model_type="vits"), "no image-classification head"),
    "damaged weights": (lambda f: (f / "model.safetensors").write_bytes(b"not safetensors"), "cannot be read"),
    "other weights": (_other_weights, r"lacks \d+ of \d+ weights of ViTForImageClassification"),
    "code from the checkpoint": (
        lambda f: _edit_config(f, model_type="mine", auto_map={"AutoConfig": "mine.Mine"}),
        "needs Python code",
    ),
}


@pytest.mark.parametrize("case", list(REFUSED))
def test_unusable_folders_are_refused_in_one_sentence(tmp_path, case):
    change, words = REFUSED[case]
    folder = broken(tmp_path, change)
    with pytest.raises(ConfigError, match=words) as caught:
        load(folder)
    assert caught.value.field == "model.name"
    assert "\n" not in str(caught.value)


def test_missing_names_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name, words in (
        (str(tmp_path / "nowhere"), "not an existing folder"),
        ("./nowhere", "not an existing folder"),
        ("nobody/nothing", "HF_HUB_OFFLINE"),
    ):
        with pytest.raises(ConfigError, match=words):
            load(None, name=name)
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match="is a file"):
        load(tmp_path / "file")
