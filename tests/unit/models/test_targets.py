"""Targets of LoRA by architecture, and what is said about wrong ones."""

import numpy as np
import pytest
import torch

from raysoft.errors import ConfigError
from raysoft.models.base import freeze
from tests.packs import KINDS, make_base, space_of

AUTO = {
    ("vit", "auto"): {"q_proj": (32, 32), "v_proj": (32, 32)},
    ("roberta", "auto"): {"query": (32, 32), "value": (32, 32)},
    ("gpt2", "auto"): {"c_attn": (96, 32)},
    ("llama", "auto"): {"q_proj": (32, 32), "v_proj": (16, 32)},  # two key-value heads of width 8
}


@pytest.mark.parametrize("family,task", list(AUTO))
def test_auto_takes_query_and_value_of_every_layer(family, task):
    space, head = space_of(make_base(family, task), rank=3, alpha=12.0)
    found = {pair.module.rpartition(".")[2]: (pair.out_features, pair.in_features) for pair in space.pairs}
    assert found == AUTO[family, task]
    assert len(space.pairs) == 2 * len(found)
    for pair in space.pairs:
        assert space.shapes[pair.a] == (3, pair.in_features)
        assert space.shapes[pair.b] == (pair.out_features, 3)
    assert space.scale == 4.0
    assert (head, space.always_sent) == ({}, frozenset())


def test_auto_agrees_with_peft_where_peft_knows_the_architecture():
    from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as PEFT

    from raysoft.models.targets import _FAMILIES

    ours = {family: list(names) for names, families in _FAMILIES for family in families}
    differing = {family for family in ours.keys() & PEFT.keys() if ours[family] != list(PEFT[family])}
    assert differing <= {"phi"}  # peft adds the MLP there; auto means query and value everywhere
    assert len(ours.keys() & PEFT.keys()) > 10


@pytest.mark.parametrize(
    "targets,count",
    (
        ("all-linear", 12),
        (["fc1"], 2),
        (["fc1", "q_proj"], 4),
        (r"vit\.layers\.1\..*_proj", 4),
        ("o_proj", 2),
        (["vit.layers.0.mlp.fc2"], 1),
        ("classifier", 1),
    ),
)
def test_names_and_expressions(targets, count):
    assert len(space_of(make_base("vit"), targets=targets)[0].pairs) == count


@pytest.mark.parametrize(
    "family,leaves",
    (
        ("vit", {"q_proj", "k_proj", "v_proj", "o_proj"}),
        ("roberta", {"query", "key", "value", "dense"}),
        ("gpt2", {"c_attn", "c_proj"}),
        ("llama", {"q_proj", "k_proj", "v_proj", "o_proj"}),
    ),
)
def test_attention_takes_whole_attention_blocks(family, leaves):
    names = [pair.module for pair in space_of(make_base(family, "auto"), targets="attention")[0].pairs]
    assert {name.rpartition(".")[2] for name in names} == leaves
    assert len(names) == 2 * len(leaves)
    assert not any("mlp" in name or "intermediate" in name for name in names)


def test_layers():
    space, _ = space_of(make_base("vit"), layers=[1])
    assert {pair.module.split(".")[2] for pair in space.pairs} == {"1"}


@pytest.mark.parametrize(
    "lora,field,words",
    (
        (
            {"targets": ["q_proj", "quer"]},
            "model.lora.targets",
            "'quer' is not in ViT.*q_proj, k_proj, v_proj, o_proj, fc1, fc2, classifier",
        ),
        ({"targets": "nothing.*"}, "model.lora.targets", "linear modules found: q_proj"),
        ({"targets": "("}, "model.lora.targets", "not a valid regular expression"),
        ({"targets": ["layernorm"]}, "model.lora.targets", "is a LayerNorm, not a linear layer"),
        ({"layers": [0, 5]}, "model.lora.layers", "layer 5 does not exist.*layers 0 to 1"),
    ),
)
def test_wrong_targets_are_explained(lora, field, words):
    with pytest.raises(ConfigError, match=words) as caught:
        space_of(make_base("vit"), **lora)
    assert caught.value.field == field


def test_an_unknown_architecture_lists_what_it_has():
    """FNet mixes tokens without any attention, so there is no query or value to adapt."""
    import transformers as tf

    config = tf.FNetConfig(
        hidden_size=16, num_hidden_layers=1, intermediate_size=16, max_position_embeddings=16, vocab_size=20
    )
    base = freeze(tf.FNetForSequenceClassification(config), "sequence-classification", "fnet")
    with pytest.raises(ConfigError, match=r"auto does not know the architecture 'fnet'.*dense"):
        space_of(base)


HEADS = {
    ("vit", "auto"): {"classifier.weight": (3, 32), "classifier.bias": (3,)},
    ("roberta", "auto"): {
        "classifier.dense.weight": (32, 32),
        "classifier.dense.bias": (32,),
        "classifier.out_proj.weight": (3, 32),
        "classifier.out_proj.bias": (3,),
    },
    ("gpt2", "classification"): {"score.weight": (3, 32)},
    ("llama", "auto"): {"lm_head.weight": (80, 32)},
    ("llama", "classification"): {"score.weight": (3, 32)},
}


@pytest.mark.parametrize("family,task", list(HEADS))
def test_trained_heads(family, task):
    base = make_base(family, task)
    space, head = space_of(base, train_head=True)
    assert {name: value.shape for name, value in head.items()} == HEADS[family, task]
    assert space.always_sent == set(head)
    assert list(space.shapes)[-len(head) :] == list(head)
    for name, value in head.items():
        assert np.array_equal(value, base.weights[name])
    assert not any(pair.module.startswith(("classifier", "score", "lm_head")) for pair in space.pairs)


def test_a_trained_head_gets_no_factors_as_well():
    base = make_base("roberta")
    frozen = {pair.module for pair in space_of(base, targets=["dense"])[0].pairs}
    trained = {pair.module for pair in space_of(base, targets=["dense"], train_head=True)[0].pairs}
    assert frozen - trained == {"classifier.dense"}


def test_heads_that_cannot_be_trained_are_refused():
    with pytest.raises(ConfigError, match="lm_head of GPT2LMHeadModel shares its weights") as caught:
        space_of(make_base("gpt2"), train_head=True)
    assert caught.value.field == "model.lora.train_head"
    import transformers as tf

    config = tf.ElectraConfig(
        vocab_size=20,
        hidden_size=16,
        embedding_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=16,
    )
    base = freeze(tf.ElectraForCausalLM(config), "causal-lm", "electra")
    with pytest.raises(ConfigError, match="LayerNorm; only heads of linear layers"):
        space_of(base, train_head=True)


def test_every_family_has_a_space_without_values():
    """Reading names and shapes allocates nothing: everything stays on the meta device."""
    from raysoft.models.base import empty_module

    for family, task in KINDS:
        module = empty_module(make_base(family, task))
        assert {p.device for p in module.parameters()} == {torch.device("meta")}
