"""What a user may get wrong, through the commands in this process: one sentence, the right exit code, nothing left.

Each case once made a command end in a traceback, a warning nobody can act on, or a run on nonsense.
"""

from __future__ import annotations

import json
import shutil
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from raysoft import atomic
from raysoft.terminal import cli
from tests.conftest import SMALL_RUN
from tests.hf_folders import LABELS, make_folder

RUN = [*SMALL_RUN, "executor=inline"]
OWN = [
    *RUN,
    "allocator.name=equal",
    "data.partition=iid",
    "data.clients=4",
    "cohort.size=2",
    "data.min_samples=1",
    "model.lora.targets=auto",
]
HEAD = "model.lora.train_head=true"
TEXTS = "text,label\n" + "".join(f"w{i % 40} w{i * 7 % 40},{'abc'[i % 3]}\n" for i in range(60))
FAMILIES = ("vit", "roberta", "gpt2")


@pytest.fixture
def command(monkeypatch, capsys):
    """Run a command: (exit code, standard error). A traceback or a warning fails the test."""

    def go(*words: Any) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["raysoft", *map(str, words)])
        capsys.readouterr()  # what the test itself caused
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(SystemExit) as end:
                cli.main()
        return int(end.value.code or 0), capsys.readouterr().err

    return go


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    return {family: make_folder(root / family, family) for family in FAMILIES}


def refused(result: tuple[int, str], *words: str, code: int = 2) -> None:
    """One line that holds the words, and the code."""
    assert result[0] == code, result
    assert result[1].startswith("raysoft: ")
    assert result[1].count("\n") == 1
    assert len(result[1]) < 600
    for word in words:
        assert word in result[1]


# ------------------------------------------------------------------------------------------------------ configuration


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("device.cpu_hz=1e300", ["device.cpu_hz", "between 1e-30 and 1e+30", "1e+300"]),
        ("device.kappa=1e300", ["device.kappa", "between"]),
        ("allocator.latency_budget_s=1e300", ["allocator.latency_budget_s", "between"]),
        ("train.lr=1e-300", ["train.lr", "between"]),
        ("data.clients=100000000000000000000", ["data.clients", "1000000000000"]),
        ("data.samples_per_client=100000000000000", ["data.samples_per_client"]),
        ("actors.threads=9999", ["actors.threads", "256", "9999"]),
        ("codec=[]", ["codec: must be a mapping of keys to values, got []"]),
        ("x" * 100_000, ["must have the form key=value"]),
        ("rounds=" + "[" * 5000, ["not valid YAML"]),
        ("rounds=" + "9" * 5000, ["not valid YAML"]),
        ("rounds=\t3", ["not valid YAML"]),
        ("train=", ["train: must be a mapping"]),
        ("=", ["must have the form key=value"]),
        ("a=b=c", ["a: unknown key"]),
        ("\udcff=1", ["must have the form key=value"]),
        ("ünï=1", ["must have the form key=value"]),
    ],
)
def test_overrides(command, override, words):
    refused(command("show", "soft", override), *words)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("? [a, b]\n: 3\n", ["line 1", "a key must be a plain word"]),
        ("? {a: b}\n: 3\n", ["a key must be a plain word"]),
        ("rounds:\t3\n", ["line 1", "not valid YAML"]),
        ("a: &m 1\nb: *m\n", ["line 2", "aliases are not supported"]),
        ("base: soft\n<<: {rounds: 3}\n", ["<<: unknown key"]),
        ("", ["must hold a mapping"]),
        ("base: soft\n---\nrounds: 3\n", ["another document"]),
        ("base: soft\ntrain: {3: 4}\n", ["line 2", "key 3 must be text"]),
    ],
)
def test_files(command, tmp_path, text, words):
    (tmp_path / "mine.yaml").write_text(text, encoding="utf-8")
    refused(command("show", tmp_path / "mine.yaml"), *words)


