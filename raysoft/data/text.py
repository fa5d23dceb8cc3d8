"""Texts to token arrays. Right padding, always with an attention mask; no torch.

Shapes: N samples, L tokens. input_ids, attention_mask [N, L] int64.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from raysoft.data.base import IGNORED_LABEL, Examples
from raysoft.data.raw import RawSamples
from raysoft.errors import ConfigError
from raysoft.types import Array

_BYTE_TOKENIZERS = frozenset({"ByT5Tokenizer"})


def is_byte_level(tokenizer: Any) -> bool:
    """Whether one token is one byte."""
    return type(tokenizer).__name__ in _BYTE_TOKENIZERS


def check_texts(samples: RawSamples, field: str, blank_allowed: bool) -> list[str]:
    """The texts as strings. Raises ConfigError(field) for a row that holds none."""
    for n, text in enumerate(samples.content):
        if not isinstance(text, str):
            raise ConfigError(field, f"{samples.place(n)} must hold text, got {text!r:.80}")
        if not _is_encodable(text):
            raise ConfigError(field, f"{samples.place(n)} holds half a character (a lone surrogate): {text!r:.80}")
        if not blank_allowed and not text.strip():
            raise ConfigError(field, f"{samples.place(n)} is empty")
    return list(samples.content)


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def encode_classification(tokenizer: Any, texts: Sequence[str], labels_N: Array, limit: int) -> Examples:
    """One sample per text, cut at `limit` tokens."""
    rows = _tokenize(tokenizer, texts, limit) if texts else []
    inputs, lengths_N = pad(rows, pad_id(tokenizer))
    return Examples(inputs=inputs, labels=labels_N, lengths=lengths_N)


def encode_causal(tokenizer: Any, texts: Sequence[str], limit: int) -> tuple[Examples, Array]:
    """Samples of at most `limit` tokens: a longer text gives several in a row. Also the text of each sample, [N].

    Pieces of one token have nothing to predict and are left out, and so are blank texts.
    """
    rows: list[Any] = []
    source: list[int] = []
    kept = [n for n, text in enumerate(texts) if text.strip()]
    for n, ids in zip(kept, _tokenize(tokenizer, [texts[n] for n in kept], None) if kept else [], strict=True):
        pieces = [ids[i : i + limit] for i in range(0, len(ids), limit)]
        pieces = [piece for piece in pieces if len(piece) > 1]
        rows += pieces
        source += [n] * len(pieces)
    inputs, lengths_N = pad(rows, pad_id(tokenizer))
    return _causal(inputs, lengths_N), np.array(source, dtype=np.int64)


def encode_bytes(texts: Sequence[str], offset: int) -> Examples:
    """ASCII texts of one length, a token per character without any special token; the same as the ByT5 tokenizer."""
    length = len(texts[0]) if texts else 0
    flat = np.frombuffer("".join(texts).encode("ascii"), dtype=np.uint8)
    ids = flat.reshape(len(texts), length).astype(np.int64) + offset
    inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    return _causal(inputs, np.full(len(texts), length, dtype=np.int64))


def _causal(inputs: dict[str, Array], lengths_N: Array) -> Examples:
    labels = np.where(inputs["attention_mask"] > 0, inputs["input_ids"], IGNORED_LABEL)
    return Examples(inputs=inputs, labels=labels, lengths=lengths_N)


def _tokenize(tokenizer: Any, texts: Sequence[str], limit: int | None) -> list[list[int]]:
    cut = {"truncation": True, "max_length": limit} if limit is not None else {}
    # verbose=False: a text longer than the model is cut into pieces later, which is not worth a warning.
    return tokenizer(list(texts), padding=False, verbose=False, **cut)["input_ids"]


def pad_id(tokenizer: Any) -> int:
    """The padding token, or the end of text where a tokenizer has none (its positions are masked anyway)."""
    for token in (tokenizer.pad_token_id, tokenizer.eos_token_id):
        if token is not None:
            return int(token)
    return 0


def pad(rows: Sequence[Sequence[int]], fill: int) -> tuple[dict[str, Array], Array]:
    """Right-padded input_ids and attention_mask [N, L], L the longest row; and the lengths [N]."""
    lengths_N = np.array([len(row) for row in rows], dtype=np.int64)
    width = int(lengths_N.max()) if len(rows) else 0
    mask = (np.arange(width)[None, :] < lengths_N[:, None]).astype(np.int64)
    ids = np.full(mask.shape, fill, dtype=np.int64)
    if len(rows):
        ids[mask > 0] = np.concatenate([np.asarray(row, dtype=np.int64) for row in rows])
    return {"input_ids": ids, "attention_mask": mask}, lengths_N


def token_limit(max_length: int, tokenizer: Any, model_config: Any) -> int:
    """data.max_length, or fewer where the model has fewer positions."""
    limits = [max_length]
    own = getattr(tokenizer, "model_max_length", None)
    if isinstance(own, int) and own > 0:
        limits.append(own)
    positions = getattr(model_config, "max_position_embeddings", None)
    if isinstance(positions, int) and positions > 0:
        kind = str(getattr(model_config, "model_type", ""))
        # RoBERTa and its kin count positions from padding_idx + 1.
        offset = int(model_config.pad_token_id or 0) + 1 if "roberta" in kind or kind == "camembert" else 0
        limits.append(positions - offset)
    return max(2, min(limits))
