"""Which class is which, and which client: names from files, splits and folders, joined to a checkpoint's head."""

import json
import logging

import datasets
import numpy as np
import pytest
from PIL import Image

from raysoft.config import DataConfig
from raysoft.config.presets import load_config
from raysoft.data import files
from raysoft.errors import ConfigError
from raysoft.federation.workload import describe, prepare
from raysoft.models.tasks import build_task
from tests.hf_folders import make_model, make_tokenizer

NUMBERS = [str(n) for n in range(12)]


@pytest.fixture(scope="module")
def twelve(tmp_path_factory):
    """A classifier of twelve classes that it calls LABEL_0, LABEL_1, ..."""
    folder = tmp_path_factory.mktemp("twelve")
    model = make_model("roberta", num_labels=12)
    model.config.id2label = {n: f"LABEL_{n}" for n in range(12)}
    model.config.label2id = {f"LABEL_{n}": n for n in range(12)}
    model.save_pretrained(folder)
    make_tokenizer(folder)
    return folder


def load(model, path, *settings):
    words = [
        f"model.name={model}",
        f"data.path={path}",
        "data.task=sequence-classification",
        "data.partition=iid",
        "data.clients=2",
        "cohort.size=2",
        *settings,
    ]
    return load_config("soft", words)


def csv(path, rows, header="text,label"):
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text("\n".join([header, *rows, ""]))
    return path


def table(path, **settings):
    return files.read(path, DataConfig(task="sequence-classification", path=str(path), **settings))


@pytest.mark.parametrize("quote", ["", '"'])
def test_whole_numbers_are_sorted_as_numbers(tmp_path, twelve, quote):
    """As text they would be 0, 1, 10, 11, 2, ... and the head's rows would belong to other classes."""
    path = csv(tmp_path / "a.csv", [f"w{n},{quote}{n % 12}{quote}" for n in range(60)])
    data, *_ = build_task(load(twelve, path, "model.lora.train_head=false"))
    assert data.label_names == tuple(NUMBERS)
    for part in (data.train, data.test):
        words = part.inputs["input_ids"][:, 1] - 5  # w0 is token 5
        assert (words % 12 == part.labels).all()
    assert "since the names do not tell" in data.label_note


def test_a_run_prints_its_classes_and_what_became_of_the_head(tmp_path, twelve):
    path = csv(tmp_path / "a.csv", [f"w{n},{'abc'[n % 3]}" for n in range(60)])
    config = load(twelve, path, "model.lora.train_head=true")
    shown = describe(prepare(config), config).description["classes"]
    assert shown.startswith("a, b, c (a new head in place of the checkpoint's for ['LABEL_0', ")


def saved(path, orders, swap=False):
    """Each split numbers the same names in an order of its own."""
    parts = {}
    for split, names in orders.items():
        rows = {"text": [f"w{n % 3}" for n in range(30)], "label": [names.index("abc"[n % 3]) for n in range(30)]}
        features = datasets.Features(
            {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=list(names))}
        )
        parts[split] = datasets.Dataset.from_dict(rows, features=features)
    datasets.DatasetDict(parts).save_to_disk(str(path))
    return path


def test_each_split_is_read_by_its_own_order_of_names(tmp_path, twelve):
    path = saved(tmp_path / "d", {"train": "cab", "test": "abc"})
    data, *_ = build_task(load(twelve, path, "model.lora.train_head=true"))
    assert data.label_names == tuple("cab")
    for part in (data.train, data.validation, data.test):
        words = part.inputs["input_ids"][:, 1] - 5
        assert [data.label_names[label] for label in part.labels] == ["abc"[word] for word in words]


def test_a_class_that_the_training_split_does_not_know_is_refused(tmp_path, twelve):
    path = saved(tmp_path / "d", {"train": "abc", "test": "abcd"})
    with pytest.raises(ConfigError, match=r"^data\.label_column: the test split knows the class 'd', the train split"):
        build_task(load(twelve, path, "model.lora.train_head=true"))


@pytest.mark.parametrize("suffix", ["csv", "tsv"])
def test_labels_and_clients_are_read_as_they_are_written(tmp_path, suffix):
    mark = {"csv": ",", "tsv": "\t"}[suffix]
    values = [("true", "007"), ("1", "7"), ("0", "07"), ("1e3", "7.0"), ("NaN", "nan"), ("1000", "1e1"), ("null", "NA")]
    rows = [mark.join(["w1", label, client]) for label, client in values]
    path = csv(tmp_path / f"a.{suffix}", rows, mark.join(["text", "label", "user"]))
    found = table(path, natural_key="user").train
    assert list(zip(found.labels, found.groups, strict=True)) == values