@pytest.mark.parametrize("name", ["x" * 5000, "x" * 5000 + ".yaml", "a\0b", "a\0b.yaml", "\udcff", ""])
def test_names_that_no_file_can_have(command, name):
    refused(command("show", name))


def test_a_file_with_a_bom_and_an_odd_name_runs_under_a_plain_name(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("ü n.yaml").write_text("\ufeffbase: soft\nrounds: 0\n", encoding="utf-8")
    assert command("run", "ü n.yaml", *[word for word in RUN if "rounds" not in word]) == (0, "")
    assert [folder.name for folder in Path("outputs").iterdir()] == ["n"]
    refused(command("run", "soft", *RUN, "--name", ""), "--name")


# --------------------------------------------------------------------------------------------------------------- data


def table(root: Path, name: str, content: str | bytes) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def on(task: str, path: Any, model: Path, out: Path, *more: str) -> list[Any]:
    """The words of a run on a user's own model and data."""
    section = json.dumps({"task": task, "path": str(path)})
    data = [word for word in OWN if word.startswith("data.")]
    return ["run", "soft", *OWN, f"model.name={model}", f"data={section}", *data, *more, "--out", out]


ROWS = '{"text":"w1 w2","label":1}\n{"text":"w3","label":0}\n' * 20
BAD_TEXTS = {
    "a column twice": ("a.csv", TEXTS.replace("text,label", "text,text").replace(",a", ",a"), "exists 2 times"),
    "half a character": (
        "a.jsonl",
        '{"text":"w1\\ud800","label":1}\n' + ROWS,
        "row 1 of a.jsonl holds half a character",
    ),
    "a list": ("a.jsonl", ROWS + "[1]\n", "line 41: is not a JSON object"),
    "labels that are not numbers": ("a.jsonl", ROWS + '{"text":"w1","label":NaN}\n', "row 41"),
    "a key twice": ("a.jsonl", ROWS + '{"text":"w1","label":1,"label":0}\n', "line 41: key 'label' appears twice"),
    "numbers and words": ("a.jsonl", ROWS + '{"text":"w1","label":"1"}\n', "mixes integers and strings: 0, 1, '1'"),
    "no label": ("a.csv", TEXTS + "w3,\n", "row 61 of a.csv has no label"),
    "a blank text": ("a.csv", TEXTS + '" ",a\n', "row 61 of a.csv is empty"),
    "one class": ("a.csv", "text,label\n" + "w1,a\n" * 40, "holds a single label, 'a'"),
    "no rows": ("a.csv", "text,label\n", "too few samples"),
    "an empty file": ("a.csv", "", "cannot be read as csv"),
    "an open quote": ("a.csv", TEXTS + '"w3,a\n', "cannot be read as csv"),
    "another encoding": ("a.csv", TEXTS.encode("utf-16"), "cannot be read as csv"),
    "no parquet": ("a.parquet", b"PAR1garbagePAR1", "cannot be read as parquet"),
}


@pytest.mark.parametrize("case", BAD_TEXTS)
def test_texts(command, tmp_path, models, case):
    name, content, words = BAD_TEXTS[case]
    path = table(tmp_path, name, content)
    out = tmp_path / "run"
    for more in ((), ("--dry-run",)):  # which reads small data as the run does
        refused(command(*on("sequence-classification", path, models["roberta"], out, HEAD), *more), "data.", words)
    assert not out.exists()


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("", "must name a file"),
        ("/dev/null", "is neither a file nor a folder"),
        ("~nobody-here/x.csv", "looked up"),
        ("x" * 5000, "File name too long"),
        ("a\0.csv", "null character"),
        ("./nowhere.csv", "does not exist"),
    ],
)
def test_paths(command, tmp_path, models, path, words):
    refused(
        command(*on("sequence-classification", path, models["roberta"], tmp_path / "run", HEAD)), "data.path", words
    )


