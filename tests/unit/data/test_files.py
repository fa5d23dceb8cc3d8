"""A user's own data through `build_task`: every kind of file, and one clear sentence for every mistake."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from raysoft.config import RunConfig, parse_section
from raysoft.errors import ConfigError
from raysoft.models.tasks import build_partition, build_task
from raysoft.rng import Rng
from tests.hf_folders import LABELS, make_folder

WORDS = {"red": "w1 w2 w3", "green": "w4 w5", "blue": "w6 w7 w8 w9"}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("models")
    return {name: str(make_folder(folder / name, name)) for name in ("vit", "roberta", "gpt2")}


def config(model: str, lora: dict[str, Any] | None = None, **data: Any) -> RunConfig:
    plugin = {"name": "x"}
    sections = {kind: plugin for kind in ("method", "codec", "allocator", "uplink", "channel")}
    small = {"partition": "iid", "clients": 4, "min_samples": 1}
    tree = {"model": {"name": model, "lora": lora or {}}, "data": {**small, **data}, "cohort": {"size": 1}, **sections}
    return parse_section(RunConfig, tree)


def rows(count: int = 60) -> list[dict[str, Any]]:
    return [
        {"text": f"{WORDS[LABELS[i % 3]]} w{i % 40}", "label": LABELS[i % 3], "user": f"u{i % 5}"} for i in range(count)
    ]


def write(path: Path, table: list[dict[str, Any]]) -> Path:
    """One table as the kind of file that the name says."""
    import pyarrow as pa
    from pyarrow import csv, parquet

    if path.suffix == ".jsonl":
        path.write_text("\n".join(json.dumps(row) for row in table) + "\n\n", encoding="utf-8")
    elif path.suffix == ".parquet":
        parquet.write_table(pa.Table.from_pylist(table), path)
    else:
        mark = "\t" if path.suffix == ".tsv" else ","
        quoting = "none" if path.suffix == ".tsv" else "needed"
        csv.write_csv(pa.Table.from_pylist(table), path, csv.WriteOptions(delimiter=mark, quoting_style=quoting))
        if path.suffix == ".tsv":  # pyarrow quotes the header whatever it is told
            header, _, body = path.read_text(encoding="utf-8").partition("\n")
            path.write_text(header.replace('"', "") + "\n" + body, encoding="utf-8")
    return path


def picture(seed: int, size: tuple[int, int] = (8, 8), mode: str = "L") -> Image.Image:
    shape = (size[1], size[0]) if mode == "L" else (size[1], size[0], 3)
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))


def image_folder(root: Path, per_label: int = 8) -> Path:
    for n, label in enumerate(LABELS):
        (root / label).mkdir(parents=True)
        for i in range(per_label):
            picture(100 * n + i).save(root / label / f"{i}.png")
    return root


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl", "a.parquet", "saved", "saved_dict", "folder"])
def test_text_classification_from_every_kind_of_file(tmp_path, models, name):
    import datasets

    path = tmp_path / name
    if name == "saved":
        datasets.Dataset.from_list(rows()).save_to_disk(str(path))
    elif name == "saved_dict":
        parts = {"train": rows(45), "test": rows(15)}
        datasets.DatasetDict({k: datasets.Dataset.from_list(v) for k, v in parts.items()}).save_to_disk(str(path))
    elif name == "folder":
        path.mkdir()
        write(path / "train.csv", rows(45))
        write(path / "test-00000.parquet", rows(15))
    else:
        write(path, rows())
    section = config(models["roberta"], task="sequence-classification", path=str(path), natural_key="user")
    data, source, kind = build_task(section)
    assert (source, kind) == (models["roberta"], "sequence-classification")
    assert data.label_names == LABELS  # in the order of the model's head, not of the alphabet
    assert len(data.test) == 15
    assert sum(len(part) for part in (data.train, data.validation, data.test, data.proxy)) == 60
    assert data.group_names == tuple(f"u{i}" for i in range(5))
    assert data.groups is not None
    ids, mask = data.train.inputs["input_ids"], data.train.inputs["attention_mask"]
    assert data.train.lengths is not None
    assert np.array_equal(mask.sum(1), data.train.lengths)
    first_word = {label: 5 + int(text.split()[0][1:]) for label, text in WORDS.items()}  # 5 special tokens
    for n in range(len(data.train)):
        length = data.train.lengths[n]
        assert (ids[n, 0], ids[n, length - 1]) == (0, 2)  # <s> ... </s>
        assert np.all(ids[n, length:] == 1)  # <pad>
        assert ids[n, 1] == first_word[LABELS[data.train.labels[n]]]  # a text has kept its own label
    again, *_ = build_task(section)
    assert np.array_equal(again.train.inputs["input_ids"], ids)


def test_natural_clients_hold_their_own_rows(tmp_path, models):
    path = write(tmp_path / "a.csv", rows())
    section = config(models["gpt2"], task="causal-lm", path=str(path), natural_key="user", partition="natural")
    data, *_ = build_task(section)
    partition = build_partition(section, data, Rng(0))
    assert partition.names == tuple(f"u{i}" for i in range(5))
    for k in range(5):
        # Row i belongs to user i % 5 and ends with the word w(i % 40), token 5 + i % 40.
        ids, lengths = data.train.inputs["input_ids"], data.train.lengths
        assert lengths is not None
        for n in partition.indices(k):
            assert (ids[n, lengths[n] - 2] - 5) % 5 == k


def test_causal_lm_pieces_long_texts_and_masks_the_padding(tmp_path, models):
    texts = [" ".join(f"w{(i + j) % 60}" for j in range(25 if i == 0 else 4)) for i in range(20)] + ["", "  "]
    path = write(tmp_path / "a.jsonl", [{"text": text} for text in texts])
    data, _, kind = build_task(config(models["gpt2"], task="causal-lm", path=str(path), max_length=8))
    assert kind == "causal-lm"
    assert not data.bits_per_byte
    parts = (data.train, data.validation, data.test, data.proxy)
    assert all(part.inputs["input_ids"].shape[1] <= 8 for part in parts)
    # 25 words and two marks in pieces of 8 give 8, 8, 8, 3; the other 19 texts have 6 tokens; blank ones go.
    assert sorted(int(n) for part in parts for n in part.lengths) == [3, *[6] * 19, 8, 8, 8]
    for part in parts:
        mask = part.inputs["attention_mask"]
        assert np.array_equal(part.labels == -100, mask == 0)
        assert np.array_equal(part.labels[mask > 0], part.inputs["input_ids"][mask > 0])


def test_length_is_capped_by_the_models_positions(tmp_path, models):
    path = write(tmp_path / "a.jsonl", [{"text": " ".join(["w1"] * 90), "label": i % 2} for i in range(20)])
    section = config(models["roberta"], {"train_head": True}, task="sequence-classification", path=str(path))
    data, *_ = build_task(section)
    assert data.train.inputs["input_ids"].shape[1] == 38  # 40 positions, counted from padding_idx + 1 = 2
    assert data.label_names == ("0", "1")


@pytest.mark.parametrize("name", ["folder", "split_folder", "a.csv", "a.parquet", "saved"])
def test_images_from_every_kind_of_file(tmp_path, models, name):
    import datasets

    root, field = tmp_path / "images", {}
    if name == "split_folder":
        image_folder(root / "train", 6)
        image_folder(root / "test", 2)
        path = root
    else:
        path = image_folder(root)
    files = [(file, label) for label in LABELS for file in sorted((root / label).glob("*.png"))]
    if name == "a.csv":
        path = write(root / name, [{"file": str(f.relative_to(root)), "label": y} for f, y in files])
        field = {"image_column": "file"}
    elif name == "a.parquet":
        path = write(
            tmp_path / name, [{"image": {"bytes": f.read_bytes(), "path": None}, "label": y} for f, y in files]
        )
    elif name == "saved":
        path = tmp_path / name
        features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=sorted(LABELS))})
        columns = {"image": [str(f) for f, _ in files], "label": [sorted(LABELS).index(y) for _, y in files]}
        datasets.Dataset.from_dict(columns, features=features).save_to_disk(str(path))
    data, _, kind = build_task(config(models["vit"], task="image-classification", path=str(path), **field))
    assert kind == "image-classification"
    assert data.label_names == LABELS
    expected = {}
    for n in range(3):
        for i in range(8):
            pixels = (np.asarray(picture(100 * n + i), dtype=np.float32) / 255 - 0.5) / 0.5
            expected[np.round(pixels, 4).tobytes()] = n
    seen = 0
    for part in (data.train, data.validation, data.test, data.proxy):
        assert part.inputs["pixel_values"].shape[1:] == (1, 8, 8)
        for pixels, label in zip(part.inputs["pixel_values"], part.labels, strict=True):
            key = np.round(pixels[0], 4).tobytes()
            if name != "split_folder" or key in expected:
                assert expected[key] == label
            seen += 1
    assert seen == 24


def damaged(tmp_path: Path) -> dict[str, Path]:
    """Files and folders that cannot be used, by what is wrong."""
    good = rows(30)
    blank = [dict(row) for row in good]
    blank[3]["text"] = "  "
    (tmp_path / "empty").mkdir()
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "state.json").write_text("{")
    (tmp_path / "bad.csv").write_text('a,b\n1,2,3\n"')
    (tmp_path / "bad.parquet").write_bytes(b"no parquet")
    (tmp_path / "bad.jsonl").write_text('{"text": "w1", "label": 0}\n[1]\n')
    (tmp_path / "data.xyz").write_text("?")
    return {
        "blank": write(tmp_path / "blank.jsonl", blank),
        "empty": tmp_path / "empty",
        "state": tmp_path / "state",
        "csv": tmp_path / "bad.csv",
        "parquet": tmp_path / "bad.parquet",
        "jsonl": tmp_path / "bad.jsonl",
        "kind": tmp_path / "data.xyz",
        "float": write(tmp_path / "float.csv", [{**row, "label": 0.5} for row in good]),
        "no label": write(
            tmp_path / "none.jsonl", [{**row, "label": None if i == 4 else 1} for i, row in enumerate(good)]
        ),
        "mixed": write(tmp_path / "mixed.jsonl", [{**row, "label": i if i % 2 else "a"} for i, row in enumerate(good)]),
        "single": write(tmp_path / "single.csv", [{**row, "label": "a"} for row in good]),
        "number": write(tmp_path / "number.jsonl", [{**row, "text": 5} for row in good]),
        "few": write(tmp_path / "few.csv", good[:1]),
        "others": write(tmp_path / "others.csv", [{**row, "label": f"x{i % 4}"} for i, row in enumerate(good)]),
        "no client": write(tmp_path / "client.jsonl", [{**row, "user": None} for row in good]),
        "good": write(tmp_path / "good.csv", good),
        "missing": tmp_path / "missing.csv",
    }


@pytest.mark.parametrize(
    "case, changes, field, words",
    [
        ("missing", {}, "data.path", "does not exist"),
        ("empty", {}, "data.path", "holds no data files"),
        ("state", {}, "data.path", "saved dataset"),
        ("csv", {}, "data.path", "cannot be read as csv"),
        ("parquet", {}, "data.path", "cannot be read as parquet"),
        ("jsonl", {}, "data.path", "line 2"),
        ("kind", {}, "data.path", "unknown kind of file"),
        ("good", {"text_column": "body"}, "data.text_column", "columns found: label, text, user"),
        ("good", {"label_column": "y"}, "data.label_column", "columns found: label, text, user"),
        ("good", {"natural_key": "who"}, "data.natural_key", "columns found: label, text, user"),
        ("good", {"path": None}, "data.path", "is required"),
        ("good", {"path": "nobody/nothing"}, "data.path", "HF_HUB_OFFLINE"),
        ("good", {"task": "regression"}, "data.task", "choose from digits"),
        ("blank", {}, "data.text_column", "row 4 of blank.jsonl is empty"),
        ("float", {}, "data.label_column", "0.5"),
        ("no label", {}, "data.label_column", "row 5 of none.jsonl has no label"),
        ("mixed", {}, "data.label_column", "mixes"),
        ("single", {}, "data.label_column", "single label, 'a'"),
        ("number", {}, "data.text_column", "must hold text, got 5"),
        ("few", {}, "data.path", "too few samples"),
        ("good", {"subset": "en"}, "data.subset", "is local"),
        ("good", {"task": "digits"}, "data.path", "is not used by data.task=digits"),
        ("others", {}, "model.lora.train_head", "set model.lora.train_head=true"),
        ("no client", {"natural_key": "user"}, "data.natural_key", "names no client"),
    ],
)
def test_bad_data_is_one_clear_sentence(tmp_path, models, case, changes, field, words):
    tree = {"task": "sequence-classification", "path": str(damaged(tmp_path)[case]), **changes}
    with pytest.raises(ConfigError, match=words) as caught:
        build_task(config(models["roberta"], **tree))
    assert caught.value.field == field
    assert "\n" not in str(caught.value)


def test_bad_images_are_named(tmp_path, models):
    root = image_folder(tmp_path / "images")
    (root / "green" / "3.png").write_bytes(b"\x89PNG damaged")
    with pytest.raises(ConfigError, match=r"green/3\.png: not a readable image"):
        build_task(config(models["vit"], task="image-classification", path=str(root)))
    table = write(tmp_path / "a.csv", [{"image": f"gone{i}.png", "label": i % 3} for i in range(20)])
    with pytest.raises(ConfigError, match=r"gone\d+\.png"):
        build_task(config(models["vit"], task="image-classification", path=str(table)))
    (tmp_path / "none").mkdir()
    with pytest.raises(ConfigError, match="holds no images"):
        build_task(config(models["vit"], task="image-classification", path=str(tmp_path / "none")))


def test_bad_models_are_named(tmp_path, models):
    path = str(write(tmp_path / "a.csv", rows(30)))
    for model, words in (("./nowhere", "not an existing folder"), ("embedded/vit-digit", "choose from embedded/vit")):
        with pytest.raises(ConfigError, match=words) as caught:
            build_task(config(model, task="sequence-classification", path=path))
        assert caught.value.field == "model.name"
    with pytest.raises(ConfigError, match="is an image model"):
        build_task(config(models["vit"], task="causal-lm", path=path))
    with pytest.raises(ConfigError, match="how large"):
        build_task(config(models["roberta"], task="digits"))
    with pytest.raises(ConfigError, match="no trained classification head"):
        build_task(config(models["gpt2"], task="sequence-classification", path=path))


def test_digits_fit_any_image_model(models):
    data, _, kind = build_task(config(models["vit"], {"train_head": True}, task="digits"))
    assert kind == "image-classification"
    assert data.label_names == tuple("0123456789")
    assert data.train.inputs["pixel_values"].shape[1:] == (1, 8, 8)
    assert data.train.inputs["pixel_values"].dtype == np.float32
    assert (data.train.inputs["pixel_values"].min(), data.train.inputs["pixel_values"].max()) == (-1.0, 1.0)


def test_an_unlabelled_test_split_counts_as_absent(tmp_path, models):
    import datasets

    parts = {"train": rows(40), "test": [{**row, "label": -1} for row in rows(10)]}
    numbered = {
        k: [{**r, "label": LABELS.index(r["label"]) if r["label"] != -1 else -1} for r in v] for k, v in parts.items()
    }
    saved = datasets.DatasetDict({k: datasets.Dataset.from_list(v) for k, v in numbered.items()})
    saved.save_to_disk(str(tmp_path / "d"))
    data, *_ = build_task(config(models["roberta"], task="sequence-classification", path=str(tmp_path / "d")))
    assert len(data.test) == 10  # a quarter of the 40
    assert set(data.test.labels) == {0, 1, 2}
