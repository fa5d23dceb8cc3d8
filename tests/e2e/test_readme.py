"""The README's own-model example, run as its reader would."""

import re
from pathlib import Path

import pytest

from tests.conftest import records, summary
from tests.e2e.test_cli import raysoft
from tests.hf_folders import make_folder

README = (Path(__file__).parents[2] / "README.md").read_text()
WORDS = {"good": ["w1", "w2", "w3", "w4"], "bad": ["w5", "w6", "w7", "w8"]}  # words of the folder's tokenizer


def example() -> str:
    return re.search(r"```yaml\n(# mine\.yaml\n.*?)```", README, flags=re.S)[1]


def write_reviews(path: Path) -> None:
    rows = [f"w60 {word} w61 w{10 + i},{label}" for i in range(40) for label, words in WORDS.items() for word in words]
    path.write_text("text,label\n" + "\n".join(rows) + "\n")


def test_the_example_is_short():
    assert len(example().splitlines()) <= 25


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