@pytest.mark.parametrize("column,field", [(1, "data.label_column"), (2, "data.natural_key")])
def test_a_missing_label_or_client_is_refused_by_row(tmp_path, twelve, column, field):
    rows = [["w1", "ab"[n % 2], f"u{n % 2}"] for n in range(12)]
    rows[4][column] = ""
    path = csv(tmp_path / "a.csv", [",".join(row) for row in rows], "text,label,user")
    with pytest.raises(ConfigError, match=rf"^{field.replace('.', '[.]')}: row 5 of a\.csv"):
        build_task(load(twelve, path, "data.natural_key=user", "model.lora.train_head=true"))


def test_a_tsv_has_no_quoting(tmp_path):
    texts = ['he said "no', '"', 'two "words"', "plain"]
    path = csv(tmp_path / "a.tsv", [f"{text}\tx" for text in texts], "text\tlabel")
    assert table(path).train.content == texts
    path.write_text('"text"\t"label"\n"w1"\t"x"\n')
    with pytest.raises(ConfigError, match="a TSV file has no quoting"):
        table(path)


def test_what_may_be_the_same_rows_twice_or_nobodys_is_refused(tmp_path):
    rows = [f"w{n},x" for n in range(4)]
    csv(tmp_path / "train.csv", rows)
    (tmp_path / "train.jsonl").write_text(json.dumps({"text": "w1", "label": "x"}))
    with pytest.raises(ConfigError, match=r"train\.csv and train\.jsonl both hold the train split"):
        table(tmp_path)
    (tmp_path / "train.jsonl").rename(tmp_path / "extra.jsonl")
    with pytest.raises(ConfigError, match=r"extra\.jsonl belongs to no split, beside train\.csv"):
        table(tmp_path)
    (tmp_path / "extra.jsonl").unlink()
    csv(tmp_path / "train-2.csv", rows)
    assert len(table(tmp_path).train) == 8


def test_test_rows_in_the_training_data_are_counted(tmp_path, twelve, caplog):
    csv(tmp_path / "d" / "train.csv", [f"w{n},{'ab'[n % 2]}" for n in range(30)])
    csv(tmp_path / "d" / "test.csv", [f"w{n},{'ab'[n % 2]}" for n in range(28, 34)])
    settings = ("model.lora.train_head=true", "data.validation_fraction=0")
    with caplog.at_level(logging.WARNING, "raysoft"):
        build_task(load(twelve, tmp_path / "d", *settings))
    assert "2 of 6 test rows" in caplog.text


def pictures(root, *folders):
    for folder in folders:
        for n in range(6):
            (root / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((4, 4), 40 * n, np.uint8)).save(root / folder / f"{n}.png")
    return root


def images(path, **settings):
    return files.read(path, DataConfig(task="image-classification", path=str(path), **settings))


def test_classes_may_be_called_train_and_dev(tmp_path):
    found = images(pictures(tmp_path, "bus", "train", "dev"))
    assert set(found.train.labels) == {"bus", "train", "dev"}
    assert found.test is None
    found = images(pictures(tmp_path / "deep", "train/train", "train/bus", "test/train", "test/bus"))
    assert set(found.train.labels) == set(found.test.labels) == {"train", "bus"}
    only = images(pictures(tmp_path / "only", "train", "test"))
    assert set(only.train.labels) == {"train", "test"}


def test_a_folder_per_client_is_asked_about_and_can_be_had(tmp_path):
    root = pictures(tmp_path, "phone0/cat", "phone0/dog", "phone1/cat")
    with pytest.raises(ConfigError, match=r"^data\.path: .*phone0/cat/0\.png is not label/image.*natural_key=folder"):
        images(root)
    found = images(root, natural_key="folder").train
    assert sorted(set(zip(found.groups, found.labels, strict=True))) == [
        ("phone0", "cat"),
        ("phone0", "dog"),
        ("phone1", "cat"),
    ]
    split = images(pictures(tmp_path / "split", "train/p0/cat", "train/p1/dog", "test/p0/dog"), natural_key="folder")
    assert (set(split.train.groups), set(split.test.labels)) == ({"p0", "p1"}, {"dog"})


def test_odd_image_folders_are_refused(tmp_path):
    pictures(tmp_path / "mixed", "cat", "dog/old")
    with pytest.raises(ConfigError, match="different depths"):
        images(tmp_path / "mixed")
    with pytest.raises(ConfigError, match="no column 'who'"):
        images(pictures(tmp_path / "flat", "cat", "dog"), natural_key="who")
    with pytest.raises(ConfigError, match="is not client/label/image"):
        images(tmp_path / "flat", natural_key="folder")
    pictures(tmp_path / "bare", ".")
    with pytest.raises(ConfigError, match="holds no images in subfolders"):
        images(tmp_path / "bare")
