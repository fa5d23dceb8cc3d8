"""Tiny pretrained models that need no download: made on first use, then read from a cache.

`embedded/vit-digits`: a ViT for 8x8 images, pretrained on printed digits. `embedded/llama-bytes`: a byte-level Llama,
pretrained on three packages of the standard library. Both are ordinary Hugging Face folders (config.json,
model.safetensors, image processor or tokenizer) under `$RAYSOFT_CACHE` (default `~/.cache/raysoft`).

The folder's name carries a hash of everything that determines the weights: recipe, data, library versions and number
of threads. It appears by one rename, so that two processes at once are safe; a damaged folder is made again.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError

from raysoft.config.identity import EMBEDDED
from raysoft.errors import ConfigError, RaysoftError
from raysoft.kernels import portable
from raysoft.types import Array

if TYPE_CHECKING:
    import torch

Progress = Callable[[float, str], None]
PREFIX = EMBEDDED
BYTE_OFFSET = 3  # ByT5: ids 0, 1, 2 are padding, end and unknown
_MANIFEST = "raysoft_base.json"


@dataclass(frozen=True)
class Recipe:
    """Everything that determines an embedded model but its data. Change `revision` when the code changes a result."""

    name: str
    steps: int
    batch_size: int
    lr: float
    seed: int
    revision: int
    model: tuple[tuple[str, Any], ...]


RECIPES = {
    "vit-digits": Recipe(
        name="vit-digits",
        steps=350,
        batch_size=96,
        lr=2e-3,
        seed=0,
        revision=1,
        model=(
            ("image_size", 8),
            ("patch_size", 2),
            ("num_channels", 1),
            ("hidden_size", 64),
            ("num_hidden_layers", 4),
            ("num_attention_heads", 4),
            ("intermediate_size", 128),
            ("hidden_dropout_prob", 0.0),
            ("attention_probs_dropout_prob", 0.0),
        ),
    ),
    "llama-bytes": Recipe(
        name="llama-bytes",
        steps=400,
        batch_size=16,
        lr=4e-3,
        seed=0,
        revision=1,
        model=(
            ("vocab_size", 256 + BYTE_OFFSET),
            ("hidden_size", 96),
            ("num_hidden_layers", 3),
            ("num_attention_heads", 4),
            ("num_key_value_heads", 4),
            ("intermediate_size", 192),
            ("max_position_embeddings", 64),
            ("tie_word_embeddings", True),
            ("pad_token_id", 0),
            ("bos_token_id", None),
            ("eos_token_id", 1),
        ),
    ),
}


def draw(recipe: Recipe, generator: torch.Generator) -> torch.nn.Module:
    """The untrained model, its weights drawn by the generator alone (the library's own draw changes with versions)."""
    import torch
    import transformers

    sizes = dict(recipe.model)
    if recipe.name == "vit-digits":
        names = {number: str(number) for number in range(10)}
        config: Any = transformers.ViTConfig(**sizes, id2label=names, label2id={v: k for k, v in names.items()})
        model: Any = transformers.ViTForImageClassification(config)
    else:
        model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes))
    with torch.no_grad():
        for name, value in model.named_parameters():
            if value.ndim > 1:
                value.normal_(0.0, 0.02, generator=generator)
            else:
                value.fill_(0.0 if name.endswith("bias") else 1.0)
    return model


def pretrain(recipe: Recipe, data: tuple[Array, ...], progress: Progress) -> torch.nn.Module:
    """AdamW with warm-up and cosine decay on freshly drawn batches."""
    import torch

    generator = torch.Generator().manual_seed(recipe.seed)
    model = draw(recipe, generator)
    loss_of = _LOSSES[recipe.name](model, data, recipe.batch_size, generator)
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.lr, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _schedule((step + 1) / recipe.steps))
    model.train()
    for step in range(recipe.steps):
        loss = loss_of()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 10 == 9 or step + 1 == recipe.steps:
            progress((step + 1) / recipe.steps, f"pretraining {PREFIX}{recipe.name}")
    return model.eval()