def test_a_bom_before_json_lines_is_no_part_of_them(command, tmp_path, models):
    path = table(tmp_path, "a.jsonl", "\ufeff" + ROWS)
    assert command(*on("sequence-classification", path, models["roberta"], tmp_path / "run", HEAD)) == (0, "")


def pictures(root: Path) -> Path:
    for n, label in enumerate(LABELS):
        (root / label).mkdir(parents=True)
        for i in range(8):
            pixels = np.random.default_rng(8 * n + i).integers(0, 256, (8, 8), dtype=np.uint8)
            Image.fromarray(pixels).save(root / label / f"{i}.png")
    return root


def test_hidden_files_and_large_pictures_are_no_trouble(command, tmp_path, models):
    root = pictures(tmp_path / "images")
    table(root, f"{LABELS[0]}/._0.png", b"resource fork")
    (root / LABELS[0] / "folder.png").mkdir()
    Image.new("1", (11_000, 10_000)).save(root / LABELS[0] / "large.png")  # Pillow would warn of a bomb
    assert command(*on("image-classification", root, models["vit"], tmp_path / "run", HEAD)) == (0, "")


@pytest.mark.parametrize(
    ("content", "words"), [(b"nope", "bad.png: not a readable image"), (b"", "bad.png: not a readable image")]
)
def test_pictures(command, tmp_path, models, content, words):
    root = pictures(tmp_path / "images")
    table(root, f"{LABELS[0]}/bad.png", content)
    refused(command(*on("image-classification", root, models["vit"], tmp_path / "run", HEAD)), "data.path", words)


def test_a_row_without_a_picture(command, tmp_path, models):
    path = table(tmp_path, "a.csv", "image,label\n" + "".join(f",{i % 2}\n" for i in range(40)))
    words = ["data.image_column", "row 1 of a.csv names no image"]
    refused(command(*on("image-classification", path, models["vit"], tmp_path / "run", HEAD)), *words)


# ------------------------------------------------------------------------------------------------------------- models


def changed(**keys: Any) -> Any:
    def change(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | keys))

    return change


def written(name: str, content: str) -> Any:
    return lambda folder: (folder / name).write_text(content)


def without_tokenizer(folder: Path) -> None:
    for path in folder.glob("tok*"):
        path.unlink()


def not_finite(folder: Path) -> None:
    from safetensors.numpy import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    name = min(weights)
    save_file({**weights, name: weights[name] * np.nan}, folder / "model.safetensors", {"format": "pt"})


BAD_MODELS = {
    "no vocabulary": ("roberta", without_tokenizer, "comes without a vocabulary"),
    "damaged tokenizer": ("roberta", written("tokenizer.json", "{"), "without a readable tokenizer"),
    "damaged configuration": ("roberta", written("config.json", "{"), "cannot be read"),
    "configuration of another kind": ("roberta", written("config.json", "[]"), "does not know"),
    "wrong type": ("roberta", changed(hidden_size="x"), "cannot be read"),
    "nothing wide": ("roberta", changed(hidden_size=0), "cannot be read"),
    "no heads": ("roberta", changed(num_attention_heads=0), "cannot be read"),
    "weights that are not finite": ("roberta", not_finite, "not finite"),
    "two channels": ("vit", changed(num_channels=2), "2 channels; use one with 1, 3 or 4"),
    "damaged image processor": ("vit", written("preprocessor_config.json", "{"), "is not a JSON object"),
    "image processor of another kind": ("vit", written("preprocessor_config.json", "[]"), "is not a JSON object"),
    "unusable mean": ("vit", written("preprocessor_config.json", '{"image_mean": "x"}'), "cannot be used"),
    "unknown resampling": ("vit", written("preprocessor_config.json", '{"resample": 99}'), "cannot be used"),
    "no deviation": ("vit", written("preprocessor_config.json", '{"image_std": [0.0]}'), "cannot be used"),
}


