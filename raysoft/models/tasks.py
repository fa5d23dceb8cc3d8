"""Joins data and model: reads the samples, splits them, and makes arrays by the model's tokeniser or image processor.

    digits, digit-domains, python-source    embedded data, nothing is downloaded
    image-classification                    data.path: image folder, CSV / JSON Lines / Parquet, saved or hub dataset
    sequence-classification, causal-lm      data.path: the same without image folder

Everything a user may get wrong about data raises ConfigError with the field, before any training starts.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np

from raysoft.config import DataConfig, RunConfig
from raysoft.data import columns, digit_domains, digits, files, hf, images, python_source, raw, text
from raysoft.data.base import Examples, TaskData, TaskKind
from raysoft.data.partition import build_partition
from raysoft.errors import ConfigError
from raysoft.models import embedded
from raysoft.rng import Rng
from raysoft.types import Array

_log = logging.getLogger("raysoft")
EMBEDDED_TASKS: dict[str, TaskKind] = {
    "digits": "image-classification",
    "digit-domains": "image-classification",
    "python-source": "causal-lm",
}
_DIGITS = {"digits": digits.read, "digit-domains": digit_domains.read}  # 8x8 images as embedded/vit-digits takes them


def task_kind(config: DataConfig) -> TaskKind:
    """What is learned. Raises ConfigError("data.task") for an unknown task."""
    if config.task in EMBEDDED_TASKS:
        return EMBEDDED_TASKS[config.task]
    for kind in get_args(TaskKind):
        if config.task == kind:
            return kind
    known = ", ".join((*EMBEDDED_TASKS, *get_args(TaskKind)))
    raise ConfigError("data.task", f"unknown task {config.task!r}, choose from {known}")


def build_task(config: RunConfig) -> tuple[TaskData, str | Path, TaskKind]:
    """(data, model folder or hub name, kind of task). Raises ConfigError with the field for every bad input.

    An embedded model is pretrained here unless the cache has it. Splits and choices are keyed by the run's seed.
    """
    section, rng = config.data, Rng(config.seed)
    kind = task_kind(section)
    task = read(section)  # cheap mistakes first
    source, model_config = model_source(config)
    if kind == "image-classification":
        assert task is not None
        return _images(config, task, source, model_config, rng), source, kind
    from raysoft.models.base import position_offset

    tokenizer = _tokenizer(config, source, model_config)
    limit = text.token_limit(section.max_length, tokenizer, model_config, position_offset(model_config))
    if task is None:
        task = python_source.read(limit, rng)
    splits = raw.split(task, section, rng)
    if task.test is not None:
        _warn_of_leaks(splits)
    if kind == "causal-lm":
        data = _causal(config, splits, tokenizer, limit)
    else:
        data = _sequences(config, task, splits, tokenizer, limit, model_config)
    _check_vocabulary(config, data, model_config)
    return data, source, kind


def read(config: DataConfig) -> raw.RawTask | None:
    """The samples of every task but python-source (None: its samples depend on the model's length)."""
    if config.task in EMBEDDED_TASKS:
        if config.path is not None:
            raise ConfigError(
                "data.path", f"is not used by data.task={config.task}, which brings its own data; got {config.path!r}"
            )
        return _DIGITS[config.task]() if config.task in _DIGITS else None
    if config.path is None:
        raise ConfigError(
            "data.path",
            f"is required by data.task={config.task}: a file, a folder, or the name of a Hugging Face dataset",
        )
    if not config.path.strip():
        raise ConfigError("data.path", f"must name a file, a folder or a Hugging Face dataset, got {config.path!r}")
    path = _expanded(config.path, "data.path")
    if config.subset is not None and path.exists():
        raise ConfigError("data.subset", f"names a part of a dataset on the Hugging Face hub; {config.path!r} is local")
    try:
        if path.is_dir():
            return hf.read_saved(path, config) if hf.is_saved(path) else files.read(path, config)
        if path.is_file():
            return files.read(path, config)
    except OSError as error:  # no permission, a broken disk
        raise ConfigError("data.path", f"{path}: cannot be read: {error.strerror}") from None
    if not may_be_hub_name(config.path):
        what = "is neither a file nor a folder" if path.exists() else "does not exist"
        raise ConfigError("data.path", f"{config.path!r} {what}")
    return hf.read_hub(config.path, config)


def may_be_hub_name(text: str) -> bool:
    """Whether a path that is not there may be the name of a dataset on the Hugging Face hub."""
    return not (text.startswith(("/", ".", "~")) or text.lower().endswith(files.TABLES) or text.count("/") > 1)


def _expanded(text: str, field: str) -> Path:
    """A path as a user writes it. Raises ConfigError(field) for what the system cannot even look up."""
    try:
        path = Path(text).expanduser()
        path.exists()
        if "\0" in text:
            raise ValueError("it holds a null character")
        return path
    except (OSError, RuntimeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(field, f"{text[:60]!r} cannot be looked up: {reason}") from None


def model_source(config: RunConfig) -> tuple[str | Path, Any]:
    """Folder or name, and its configuration (read without loading weights)."""
    from raysoft.models.base import read_config

    name = config.model.name
    if name.startswith(embedded.PREFIX):
        source: str | Path = embedded.ensure(name, threads=config.actors.threads)
    elif not name.strip():
        raise ConfigError("model.name", f"must name an embedded model, a folder or a Hugging Face model, got {name!r}")
    else:
        path = _expanded(name, "model.name")
        source = str(path) if path.exists() else name
    return source, read_config(str(source), config.model.revision)


def _tokenizer(config: RunConfig, source: str | Path, model_config: Any) -> Any:
    from transformers import AutoTokenizer

    if hasattr(model_config, "image_size") and not hasattr(model_config, "vocab_size"):
        such = f"{embedded.PREFIX}llama-bytes" if config.data.task == "causal-lm" else "FacebookAI/roberta-base"
        raise ConfigError(
            "model.name",
            f"{config.model.name!r} is an image model, data.task={config.data.task} needs a text model such as {such}",
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(source), revision=config.model.revision, trust_remote_code=False)
    except Exception as error:  # missing files, unknown classes, optional packages: each library its own kind
        reason = " ".join(str(error).split())[:160]
        raise ConfigError("model.name", f"{config.model.name!r} comes without a readable tokenizer: {reason}") from None
    if len(tokenizer) <= len(tokenizer.all_special_ids):
        # Without its files the library makes one that knows no word, and every text would be unknown tokens.
        raise ConfigError(
            "model.name", f"{config.model.name!r} comes without a vocabulary; save its tokenizer into the same folder"
        )
    return tokenizer


def _images(config: RunConfig, task: raw.RawTask, source: str | Path, model_config: Any, rng: Rng) -> TaskData:
    encode = _image_encoder(config, source, model_config)
    splits = raw.split(task, config.data, rng)
    labels, names, note = _labels(config, task, splits, model_config)
    examples = {
        where: Examples({"pixel_values": encode(part)}, labels[where]) for where, part in splits.named().items()
    }
    return _task_data("image-classification", examples, _splits_groups(splits), label_names=names, label_note=note)


def _image_encoder(config: RunConfig, source: str | Path, model_config: Any) -> Callable[[raw.RawSamples], Array]:
    name = config.model.name
    if config.data.task in _DIGITS and name.startswith(embedded.PREFIX):
        return lambda part: digits.pixel_values(part.content)
    from raysoft.models.image_processor import channels_of, load_processor

    processor = load_processor(str(source), model_config, name, config.model.revision)
    channels = channels_of(model_config)
    return lambda part: images.encode_images(part, processor, channels, _path_field(config), name)


def _path_field(config: RunConfig) -> str:
    return "data.path" if config.data.path else "data.task"


def _sequences(
    config: RunConfig, task: raw.RawTask, splits: raw.Splits, tokenizer: Any, limit: int, model_config: Any
) -> TaskData:
    labels, names, note = _labels(config, task, splits, model_config)
    end = tokenizer.eos_token_id if getattr(model_config, "is_encoder_decoder", False) else None
    rows = {}
    for where, part in splits.named().items():
        texts = text.check_texts(part, "data.text_column", blank_allowed=False)
        rows[where] = text.tokenize(tokenizer, part, texts, limit, end)
    fill = text.padding_token(tokenizer, model_config, list(rows.values()))
    examples = {where: text.encode_classification(part, labels[where], fill) for where, part in rows.items()}
    groups = _splits_groups(splits)
    return _task_data("sequence-classification", examples, groups, label_names=names, label_note=note, pad_id=fill)


def _causal(config: RunConfig, splits: raw.Splits, tokenizer: Any, limit: int) -> TaskData:
    byte_level = text.is_byte_level(tokenizer)
    examples, groups = {}, _splits_groups(splits)
    for where, part in splits.named().items():
        texts = text.check_texts(part, "data.text_column", blank_allowed=True)
        if byte_level and config.data.task == "python-source":
            examples[where] = text.encode_bytes(texts, embedded.BYTE_OFFSET)
            continue
        examples[where], source = text.encode_causal(tokenizer, texts, limit)
        if (names := groups.get(where)) is not None:
            groups[where] = [names[n] for n in source]
    for where in ("train", "test"):
        if not len(examples[where]):
            raise ConfigError("data.text_column", f"the {where} split holds no text of at least two tokens")
    return _task_data("causal-lm", examples, groups, bits_per_byte=byte_level)


def _warn_of_leaks(splits: raw.Splits) -> None:
    """Rows of the test split that stand in the training data word for word: the source's doing, so it is only said."""
    trained = {text for part in (splits.train, splits.proxy) for text in part.content if isinstance(text, str)}
    known = sum(isinstance(text, str) and text in trained for text in splits.test.content)
    if known:
        _log.warning(
            "%d of %d test rows of %s stand in the training data word for word",
            known,
            len(splits.test),
            splits.test.origin,
        )


def _splits_groups(splits: raw.Splits) -> dict[str, Sequence[Any] | None]:
    """The natural clients of the splits that are dealt to clients."""
    return {"train": splits.train.groups, "proxy": splits.proxy.groups}


def _task_data(
    kind: TaskKind, examples: dict[str, Examples], groups: Mapping[str, Sequence[Any] | None], **more: Any
) -> TaskData:
    ids, names = _groups(groups["train"])
    proxy_ids, _ = _groups(groups["proxy"])
    splits: dict[str, Any] = {**examples, **more}
    return TaskData(kind=kind, groups=ids, group_names=names, proxy_groups=proxy_ids, **splits)


def _groups(groups: Sequence[Any] | None) -> tuple[Array | None, tuple[str, ...]]:
    if groups is None:
        return None, ()
    names, ids_N = np.unique(np.array([str(group) for group in groups]), return_inverse=True)
    return ids_N.astype(np.int64), tuple(str(name) for name in names)


def _labels(
    config: RunConfig, task: raw.RawTask, splits: raw.Splits, model_config: Any
) -> tuple[dict[str, Array], tuple[str, ...], str]:
    """Class ids of every split in the order of the model's head, where that one is kept; names; their joining."""
    field = "data.label_column" if config.data.path else "data.task"
    labels, names = columns.index_labels(splits, task.label_names, field)
    if config.model.lora.train_head:
        return labels, names, _trained_head(names, model_config)
    head = _head_labels(config, model_config)
    if set(names) <= set(head):
        to_head_C = np.array([head.index(name) for name in names], dtype=np.int64)
        return {where: to_head_C[ids] for where, ids in labels.items()}, head, "as the checkpoint's head names them"
    by_number = list(names) == [str(n) for n in range(len(names))]
    if len(names) == len(head) and (_unnamed(head) or by_number):
        return labels, names, f"taken for the head's {_shown(head)} in this order, since the names do not tell"
    raise ConfigError(
        "model.lora.train_head",
        f"is false, but the head of {config.model.name!r} knows the labels "
        f"{_shown(head)}, the data has {_shown(names)}; set model.lora.train_head=true",
    )


def _trained_head(names: Sequence[str], model_config: Any) -> str:
    """What becomes of the checkpoint's own head under train_head (see `models.base.load_base`)."""
    known = getattr(model_config, "id2label", None) or {}
    head = tuple(str(known[n]) for n in sorted(known))
    if not any("Classification" in name for name in getattr(model_config, "architectures", None) or ()):
        return "a new head"
    if set(names) == set(head):
        return "the checkpoint's head, in this order"
    if len(names) == len(head):
        return f"the checkpoint's head goes on from {_shown(head)} in this order, since the names do not tell"
    return f"a new head in place of the checkpoint's for {_shown(head)}"


def _unnamed(head: Sequence[str]) -> bool:
    return all(name == f"LABEL_{n}" for n, name in enumerate(head))


def _head_labels(config: RunConfig, model_config: Any) -> tuple[str, ...]:
    """Names of the classes that the checkpoint's own head tells apart. Raises ConfigError where it has no head."""
    if not any("Classification" in name for name in getattr(model_config, "architectures", None) or ()):
        raise ConfigError(
            "model.lora.train_head",
            f"is false, but {config.model.name!r} has no trained classification head; set model.lora.train_head=true",
        )
    return tuple(str(model_config.id2label[n]) for n in sorted(model_config.id2label))


def _shown(names: Sequence[str]) -> str:
    head = ", ".join(repr(name) for name in names[:5])
    return f"[{head}{', ...' if len(names) > 5 else ''}] ({len(names)})"


def _check_vocabulary(config: RunConfig, data: TaskData, model_config: Any) -> None:
    size = getattr(model_config, "vocab_size", None)
    largest = max(int(part.inputs["input_ids"].max(initial=0)) for part in (data.train, data.test))
    if isinstance(size, int) and largest >= size:
        raise ConfigError(
            "model.name", f"the tokenizer of {config.model.name!r} makes token {largest}, its model knows only {size}"
        )


__all__ = ["EMBEDDED_TASKS", "build_partition", "build_task", "read", "task_kind"]