def _schedule(done: float) -> float:
    warm = 0.1
    return done / warm if done < warm else 0.5 * (1 + float(np.cos(np.pi * (done - warm) / (1 - warm + 1e-9)))) + 1e-3


def ensure(
    name: str,
    threads: int = 1,
    on_progress: Progress | None = None,
    pretrain: Callable[[Recipe, tuple[Array, ...], Progress], torch.nn.Module] = pretrain,
) -> Path:
    """The folder of an embedded model, pretrained now (under 45 s on one core) unless the cache has it.

    `on_progress(fraction, text)` is called while it trains. Global random state and the number of threads are left as
    they were. The cache does not know where weights came from: whoever gives another `pretrain` uses a cache of their
    own. Raises ConfigError("model.name") for an unknown name, RaysoftError where the cache cannot be found or written.
    """
    recipe = find(name)
    data, data_hash = _DATA[recipe.name]()
    key = {"recipe": asdict(recipe), "data": data_hash, "threads": threads, "libraries": _libraries()}
    if portable.active():  # other kernels, other weights
        key["portable"] = True
    key = json.loads(json.dumps(key))
    digest = hashlib.blake2b(json.dumps(key, sort_keys=True).encode(), digest_size=8).hexdigest()
    folder = cache_folder() / f"{recipe.name}-{digest}"
    if _intact(folder):
        return folder
    try:
        return _make(
            recipe, folder, key, threads, lambda: pretrain(recipe, data, on_progress or (lambda fraction, text: None))
        )
    except (OSError, SafetensorError) as error:  # the latter for a full disk
        why = getattr(error, "strerror", None) or error
        raise RaysoftError(
            f"cannot write the embedded model to {folder}: {why}; set RAYSOFT_CACHE to a writable folder with room"
        ) from None


def find(name: str) -> Recipe:
    """The recipe of `embedded/...`. Raises ConfigError("model.name") for an unknown name."""
    recipe = RECIPES.get(name.removeprefix(PREFIX)) if name.startswith(PREFIX) else None
    if recipe is None:
        known = ", ".join(PREFIX + key for key in RECIPES)
        raise ConfigError("model.name", f"unknown embedded model {name!r}, choose from {known}")
    return recipe


def cache_folder() -> Path:
    """`$RAYSOFT_CACHE`, or `~/.cache/raysoft`. Raises ConfigError("RAYSOFT_CACHE") for a home that nobody has."""
    text = os.environ.get("RAYSOFT_CACHE") or "~/.cache/raysoft"
    try:
        return Path(text).expanduser()
    except RuntimeError:
        user = text.split("/", maxsplit=1)[0]
        raise ConfigError(
            "RAYSOFT_CACHE", f"{text[:200]!r}: {user!r} is no home folder on this machine; set it to a writable folder"
        ) from None


def _libraries() -> dict[str, str]:
    return {name: version(name) for name in ("torch", "transformers")}


def _digit_data() -> tuple[tuple[Array, ...], str]:
    from raysoft.models.glyphs import render_digits

    images, labels = render_digits()
    return (images, labels), _hash(images.tobytes() + labels.tobytes())


def _byte_data() -> tuple[tuple[Array, ...], str]:
    from raysoft.data.stdlib_source import PRETRAINING_PACKAGES, read_packages

    packages = read_packages(only=PRETRAINING_PACKAGES)
    text = b"\n".join(packages[name] for name in sorted(packages))
    if len(text) < 65536:
        raise ConfigError(
            "model.name",
            "embedded/llama-bytes is pretrained on the standard library's source "
            f"({', '.join(PRETRAINING_PACKAGES)}), which this Python comes without",
        )
    return (np.frombuffer(text, dtype=np.uint8).astype(np.int64) + BYTE_OFFSET,), _hash(text)


_DATA: dict[str, Callable[[], tuple[tuple[Array, ...], str]]] = {"vit-digits": _digit_data, "llama-bytes": _byte_data}


