"""Adapters: peft reads what raysoft writes, and gives the same logits."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from raysoft.config import LoraConfig
from raysoft.errors import RaysoftError
from raysoft.models.adapter import adapter_sha256, export_peft, import_peft, save_base
from raysoft.models.base import load_base
from raysoft.models.trainers.packed_lora import PackedTrainer
from raysoft.rng import Rng
from tests import tolerances
from tests.hf_folders import LABELS, make_folder, make_model
from tests.packs import KINDS, make_base, make_examples, make_theta, space_of


def peft_logits(model, folder, examples):
    import peft

    loaded = peft.PeftModel.from_pretrained(model, str(folder)).eval()
    with torch.no_grad():
        return loaded(**{name: torch.from_numpy(value) for name, value in examples.inputs.items()}).logits


CASES = [
    (*key, head, rslora)
    for key in KINDS
    for head, rslora in ((False, False), (True, True))
    if not (head and key == ("gpt2", "auto"))
]


@pytest.mark.parametrize("family,task,train_head,rslora", CASES)
def test_peft_gives_the_same_logits(tmp_path, family, task, train_head, rslora, recwarn):
    base = make_base(family, task)
    lora = LoraConfig(rank=3, alpha=5.0, train_head=train_head, use_rslora=rslora)
    space, head = space_of(base, **lora.model_dump())
    theta = make_theta(space, {name: value + np.float32(0.3) for name, value in head.items()})
    export_peft(theta, base, space, lora, tmp_path / "adapter")
    examples = make_examples(base, 5)
    ours = PackedTrainer(base, space).logits(theta, examples.inputs)
    theirs = peft_logits(make_model(family, task), tmp_path / "adapter", examples)
    torch.testing.assert_close(theirs, ours, atol=tolerances.logits(ours), rtol=0)
    untouched = peft_logits(make_model(family, task, seed=1), tmp_path / "adapter", examples)
    assert (untouched - ours).abs().max() > 1e-3
    assert not [w for w in recwarn if "adapter" in str(w.message).lower()]
    back = import_peft(tmp_path / "adapter", space)
    assert adapter_sha256(back) == adapter_sha256(theta)


def test_a_drawn_or_reordered_head_travels_with_the_adapter(tmp_path):
    """The checkpoint alone would give other logits, so a frozen head that is not the checkpoint's is exported too."""
    folder = make_folder(tmp_path / "model", "roberta")
    for labels in (("a", "b", "c", "d"), LABELS[::-1]):
        base = load_base(str(folder), "sequence-classification", len(labels), labels, None, Rng(3))
        space, head = space_of(base)
        theta = make_theta(space, head)
        export_peft(theta, base, space, LoraConfig(), tmp_path / labels[0])
        import transformers

        model = transformers.AutoModelForSequenceClassification.from_pretrained(
            folder, num_labels=len(labels), ignore_mismatched_sizes=True
        ).eval()
        examples = make_examples(base, 4)
        theirs = peft_logits(model, tmp_path / labels[0], examples)
        ours = PackedTrainer(base, space).logits(theta, examples.inputs)
        torch.testing.assert_close(theirs, ours, atol=tolerances.logits(ours), rtol=0)


def test_the_base_can_be_saved_for_use_elsewhere(tmp_path):
    import transformers

    base = make_base("vit")
    save_base(base, tmp_path / "base")
    again = transformers.AutoModelForImageClassification.from_pretrained(tmp_path / "base")
    for name, value in again.state_dict().items():
        assert np.array_equal(value.numpy(), base.weights[name])


def test_files_are_complete_and_plain(tmp_path):
    base = make_base("gpt2")
    space, head = space_of(base)
    export_peft(make_theta(space, head), base, space, LoraConfig(), tmp_path / "a")
    export_peft(make_theta(space, head), base, space, LoraConfig(), tmp_path / "a")  # over an older one
    assert {path.name for path in (tmp_path / "a").iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}
    config = json.loads((tmp_path / "a" / "adapter_config.json").read_text())
    assert (config["peft_type"], config["r"], config["lora_alpha"]) == ("LORA", 8, 16.0)
    assert config["fan_in_fan_out"] is True
    export_peft(make_theta(space, head), base, space, LoraConfig(), tmp_path / "b")
    assert (tmp_path / "a" / "adapter_model.safetensors").read_bytes() == (
        tmp_path / "b" / "adapter_model.safetensors"
    ).read_bytes()


def test_an_adapter_that_does_not_fit_is_refused(tmp_path):
    base = make_base("vit")
    space, head = space_of(base, rank=4)
    export_peft(make_theta(space, head), base, space, LoraConfig(rank=4), tmp_path / "a")
    with pytest.raises(RaysoftError, match=r"should have shape \(8, 32\), the adapter has shape \(4, 32\)"):
        import_peft(tmp_path / "a", space_of(base, rank=8, alpha=32.0)[0])
    with pytest.raises(RaysoftError, match="scale 4, the run has 2"):
        import_peft(tmp_path / "a", space_of(base, rank=4, alpha=8.0)[0])
    with pytest.raises(RaysoftError, match="no such parameter"):
        import_peft(tmp_path / "a", space_of(base, rank=4, targets="all-linear")[0])
    with pytest.raises(RaysoftError, match="not a readable adapter"):
        import_peft(tmp_path / "nothing", space)
    (tmp_path / "a" / "adapter_model.safetensors").write_bytes(b"cut")
    with pytest.raises(RaysoftError, match="not a readable adapter"):
        import_peft(tmp_path / "a", space)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(width=32, allow_nan=False), min_size=2, max_size=6), st.data())
def test_the_fingerprint_sees_every_bit_and_no_order(values, data):
    array = np.array(values, np.float32)
    theta = {"b": array, "a": array[::-1].copy()}
    digest = adapter_sha256(theta)
    assert adapter_sha256(dict(reversed(theta.items()))) == digest
    assert adapter_sha256({"b": np.asfortranarray(array), "a": array[::-1]}) == digest
    bit = data.draw(st.integers(0, array.nbytes * 8 - 1))
    raw = bytearray(array.tobytes())
    raw[bit // 8] ^= 1 << bit % 8
    assert adapter_sha256({**theta, "b": np.frombuffer(bytes(raw), np.float32)}) != digest
    assert adapter_sha256({**theta, "b": array.reshape(1, -1)}) != digest
    assert adapter_sha256({"c": theta["b"], "a": theta["a"]}) != digest


def test_the_fingerprint_needs_no_torch():
    import subprocess
    import sys

    code = "import sys, raysoft.models.digest, raysoft.models.adapter; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
