"""The commands of docs/howto/own_data.md with the data that they speak of, as a reader would run them."""

from __future__ import annotations

import csv
import re
import shlex

import numpy as np
import pytest
from PIL import Image

from tests.command import ROOT, raysoft
from tests.conftest import records, summary
from tests.e2e.test_readme import write_reviews
from tests.hf_folders import make_folder

PAGE = (ROOT / "docs" / "howto" / "own_data.md").read_text(encoding="utf-8")


def command(holding: str) -> list[str]:
    """The words of the one command of the page that holds a text, without `raysoft`."""
    blocks = re.findall(r"```\n(raysoft run [^`]*?)```", PAGE)
    (found,) = [block for block in blocks if holding in block]
    return shlex.split(found.replace("\\\n", " "))[1:]


@pytest.fixture
def reviews(tmp_path):
    rng = np.random.default_rng(0)
    said = {"good": ["Arrived on time.", "Works as it should."], "bad": ["It broke.", "Late and scratched."]}
    with (tmp_path / "reviews.csv").open("w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(["text", "label", "customer"])
        for number in range(200):
            label = str(rng.choice(list(said)))
            lines.writerow([f"{rng.choice(said[label])} Order {number}.", label, f"c-{number % 17:02d}"])
    return tmp_path


@pytest.mark.timeout(240)
def test_a_small_folder_of_images_with_names_of_its_own(tmp_path):
    rng = np.random.default_rng(0)
    for place, name in enumerate(("cat", "dog", "owl")):
        for number in range(30):
            pixels = rng.integers(0, 120, (16, 16)).astype(np.uint8)
            pixels[5 * place : 5 * place + 5] += 120
            path = tmp_path / "pets" / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    done = raysoft(*command("./pets"), "--executor", "inline", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "classes: cat, dog, owl (a new head" in done.stdout
    assert summary(tmp_path / "outputs" / "pets")["final_accuracy"] > 0.6


@pytest.mark.timeout(240)
def test_texts_for_the_language_model_that_comes_along(reviews):
    done = raysoft(*command("causal-lm"), "--executor", "inline", cwd=reviews)
    assert done.returncode == 0, done.stderr
    rows = records(reviews / "outputs" / "soft-text")
    assert rows[2]["metrics"]["bits_per_byte"] < rows[0]["metrics"]["bits_per_byte"]


@pytest.mark.timeout(240)
def test_texts_with_classes_and_a_model_of_ones_own(tmp_path):
    """With a small model in place of the one to fetch."""
    words = command("sequence-classification")
    assert "model.name=FacebookAI/roberta-base" in words
    make_folder(tmp_path / "small", "roberta")
    write_reviews(tmp_path / "reviews.csv")
    done = raysoft(*words, "model.name=./small", "rounds=1", "--executor", "inline", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "classes: bad, good" in done.stdout
