"""The README's own-model example, run as its reader would."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.command import raysoft
from tests.conftest import records, summary
from tests.hf_folders import make_folder

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
WORDS = {"good": ["w1", "w2", "w3", "w4"], "bad": ["w5", "w6", "w7", "w8"]}  # words of the folder's tokenizer


def example() -> str:
    return re.search(r"```yaml\n(# mine\.yaml\n.*?)```", README, flags=re.S)[1]


def write_reviews(path: Path) -> None:
    rows = [f"w60 {word} w61 w{10 + i},{label}" for i in range(40) for label, words in WORDS.items() for word in words]
    path.write_text("text,label\n" + "\n".join(rows) + "\n")


def test_the_example_is_short():
    assert len(example().splitlines()) <= 25


def test_the_page_about_models_has_the_same_example():
    page = (ROOT / "docs" / "howto" / "own_model.md").read_text()
    assert f"```yaml\n{example()}```" in page
    assert re.search(r"```python\n(import peft.*?)```", README, flags=re.S)[0] in page


@pytest.mark.timeout(240)
def test_own_roberta_folder_and_csv(tmp_path):
    (tmp_path / "mine.yaml").write_text(example())
    make_folder(tmp_path / "my-roberta", "roberta")
    write_reviews(tmp_path / "reviews.csv")
    done = raysoft("run", "mine.yaml", "rounds=3", "--executor", "inline", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "outputs" / "mine"
    assert [row["round"] for row in records(folder)] == [0, 1, 2, 3]
    assert summary(folder)["status"] == "done"
    assert (folder / "report.html").exists()
    # The lines about peft, as they stand there; the folder's own head knows another number of classes.
    snippet = re.search(r"```python\n(import peft.*?)```", README, flags=re.S)[1]
    check = "import torch\nprint(tuple(model(input_ids=torch.tensor([[0, 5, 2]])).logits.shape))"
    loaded = subprocess.run([sys.executable, "-c", snippet + check], cwd=tmp_path, capture_output=True, text=True)
    assert loaded.stdout.strip() == "(1, 2)", loaded.stderr
    named = json.loads((folder / "adapter" / "adapter_config.json").read_text())["base_model_name_or_path"]
    assert Path(named) == (tmp_path / "my-roberta").resolve()