def _hash(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def _file_hashes(folder: Path) -> dict[str, str]:
    return {path.name: _hash(path.read_bytes()) for path in sorted(folder.iterdir()) if path.name != _MANIFEST}


def _intact(folder: Path) -> bool:
    """Whether the folder is complete: every file has the hash that was written down when it was made."""
    try:
        manifest = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
        return bool(manifest["files"]) and manifest["files"] == _file_hashes(folder)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _make(
    recipe: Recipe, folder: Path, key: dict[str, Any], threads: int, train: Callable[[], torch.nn.Module]
) -> Path:
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        with _quiet_torch(threads):
            model: Any = train()
            model.save_pretrained(scratch)
            _save_processor(recipe, scratch)
        manifest = {"key": key, "files": _file_hashes(scratch)}
        (scratch / _MANIFEST).write_text(json.dumps(manifest, indent=1, sort_keys=True), encoding="utf-8")
        scratch.chmod(0o755)
        return _publish(scratch, folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _publish(scratch: Path, folder: Path) -> Path:
    """Rename into place. Whoever comes second keeps the first one's folder, which has the same bytes."""
    for _ in range(3):
        try:
            scratch.rename(folder)
            return folder
        except OSError:
            if _intact(folder):
                return folder
            if not folder.exists():
                raise
            # Damaged: out of the way by a rename, never by deleting files under a possible reader's path.
            broken = Path(tempfile.mkdtemp(prefix=f".{folder.name}-broken-", dir=folder.parent))
            try:
                folder.rename(broken / "old")
            except FileNotFoundError:
                pass
            finally:
                shutil.rmtree(broken, ignore_errors=True)
    raise RaysoftError(f"cannot replace the damaged embedded model in {folder}; remove that folder")


@contextmanager
def _quiet_torch(threads: int) -> Iterator[None]:
    """A fixed number of threads, global random state given back, no warnings of the library's own making."""
    import torch

    from raysoft.models.frozen import quiet
    from raysoft.models.runtime import exact_roots

    exact_roots()
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.random.fork_rng(devices=[]), torch.device("cpu"), quiet():
            yield
    finally:
        torch.set_num_threads(before)


def _digit_loss(
    model: Any, data: tuple[Array, ...], batch: int, generator: torch.Generator
) -> Callable[[], torch.Tensor]:
    import torch

    from raysoft.models.glyphs import distort

    glyphs = torch.from_numpy(data[0]).float() / 255
    labels = torch.from_numpy(data[1])

    def loss() -> torch.Tensor:
        index = torch.randint(len(glyphs), (batch,), generator=generator)
        pixels = (distort(glyphs[index], generator) - 0.5) / 0.5
        return torch.nn.functional.cross_entropy(model(pixel_values=pixels).logits, labels[index])

    return loss


def _byte_loss(
    model: Any, data: tuple[Array, ...], batch: int, generator: torch.Generator
) -> Callable[[], torch.Tensor]:
    import torch

    text = torch.from_numpy(data[0])
    length = model.config.max_position_embeddings
    window = torch.arange(length)

    def loss() -> torch.Tensor:
        start = torch.randint(len(text) - length, (batch, 1), generator=generator)
        ids = text[start + window]
        logits = model(input_ids=ids).logits[:, :-1]
        return torch.nn.functional.cross_entropy(logits.reshape(-1, logits.shape[-1]), ids[:, 1:].reshape(-1))

    return loss


_LOSSES: dict[str, Any] = {"vit-digits": _digit_loss, "llama-bytes": _byte_loss}


def _save_processor(recipe: Recipe, folder: Path) -> None:
    if recipe.name == "llama-bytes":
        from transformers import ByT5Tokenizer

        ByT5Tokenizer(extra_ids=0).save_pretrained(folder)
        return
    size = dict(recipe.model)["image_size"]
    settings = {
        "image_processor_type": "ViTImageProcessor",
        "do_resize": True,
        "size": {"height": size, "width": size},
        "resample": 2,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.5],
        "image_std": [0.5],
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(settings, indent=1), encoding="utf-8")
