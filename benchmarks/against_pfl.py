"""Clients a second of a whole round, side by side with Apple's pfl-research on the same work and cores.

Ten clients a round of a Llama of width 256 with 4 layers: LoRA of rank 8 on the attention, 5 steps of 4 texts of 64
tokens, SGD with momentum, plain averaging, nothing simulated besides. raysoft: preset `ideal` on Ray, one thread an
actor. pfl: `FederatedAveraging` with a peft model, one process a core by torchrun, one thread each. Turns A B A B; a
figure is the median wall time of the rounds after the first two, the ratio the median over turns.

Needs pfl (`pip install pfl`, which is no dependency of raysoft); says so and ends where it is missing.

    python benchmarks/against_pfl.py [--turns 3] [--rounds 8] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

CLIENTS, STEPS, BATCH, LENGTH, VOCABULARY = 10, 5, 4, 64, 259
BOUND_S = 300


def write_model(folder: Path) -> None:
    """The Llama with random weights and a tokenizer of bytes."""
    import torch
    import transformers
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=256,
        num_hidden_layers=4,
        num_attention_heads=8,
        num_key_value_heads=8,
        intermediate_size=688,
        max_position_embeddings=LENGTH,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=2,
    )
    torch.manual_seed(0)
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = {"<s>": 0, "</s>": 1, "<pad>": 2} | {letter: 3 + at for at, letter in enumerate(letters)}
    tokenizer = Tokenizer(models.BPE(words, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    ).save_pretrained(folder)


def raysoft_rounds(place: Path, rounds: int) -> list[float]:
    """Wall seconds of every round of a run on Ray."""
    text = place / "text.jsonl"
    if not text.exists():
        letters = "".join(chr(97 + (7 * k + k // 11) % 26) for k in range(600 * 2 * LENGTH))
        rows = [letters[at : at + 2 * LENGTH] for at in range(0, len(letters), 2 * LENGTH)]
        text.write_text("".join(json.dumps({"text": row}) + "\n" for row in rows))
    out = place / "run"
    words = [
        "ideal",
        f"model.name={place / 'model'}",
        "data.task=causal-lm",
        f"data.path={text}",
        "data.partition=iid",
        "data.clients=20",
        f"data.max_length={LENGTH}",
        f"cohort.size={CLIENTS}",
        "model.lora.rank=8",
        "model.lora.targets=attention",
        f"train.steps={STEPS}",
        f"train.batch_size={BATCH}",
        "train.optimizer=sgd",
        "train.momentum=0.9",
        "train.lr=0.01",
        f"rounds={rounds}",
        f"eval.every={rounds}",
        "metrics.covariance=off",
        "checkpoint.every=null",
        "tracking.tensorboard=false",
        "executor=ray",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "raysoft", "run", *words, "--out", str(out), "--overwrite"],
        capture_output=True,
        text=True,
        timeout=BOUND_S,
        check=False,
    )
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    rows = [json.loads(line) for line in (out / "rounds.jsonl").read_text().splitlines()]
    return [row["wall_time_s"] for row in rows[1:-1]]  # the last one evaluates


def pfl_rounds(place: Path, rounds: int, cores: int) -> list[float]:
    """Wall seconds of every iteration of pfl, in processes of its own."""
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        f"--nproc_per_node={cores}",
        "--standalone",
        str(Path(__file__).with_name("_pfl_half.py")),
        str(place),
        str(rounds),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=BOUND_S, check=False)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    return json.loads((place / "pfl.json").read_text())


def main() -> None:
    """Turn and turn about."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if find_spec("pfl") is None:
        print("pfl is not installed (pip install pfl), so nothing is compared")
        return
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        write_model(place / "model")
        found: dict[str, list[float]] = {"raysoft": [], "pfl": []}
        for _ in range(options.turns):
            found["raysoft"].append(CLIENTS / statistics.median(raysoft_rounds(place, options.rounds)[2:]))
            found["pfl"].append(CLIENTS / statistics.median(pfl_rounds(place, options.rounds, cores)[2:]))
    ratio = statistics.median(mine / theirs for mine, theirs in zip(*found.values(), strict=True))
    for name, values in found.items():
        print(f"{name:8} {statistics.median(values):6.2f} clients a second on {cores} cores (turns: {values})")
    print(f"raysoft / pfl: {ratio:.2f}")
    if options.json is not None:
        options.json.write_text(json.dumps({**found, "cores": cores, "ratio": ratio}))


if __name__ == "__main__":
    main()
