"""The embedded data: scanned digits, and the standard library's source."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from raysoft.config import DataConfig
from raysoft.data import digits, python_source
from raysoft.data.raw import RawSamples, RawTask, split, stratified
from raysoft.data.stdlib_source import MIN_PACKAGE_BYTES, PRETRAINING_PACKAGES, read_packages
from raysoft.data.text import encode_bytes
from raysoft.errors import ConfigError
from raysoft.rng import Rng


def identities(samples: RawSamples) -> set[bytes]:
    return {np.asarray(image).tobytes() for image in samples.content}


def test_digits_are_the_scanned_ones():
    task = digits.read()
    assert len(task.train) == 1797
    assert np.asarray(task.train.content[0]).shape == (8, 8)
    assert max(int(image.max()) for image in task.train.content) == 255
    assert task.train.labels is not None
    assert task.train.labels[:10] == list(range(10))


def test_digit_splits_are_disjoint_stratified_and_keyed():
    config = DataConfig(task="digits")
    task = digits.read()
    splits = split(task, config, Rng(0))
    parts = splits.named()
    assert len(splits.test) == round(0.25 * 1797)
    assert sum(len(part) for part in parts.values()) == 1797
    assert set.union(*map(identities, parts.values())) == identities(task.train)
    assert not identities(splits.train) & identities(splits.test)
    whole = np.bincount(task.train.labels, minlength=10) / 1797
    for part in parts.values():
        # Largest remainder: within one sample of the exact share of what each cut started from (three cuts).
        assert np.all(np.abs(np.bincount(part.labels, minlength=10) - whole * len(part)) < 3)
    again = split(task, config, Rng(0))
    other = split(task, config, Rng(1))
    assert identities(again.test) == identities(splits.test)
    assert again.train.labels == splits.train.labels
    assert identities(other.test) != identities(splits.test)


def test_stratified_takes_exactly_the_count_and_nearly_the_shares():
    strata = np.array(["a"] * 70 + ["b"] * 25 + ["c"] * 5)
    chosen = stratified(strata, 20, np.random.default_rng(0))
    assert len(set(chosen.tolist())) == 20
    assert {name: int((strata[chosen] == name).sum()) for name in "abc"} == {"a": 14, "b": 5, "c": 1}


def test_limits_and_existing_splits():
    rows = RawSamples([f"t{i}" for i in range(100)], [i % 4 for i in range(100)])
    config = DataConfig(task="sequence-classification", max_train_samples=40, max_test_samples=8, proxy_fraction=0.1)
    own = split(RawTask(train=rows, test=rows.take(np.arange(20)), validation=rows.take(np.arange(30))), config, Rng(0))
    assert (len(own.train), len(own.proxy), len(own.test), len(own.validation)) == (36, 4, 8, 8)
    carved = split(RawTask(train=rows), config, Rng(0))
    assert (len(carved.train), len(carved.proxy), len(carved.test), len(carved.validation)) == (32, 4, 8, 4)
    nothing = DataConfig(task="sequence-classification", validation_fraction=0, proxy_fraction=0)
    assert len(split(RawTask(train=rows), nothing, Rng(0)).validation) == 0


@pytest.mark.parametrize("rows", [0, 1])
def test_too_few_samples_are_refused(rows):
    samples = RawSamples(["x"] * rows, [0] * rows)
    with pytest.raises(ConfigError, match="too few samples"):
        split(RawTask(train=samples), DataConfig(task="sequence-classification", path="p"), Rng(0))


def test_python_source_clients_are_packages_that_pretraining_did_not_see():
    task = python_source.read(64, Rng(0))
    packages = read_packages()
    groups = set(task.train.groups or ())
    assert groups == set(packages) - set(PRETRAINING_PACKAGES)
    assert len(groups) >= 60
    assert not groups & {"test", "idlelib", "site-packages"}
    assert {len(text) for text in task.train.content} == {64}
    for text, group in list(zip(task.train.content, task.train.groups or (), strict=True))[::97]:
        assert text.encode() in packages[group]
    splits = split(task, DataConfig(task="python-source"), Rng(0))
    assert len(splits.test) >= 5000
    assert set(splits.test.groups or ()) == set(splits.train.groups or ()) == groups
    again = python_source.read(64, Rng(0))
    assert again.train.content == task.train.content
    assert python_source.read(64, Rng(1)).train.content != task.train.content


def test_pretraining_packages_are_there():
    packages = read_packages(only=PRETRAINING_PACKAGES)
    assert set(packages) == set(PRETRAINING_PACKAGES)
    assert sum(map(len, packages.values())) > 500_000


def test_source_reader_skips_what_it_should(tmp_path):
    big = "x = 1  # é\n" * 2000
    for name in ("good.py", "_private.py", "test/a.py", "pack/a.py", "pack/tests/b.py", "small.py", "notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(big if name != "small.py" else "x = 1\n", encoding="utf-8")
    (tmp_path / "latin.py").write_bytes(b"# \xe9\n" * MIN_PACKAGE_BYTES)
    found = read_packages(tmp_path)
    assert set(found) == {"good", "pack"}
    assert found["good"] == found["pack"] == big.replace("é", "?").encode()
    assert read_packages(tmp_path / "missing") == {}


def test_missing_source_is_a_clear_refusal(monkeypatch):
    monkeypatch.setattr(python_source, "read_packages", lambda: {})
    with pytest.raises(ConfigError, match="no source files") as caught:
        python_source.read(64, Rng(0))
    assert caught.value.field == "data.task"


def test_byte_encoding_is_the_tokenizers():
    from transformers import ByT5Tokenizer

    tokenizer = ByT5Tokenizer(extra_ids=0)
    texts = ["def f(x):\n\treturn 1", "~" * 19, "  # \"quoted\" 'text'"[:19]]
    examples = encode_bytes(texts, 3)
    for n, text in enumerate(texts):
        assert examples.inputs["input_ids"][n].tolist() == tokenizer(text, add_special_tokens=False)["input_ids"]
    assert np.array_equal(examples.labels, examples.inputs["input_ids"])
    assert examples.lengths is not None
    assert examples.lengths.tolist() == [19] * 3


def test_reading_data_does_not_load_torch():
    import subprocess

    code = (
        "import sys; from raysoft.data import digits, python_source, files, hf, images, text, partition; "
        "from raysoft.rng import Rng; digits.read(); python_source.read(64, Rng(0)); "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_digits_are_those_of_scikit_learn_however_they_are_read(monkeypatch):
    from sklearn.datasets import load_digits

    bunch = load_digits()
    for here in (True, False):  # as a file, or through the library where the file is not in its place
        if not here:
            monkeypatch.setattr(digits, "find_spec", lambda name: None)
        samples = digits.read().train
        assert np.array_equal(samples.content, np.rint(bunch.images * (255 / 16)))
        assert np.array_equal(samples.labels, bunch.target)
