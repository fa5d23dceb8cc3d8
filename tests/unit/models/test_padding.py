"""What a text classifier receives is what plain transformers give it, one text at a time and without padding."""

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedTokenizerFast

from raysoft.config.presets import load_config
from raysoft.errors import ConfigError
from raysoft.federation.workload import prepare
from raysoft.methods.initial import initial_theta
from raysoft.models.trainers.packed_lora import PackedTrainer
from raysoft.rng import Rng
from tests import architectures, tolerances
from tests.architectures import LABELS
from tests.hf_folders import VOCABULARY, make_model

TEXTS = ["w1 w2", "w3 w4 w5 w6 w7 w8 w9", "w2", "w10 w11 w12 w13", "w5 w4 w3 w2 w1 w9 w8 w7 w6", "w9 w9"]


def tokenizer(folder, template="<s> $A </s>", **names):
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    words = [*special, *(f"w{i}" for i in range(VOCABULARY - len(special)))]
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    ends = [(word, i) for i, word in enumerate(special) if word in template]
    made.post_processor = processors.TemplateProcessing(single=template, special_tokens=ends)
    names = {key: value for key, value in names.items() if value is not None}
    PreTrainedTokenizerFast(tokenizer_object=made, unk_token="<unk>", **names).save_pretrained(folder)


def folder_of(tmp_path, model, **tokens):
    model.save_pretrained(tmp_path / "model")
    tokenizer(tmp_path / "model", **tokens)
    return tmp_path / "model"


def workload_of(folder, tmp_path, texts=TEXTS, *settings):
    rows = [f"{text},{LABELS[n % 3]}" for n, text in enumerate(texts)]
    (tmp_path / "data").mkdir(exist_ok=True)
    for split in ("train", "test"):
        (tmp_path / "data" / f"{split}.csv").write_text("\n".join(["text,label", *rows, ""]))
    words = [
        f"model.name={folder}",
        f"data.path={tmp_path / 'data'}",
        "data.task=sequence-classification",
        "data.partition=iid",
        "data.clients=2",
        "cohort.size=2",
        "model.lora.train_head=false",
        "data.proxy_fraction=0",
        "model.lora.targets=auto",
        *settings,
    ]
    return prepare(load_config("soft", words))


def assert_as_alone(folder, workload):
    theta = initial_theta(workload.space, workload.head, "peft", Rng(0))
    trainer = PackedTrainer(workload.base, workload.space)
    found = trainer.evaluate_samples(theta, workload.data.test, batch_size=len(TEXTS))
    model, tokens = (
        AutoModelForSequenceClassification.from_pretrained(folder).eval(),
        AutoTokenizer.from_pretrained(folder),
    )
    for row, text in enumerate(TEXTS):
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([tokens(text)["input_ids"]])).logits.float()
        loss = torch.nn.functional.cross_entropy(logits, torch.tensor([row % 3])).item()
        assert found[row, 2] == pytest.approx(loss, abs=tolerances.logits(logits)), text


@pytest.mark.parametrize("model_pad,model_end", [(None, 2), (None, [1, 2]), (None, None), (1, 2), (-1, 2), (9, 2)])
@pytest.mark.parametrize("pad,end", [("<pad>", "</s>"), (None, "</s>"), (None, None), ("<unk>", "</s>")])
def test_whatever_the_three_say_of_padding(tmp_path, model_pad, model_end, pad, end):
    """Decoder classifiers look for the last token that is not padding; 9 is a word that texts hold and end with."""
    model = make_model("llama", "classification", pad_token_id=None)
    model.config.pad_token_id, model.config.eos_token_id = model_pad, model_end
    folder = folder_of(tmp_path, model, template="$A", pad_token=pad, eos_token=end)
    workload = workload_of(folder, tmp_path)
    if model_pad in (None, -1):
        config = AutoModelForSequenceClassification.from_pretrained(folder).config
        config.pad_token_id = None  # one text alone needs none
        config.save_pretrained(folder)
    assert_as_alone(folder, workload)


