"""Embedded models: made once, cached by content, safe with two processes; and as good as they are said to be."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import SafetensorError

from raysoft.errors import ConfigError, RaysoftError
from raysoft.federation.content import KnownDigests
from raysoft.models import embedded
from raysoft.models.glyphs import FONTS, distort, render_digits
from raysoft.models.tasks import build_task


@pytest.fixture
def short(monkeypatch, tmp_path):
    """An empty cache, and recipes of three steps."""
    monkeypatch.setenv("RAYSOFT_CACHE", str(tmp_path / "cache"))
    quick = {name: dataclasses.replace(r, steps=3, batch_size=4) for name, r in embedded.RECIPES.items()}
    monkeypatch.setattr(embedded, "RECIPES", quick)
    return tmp_path / "cache"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_glyphs_are_every_digit_in_every_font():
    images, labels = render_digits()
    assert images.shape == (10 * len(FONTS), 64, 64)
    assert np.bincount(labels).tolist() == [len(FONTS)] * 10
    assert len({image.tobytes() for image in images}) == len(images)
    for image in images:
        ink_rows = np.flatnonzero(image.max(1) > 40)
        assert 36 <= np.ptp(ink_rows) + 1 <= 41  # height-normalised to 40 of 64
        assert abs(ink_rows.mean() - 31.5) <= 2
    # A zero is hollow, a one is not; a rendering that mixes up digits or draws boxes would fail.
    assert all(
        images[i, 30:34, 31:33].max() < 128
        for i in np.flatnonzero(labels == 0)
        if "Mono" not in FONTS[i // 10] and FONTS[i // 10] != "cmtt10"
    )
    assert np.mean([images[i, 30:34, 26:38].max() for i in np.flatnonzero(labels == 1)]) > 200


def test_distorted_glyphs_are_keyed_pixels():
    masters = torch.from_numpy(render_digits()[0]).float() / 255
    one = distort(masters, torch.Generator().manual_seed(1))
    assert one.shape == (len(masters), 1, 8, 8)
    assert 0.0 <= float(one.min()) < 0.05
    assert 0.95 < float(one.max()) <= 1.0
    assert torch.equal(one, distort(masters, torch.Generator().manual_seed(1)))
    assert not torch.equal(one, distort(masters, torch.Generator().manual_seed(2)))


@pytest.mark.parametrize("name", list(embedded.RECIPES))
def test_made_once_deterministic_and_without_side_effects(short, monkeypatch, tmp_path, name):
    torch.manual_seed(5)
    np_state, torch_state, threads = np.random.get_state()[1].copy(), torch.get_rng_state(), torch.get_num_threads()
    seen: list[float] = []
    folder = embedded.ensure("embedded/" + name, on_progress=lambda fraction, text: seen.append(fraction))
    assert folder.parent == short
    assert seen[-1] == 1.0
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.array_equal(np.random.get_state()[1], np_state)
    assert torch.get_num_threads() == threads
    assert [path.name for path in short.iterdir()] == [folder.name]  # no scratch folder stays
    started = time.process_time()
    assert embedded.ensure("embedded/" + name, on_progress=lambda *_: pytest.fail("trained again")) == folder
    assert time.process_time() - started < 1.0
    first = contents(folder)
    monkeypatch.setenv("RAYSOFT_CACHE", str(tmp_path / "other"))
    assert contents(embedded.ensure("embedded/" + name)) == first


def test_folder_is_an_ordinary_model(short):
    from transformers import AutoModelForCausalLM, AutoModelForImageClassification, AutoTokenizer

    vit = AutoModelForImageClassification.from_pretrained(embedded.ensure("embedded/vit-digits"))
    assert vit.config.id2label == {n: str(n) for n in range(10)}
    assert vit(pixel_values=torch.zeros(2, 1, 8, 8)).logits.shape == (2, 10)
    folder = embedded.ensure("embedded/llama-bytes")
    llama = AutoModelForCausalLM.from_pretrained(folder)
    assert 250_000 < llama.num_parameters() < 350_000
    ids = AutoTokenizer.from_pretrained(folder)("x = 1", add_special_tokens=False, return_tensors="pt")["input_ids"]
    assert ids.tolist() == [[ord(c) + embedded.BYTE_OFFSET for c in "x = 1"]]
    assert llama(input_ids=ids).logits.shape == (1, 5, 259)


def test_the_hash_covers_what_determines_the_weights(short, monkeypatch):
    name = "embedded/vit-digits"
    folders = [embedded.ensure(name)]
    monkeypatch.setitem(embedded.RECIPES, "vit-digits", dataclasses.replace(embedded.RECIPES["vit-digits"], seed=1))
    folders.append(embedded.ensure(name))
    images, labels = render_digits()
    monkeypatch.setattr("raysoft.models.glyphs.render_digits", lambda: (images, labels[::-1].copy()))
    folders.append(embedded.ensure(name))
    monkeypatch.setattr(embedded, "version", lambda library: "0")
    folders.append(embedded.ensure(name))
    folders.append(embedded.ensure(name, threads=2))
    assert len(set(folders)) == len(folders)
    assert contents(folders[0])["model.safetensors"] != contents(folders[1])["model.safetensors"]


@pytest.mark.parametrize("harm", ["truncate", "flip", "remove", "manifest", "file"])
def test_a_damaged_cache_is_made_again(short, harm):
    folder = embedded.ensure("embedded/vit-digits")
    good = contents(folder)
    weights = folder / "model.safetensors"
    if harm == "truncate":
        weights.write_bytes(good["model.safetensors"][:-4])
    elif harm == "flip":
        weights.write_bytes(good["model.safetensors"][:-1] + bytes([good["model.safetensors"][-1] ^ 1]))
    elif harm == "remove":
        weights.unlink()
    elif harm == "manifest":
        (folder / "raysoft_base.json").write_text("[]")
    else:
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
        folder.write_text("in the way")
    assert embedded.ensure("embedded/vit-digits") == folder
    assert contents(folder) == good
    assert [path.name for path in short.iterdir()] == [folder.name]


def test_two_processes_at_once(short, tmp_path):
    code = (
        "import dataclasses; from raysoft.models import embedded\n"
        "recipe = dataclasses.replace(embedded.RECIPES['vit-digits'], steps=3, batch_size=4)\n"
        "embedded.RECIPES['vit-digits'] = recipe\n"
        "print(embedded.ensure('embedded/vit-digits'))"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    both = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=environment) for _ in range(2)]
    printed = [process.communicate(timeout=120)[0].decode().strip() for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert printed[0] == printed[1] == str(embedded.ensure("embedded/vit-digits"))
    assert [str(path) for path in short.iterdir()] == [printed[0]]


def test_second_of_two_makers_keeps_the_first_folder(short):
    """The race itself: a finished folder appears while this one is still training."""
    first = []

    def overtaken(fraction, text):
        folder = embedded.ensure("embedded/vit-digits")
        first.append((folder, (folder / "model.safetensors").stat().st_ino))

    folder = embedded.ensure("embedded/vit-digits", on_progress=overtaken)
    assert first == [(folder, (folder / "model.safetensors").stat().st_ino)]
    assert list(short.iterdir()) == [folder]


def test_refusals(short, monkeypatch, tmp_path):
    with pytest.raises(ConfigError, match="choose from embedded/vit-digits, embedded/llama-bytes"):
        embedded.ensure("embedded/nothing")
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RAYSOFT_CACHE", str(tmp_path / "file"))
    with pytest.raises(RaysoftError, match="set RAYSOFT_CACHE"):
        embedded.ensure("embedded/vit-digits")
    monkeypatch.setattr("raysoft.data.stdlib_source.read_packages", lambda only: {})
    with pytest.raises(ConfigError, match="comes without"):
        embedded.ensure("embedded/llama-bytes")


def test_a_cache_in_the_home_of_nobody_is_one_sentence(monkeypatch):
    monkeypatch.setenv("RAYSOFT_CACHE", "~no-such-user/x")
    with pytest.raises(ConfigError, match=r"^RAYSOFT_CACHE: '~no-such-user/x': '~no-such-user' is no home folder"):
        embedded.ensure("embedded/vit-digits")
    with pytest.raises(ConfigError, match=r"^RAYSOFT_CACHE: "), KnownDigests():
        pass


def test_manifest_says_what_was_made(short):
    folder = embedded.ensure("embedded/llama-bytes")
    manifest = json.loads((folder / "raysoft_base.json").read_text())
    assert manifest["key"]["libraries"]["torch"] == version("torch")
    assert manifest["key"]["recipe"]["steps"] == 3
    assert set(manifest["files"]) >= {"config.json", "model.safetensors", "tokenizer_config.json"}


@pytest.fixture(scope="module")
def adapted():
    """Trains peft's LoRA on the embedded model of a task, all clients' data in one place.

    Gives each held-out sample's mean loss and share of right answers before and after: float64 [2, N] each.
    """
    import peft
    from transformers import AutoModelForCausalLM, AutoModelForImageClassification

    from tests.tasks import config

    def score(model, examples, index):
        ids = {k: torch.from_numpy(v[index]) for k, v in examples.inputs.items() if k != "attention_mask"}
        labels = torch.from_numpy(examples.labels[index])
        logits = model(**ids).logits
        if labels.ndim == 2:
            logits, labels = logits[:, :-1].transpose(1, 2), labels[:, 1:]
        losses = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
        right = logits.argmax(1) == labels
        return [one.double().flatten(1).mean(1) if one.ndim > 1 else one.double() for one in (losses, right)]

    def run(name, task, targets, steps, batch):
        section = config(task=task)
        section = section.model_copy(update={"model": section.model.model_copy(update={"name": name})})
        data, folder, kind = build_task(section)
        auto = AutoModelForCausalLM if kind == "causal-lm" else AutoModelForImageClassification
        held_out = np.arange(min(512, len(data.validation)))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            lora = peft.LoraConfig(r=8, lora_alpha=16, target_modules=targets)
            model = peft.get_peft_model(auto.from_pretrained(folder), lora)
        with torch.no_grad():
            before = score(model, data.validation, held_out)
        parameters = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(parameters, lr=5e-3)
        rng = np.random.default_rng(0)
        for _ in range(steps):
            losses, _ = score(model, data.train, rng.integers(len(data.train), size=batch))
            optimizer.zero_grad()
            losses.mean().backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
        with torch.no_grad():
            after = score(model, data.validation, held_out)
        return [np.stack([one[part].numpy() for one in (before, after)]) for part in (0, 1)]

    return run


def assert_better(before, after):
    """A paired difference of more than five standard errors: no fixed margin, which another processor may just miss."""
    gain = after - before
    assert gain.mean() > 5 * gain.std(ddof=1) / np.sqrt(len(gain))


@pytest.mark.slow
def test_vit_reads_print_and_can_learn_handwriting(adapted):
    _, (before, after) = adapted("embedded/vit-digits", "digits", ["q_proj", "v_proj"], 150, 64)
    assert_better(np.full(len(before), 0.1), before)  # it reads print, so it is no stranger to handwriting
    assert_better(before, after)
    assert_better(np.full(len(after), 0.5), after)


@pytest.mark.slow
def test_llama_has_something_to_learn_from_unseen_packages(adapted):
    (before, after), _ = adapted("embedded/llama-bytes", "python-source", "all-linear", 80, 16)
    assert before.mean() / np.log(2) < 4  # half of a byte is known beforehand, most of the rest is not
    assert_better(-before, -after)


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), SafetensorError("I/O error: No space left")])
def test_a_full_disk_under_the_cache_is_one_sentence(short, monkeypatch, error):
    def full(*_):
        raise error

    monkeypatch.setattr("transformers.ViTForImageClassification.save_pretrained", full)
    with pytest.raises(RaysoftError, match=r"cannot write the embedded model .*No space left.*; set RAYSOFT_CACHE to"):
        embedded.ensure("embedded/vit-digits")
    assert list(short.iterdir()) == [], "nothing half-written is left"
