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


def tokenize(tokenizer: Any, samples: RawSamples, texts: Sequence[str], limit: int, end: int | None) -> list[list[int]]:
    """Each text's tokens, cut at `limit`. `end`: a token that the model wants the same number of in every text.

    Raises ConfigError("data.text_column") for a text without any token, and for one with more ends than the others.
    """
    rows = _tokenize(tokenizer, texts, limit) if texts else []
    for n, row in enumerate(rows):
        if not row:
            raise ConfigError("data.text_column", f"{samples.place(n)} gives no token: {texts[n]!r:.80}")
    ends = [row.count(end) for row in rows] if end is not None else []
    for n, count in enumerate(ends):
        if count != min(ends):
            word = tokenizer.convert_ids_to_tokens(end)
            raise ConfigError(
                "data.text_column",
                f"{samples.place(n)} holds {word!r}, which this model's tokenizer reads as the end of a text and its "
                f"classifier as the place to look at; take it out of the text: {texts[n]!r:.80}",
            )
    return rows


def padding_token(tokenizer: Any, model_config: Any, splits: Sequence[Sequence[Sequence[int]]]) -> int:
    """The one token that fills up texts, for the arrays and for the model's configuration alike.

    The model's own where it has one: some count positions by it. Else the tokenizer's, or its end, where no text holds
    it; else one that no text holds. Raises ConfigError("model.name") where the texts use the whole vocabulary.
    """
    size = int(getattr(model_config.get_text_config(), "vocab_size", 0) or 0)
    own = getattr(model_config, "pad_token_id", None)
    if isinstance(own, int) and 0 <= own < (size or own + 1):
        return own
    used = {token for rows in splits for row in rows for token in row}
    for token in (tokenizer.pad_token_id, tokenizer.eos_token_id, *range(size)):
        if isinstance(token, int) and 0 <= token < (size or token + 1) and token not in used:
            return token
    raise ConfigError("model.name", "has no padding token, and the texts use its whole vocabulary; give it one")


def encode_classification(rows: Sequence[Sequence[int]], labels_N: Array, fill: int) -> Examples:
    """One sample per text of tokens, padded with `fill`."""
    inputs, lengths_N = pad(rows, fill)
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


def token_limit(max_length: int, tokenizer: Any, model_config: Any, offset: int = 0) -> int:
    """data.max_length, or fewer where the model has fewer positions; `offset` of them come before the first token."""
    limits = [max_length]
    own = getattr(tokenizer, "model_max_length", None)
    if isinstance(own, int) and own > 0:
        limits.append(own)
    for name in ("max_position_embeddings", "max_seq_len"):  # the latter is MPT's, whose table of biases ends there
        positions = getattr(model_config, name, None)
        if isinstance(positions, int) and positions > 0:
            limits.append(positions - offset)
    return max(2, min(limits))