def test_a_model_that_reads_the_last_position_is_padded_on_the_left(tmp_path):
    model = architectures.tiny("xlnet")
    folder = folder_of(tmp_path, model, template="$A", pad_token="<pad>", eos_token="</s>")
    texts = [" ".join(f"w{int(word[1:]) % 50}" for word in text.split()) for text in TEXTS]
    workload = workload_of(folder, tmp_path, texts, "model.lora.targets=all-linear")
    assert workload.base.pad_left
    assert_as_alone(folder, workload)


def test_a_text_without_a_token_is_refused_by_row(tmp_path):
    made = make_model("roberta")
    folder = folder_of(tmp_path, made, template="$A", pad_token="<pad>", eos_token="</s>")
    blank = AutoTokenizer.from_pretrained(folder)
    blank.backend_tokenizer.pre_tokenizer = pre_tokenizers.Split("w2", "removed")
    blank.save_pretrained(folder)
    with pytest.raises(ConfigError, match=r"^data\.text_column: row 3 of train\.csv gives no token: 'w2'"):
        workload_of(folder, tmp_path)


def test_more_ends_than_the_others_are_refused_by_row_where_the_classifier_reads_them(tmp_path):
    folder = folder_of(tmp_path, architectures.tiny("bart"), template="$A </s>", pad_token="<pad>", eos_token="</s>")
    with pytest.raises(ConfigError, match=r"^data\.text_column: row 2 of train\.csv holds '</s>'.*take it out"):
        workload_of(folder, tmp_path, ["w1", "w2 </s> w3", "w4"])


@pytest.mark.parametrize("model_type", ["mpnet", "roberta", "camembert", "longformer", "bert", "mpt"])
def test_texts_are_cut_where_the_positions_end(tmp_path, model_type):
    """RoBERTa and its kin count positions from padding_idx + 1; one token more would be an IndexError."""
    model = architectures.tiny(model_type)
    folder = folder_of(tmp_path, model, template="<s> $A </s>", pad_token="<pad>", eos_token="</s>")
    long = " ".join(["w5"] * 100)
    workload = workload_of(folder, tmp_path, [long, *(f"w{n}" for n in range(1, 9))])
    table = model.config.max_seq_len if model_type == "mpt" else model.config.max_position_embeddings
    assert workload.data.test.lengths.max() == (table if model_type in ("bert", "mpt") else table - 2)
    theta = initial_theta(workload.space, workload.head, "peft", Rng(0))
    found = PackedTrainer(workload.base, workload.space).evaluate_samples(theta, workload.data.test, 9)
    assert np.isfinite(found).all()


@pytest.mark.parametrize("model_type", ["bert", "gpt2", "roberta"])
def test_texts_that_fill_all_positions_are_probed_within_them(tmp_path, model_type):
    folder = folder_of(tmp_path, architectures.tiny(model_type), pad_token="<pad>", eos_token="</s>")
    long = " ".join(["w5"] * 100)
    workload = workload_of(folder, tmp_path, [long, long, long, "w1", "w2", "w3"], "data.validation_fraction=0")
    assert workload.data.train.lengths.max() == (38 if model_type == "roberta" else 40)
    assert not workload.base.pad_left


def test_half_precision_does_not_pass_for_padding_that_is_seen(tmp_path):
    """A sum of another width is rounded to bfloat16 elsewhere: logits move by a percent without any token seen."""
    sizes = dict(hidden_size=512, num_attention_heads=8, num_hidden_layers=4, max_position_embeddings=80)
    model = make_model("roberta", **sizes).to(torch.bfloat16)
    folder = folder_of(tmp_path, model, pad_token="<pad>", eos_token="</s>")
    texts = [" ".join(f"w{(7 * n + k) % 70}" for k in range(length)) for n, length in enumerate([3, 59, 9, 23, 5, 58])]
    assert not workload_of(folder, tmp_path, texts, "data.validation_fraction=0").base.pad_left