@pytest.mark.parametrize("case", BAD_MODELS)
def test_models(command, tmp_path, models, case):
    family, change, words = BAD_MODELS[case]
    folder = Path(shutil.copytree(models[family], tmp_path / "model"))
    change(folder)
    if family == "vit":
        run = on("image-classification", pictures(tmp_path / "images"), folder, tmp_path / "run", HEAD)
    else:
        run = on("sequence-classification", table(tmp_path, "a.csv", TEXTS), folder, tmp_path / "run", HEAD)
    refused(command(*run), "model.name", words)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("''", "must name"),
        ("~nobody-here/x", "looked up"),
        ("x" * 5000, "File name too long"),
        ('"a\\0"', "null character"),
        ("/dev/null", "is a file"),
    ],
)
def test_model_names(command, tmp_path, name, words):
    refused(command("run", "soft", *RUN, f"model.name={name}", "--out", tmp_path / "run"), "model.name", words)


def test_a_classifier_is_no_language_model(command, tmp_path, models):
    path = table(tmp_path, "a.csv", TEXTS)
    run = on("causal-lm", path, models["roberta"], tmp_path / "run")
    refused(command(*run), "model.name", "has no trained language-model head")


def test_an_encoder_that_looks_ahead_is_no_causal_language_model(command, tmp_path, models):
    """It would see the token it has to predict, and its loss would mean nothing."""
    import torch
    import transformers

    folder = Path(shutil.copytree(models["roberta"], tmp_path / "model"))
    config = transformers.RobertaConfig.from_pretrained(folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = transformers.RobertaForMaskedLM(config)
        for value in model.parameters():
            if value.ndim > 1:
                torch.nn.init.normal_(value, std=0.15)
    model.save_pretrained(folder)
    run = on("causal-lm", table(tmp_path, "a.csv", TEXTS), folder, tmp_path / "run")
    refused(command(*run), "model.name", "looks ahead")


# ------------------------------------------------------------------------------------------------------------ folders


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    from raysoft.config.presets import load_config
    from raysoft.runs.run import run

    folder = tmp_path_factory.mktemp("finished") / "run"
    run(load_config("soft", RUN), folder)
    return folder


def each_row(change: Any) -> Any:
    def damage(folder: Path) -> None:
        rows = [json.loads(line) for line in (folder / "rounds.jsonl").read_text().splitlines()]
        (folder / "rounds.jsonl").write_text("".join(json.dumps(change(row)) + "\n" for row in rows))

    return damage


def of_summary(value: Any, *keys: str) -> Any:
    def damage(folder: Path) -> None:
        tree = json.loads((folder / "summary.json").read_text())
        (folder / "summary.json").write_text(json.dumps(tree | dict.fromkeys(keys, value)))

    return damage


DAMAGED = {
    "a huge round": (each_row(lambda row: {**row, "round": 10**30}), "is not a round record"),
    "half a round": (each_row(lambda row: {**row, "round": row["round"] + 0.5}), "is not a round record"),
    "counts that are words": (each_row(lambda row: {**row, "dropped": "x"}), "dropped must be a count"),
    "reasons that are a list": (each_row(lambda row: {**row, "drop_reasons": [1]}), "drop_reasons must map"),
    "a huge client": (each_row(lambda row: {**row, "metrics": {"clients": {"id": [10**30]}}}), "clients.id"),
    "a loss that is a word": (each_row(lambda row: {**row, "loss": "x"}), "line 1: loss must be a number, got 'x'"),
    "a loss beyond floats": (each_row(lambda row: {**row, "loss": 10**400}), "line 1: loss must be a number, got 1000"),
    "energy beyond floats": (each_row(lambda row: {**row, "energy_j": 1e308}), "line 1: energy_j must be a number"),
    "metrics that are null": (of_summary(None, "metrics"), "metrics must be an object"),
    "a figure that is a word": (of_summary("x", "final_accuracy"), "final_accuracy must be a number"),
    "a figure beyond floats": (of_summary(10**400, "wall_time_s"), "wall_time_s must be a number"),
    "a deep summary": (lambda folder: (folder / "summary.json").write_text('{"a":' * 100_000), "not valid JSON"),
    "half a summary": (lambda folder: (folder / "summary.json").write_text("{"), "not valid JSON"),
    "no configuration": (lambda folder: (folder / "config.yaml").unlink(), "is not a run folder"),
    "no rounds": (lambda folder: (folder / "rounds.jsonl").write_text(""), "holds no complete round"),
}
HARMLESS = {
    "nothing": lambda folder: None,
    "no summary": lambda folder: (folder / "summary.json").unlink(),
    "a half-written line": lambda folder: (folder / "rounds.jsonl").open("a").write('{"round": 4'),
    "nulls": each_row(lambda row: {key: row[key] if key in ("round", "metrics") else None for key in row}),
    "odd surroundings": lambda folder: (folder / "environment.json").write_text('{"libraries": 3, "cpus": []}'),
    "half a character": each_row(lambda row: {**row, "drop_reasons": {"\ud800": 1}}),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_reports_of_damaged_folders(command, tmp_path, finished, case):
    damage, words = DAMAGED[case]
    folder = Path(shutil.copytree(finished, tmp_path / "run"))
    damage(folder)
    refused(command("report", folder), words, code=1)
    refused(command("report", finished, folder, "--out", tmp_path / "both"), words, code=1)
    assert not (tmp_path / "both").exists()


@pytest.mark.parametrize("case", HARMLESS)
def test_reports_of_slightly_odd_folders(command, tmp_path, finished, case):
    folder = Path(shutil.copytree(finished, tmp_path / "ü <b>& run"))
    HARMLESS[case](folder)
    assert command("report", folder) == (0, "")


def test_reports_of_several_odd_folders(command, tmp_path, finished):
    folders = [Path(shutil.copytree(finished, tmp_path / f"run {number}")) for number in range(len(HARMLESS))]
    for folder, damage in zip(folders, HARMLESS.values(), strict=True):
        damage(folder)
    assert command("report", *folders, "--out", tmp_path / "all") == (0, "")


def test_report_of_a_name_that_no_folder_can_have(command):
    refused(command("report", "x" * 5000), "File name too long", code=1)


def test_a_report_that_cannot_be_written_names_the_place(command, tmp_path, finished):
    (tmp_path / "file").write_text("")
    refused(command("report", finished, "--out", tmp_path / "file" / "r.html"), "cannot be written", code=1)


def test_a_full_disk_ends_a_run_with_the_name_of_the_file(command, tmp_path, monkeypatch):
    """The first rounds stay, complete and readable."""
    real = atomic.os.fsync

    def full(descriptor: int) -> None:
        if (tmp_path / "run" / "rounds.jsonl").exists() and "summary" in str(
            Path(f"/proc/self/fd/{descriptor}").readlink()
        ):
            raise OSError(28, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(atomic.os, "fsync", full)
    refused(
        command("run", "soft", *RUN, "--out", tmp_path / "run"), "summary.json: cannot be written", "No space", code=1
    )
    lines = (tmp_path / "run" / "rounds.jsonl").read_text().splitlines()
    assert [json.loads(line)["round"] for line in lines] == [0, 1, 2, 3]
    assert not list((tmp_path / "run").glob(".raysoft-*"))


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [(MemoryError(), 3, "not enough memory"), (OSError(28, "No space left on device"), 1, "No space left on device")],
)
def test_what_the_machine_lacks_is_one_sentence(command, tmp_path, monkeypatch, error, code, words):
    import raysoft.runs.run

    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(raysoft.runs.run, "run", fail)
    refused(command("run", "soft", *RUN, "--out", tmp_path / "run"), words, code=code)


def test_no_memory_in_a_stage_is_a_matter_of_resources(command, tmp_path, monkeypatch):
    from raysoft.federation.client import Worker

    def fail(*_: Any) -> None:
        raise MemoryError("Unable to allocate 1 TiB")

    monkeypatch.setattr(Worker, "train", fail)
    words = ["train of round 1", "not enough memory", "pack_size"]
    refused(command("run", "soft", *RUN, "--out", tmp_path / "run"), *words, code=3)


def test_what_a_library_raises_in_a_stage_comes_with_place_and_settings(command, tmp_path, monkeypatch):
    from raysoft.federation.client import Worker

    def fail(*_: Any) -> None:
        raise IndexError("index out of range in self")

    monkeypatch.setattr(Worker, "train", fail)
    words = ["train of round 1", "IndexError: index out of range in self", "test_bad_input.py, line", "model.name="]
    refused(command("run", "soft", *RUN, "--out", tmp_path / "run"), *words, "data.max_length", code=1)


@pytest.mark.parametrize(
    ("out", "words"),
    [
        ("file", "is a file; give a folder"),
        ("file/below", "cannot be written"),
        ("full", "is not empty"),
        ("x" * 300, "cannot be written"),
    ],
)
def test_places_where_no_run_can_go(command, tmp_path, out, words):
    (tmp_path / "file").write_text("")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("")
    refused(command("run", "soft", *RUN, "--out", tmp_path / out), "--out", words)
    refused(command("run", "soft", *RUN, "--out", tmp_path / "full", "--overwrite"), "no run has written")
    assert (tmp_path / "full" / "mine.txt").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["data.task=weather"], "data.task: unknown task 'weather'"),
        (["data.path=nowhere.csv"], "data.path: 'nowhere.csv' does not exist"),
        (["data.path=nowhere"], "data.path: 'nowhere' is neither a file or folder nor in the local cache"),
        (["data.partition=natural"], "data.natural_key: is required by data.partition=natural"),
        (["data.partition=natural", "data.natural_key=label", "cohort.size=4"], "must not exceed the 3 clients"),
        (["data.clients=500"], "training samples cannot give 500 clients"),
        (["model.name=nothere"], "model.name: 'nothere' is neither a folder nor in the local cache"),
        (["model.name=./nothere"], "model.name: './nothere' is not an existing folder"),
        (["allocator.name=tsfa", "allocator.latency_budget_s=1e-6"], "1e-06 s cannot be met: even the fastest"),
    ],
)
def test_what_can_be_known_without_ray_is_said_before_it_starts(command, models, tmp_path, monkeypatch, words, said):
    """A start of Ray takes many seconds; a dry run never gets there."""
    import raysoft.distributed.session

    def start(*_: Any) -> None:
        raise AssertionError("Ray is started")

    monkeypatch.setattr(raysoft.distributed.session, "ray_session", start)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "texts.csv").write_text(TEXTS)
    settings = [f"model.name={models['roberta']}", "data.task=sequence-classification", HEAD]
    settings += [f"data.path={tmp_path / 'texts.csv'}", *OWN, "executor=ray", *words]
    for mode in ("--dry-run", "--out"):
        more = [mode] if mode == "--dry-run" else [mode, tmp_path / "run"]
        refused(command("run", "soft", *settings, *more), said)
    assert not (tmp_path / "run").exists()


def test_dry_runs_of_many_runs_look_at_their_inputs_too(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    missing = ["data.task=causal-lm", "data.path=gone.csv"]
    refused(
        command("compare", "soft-text", "ideal-text", *missing, "--dry-run"), "data.path: 'gone.csv' does not", "(arm '"
    )
    (tmp_path / "sweep.yaml").write_text("base: soft\nspace:\n  data.task: {grid: [digits, weather]}\n")
    refused(command("tune", "sweep.yaml", "--dry-run"), "data.task: unknown task 'weather'", "data.task=weather")
