"""What a library raised inside a stage, as one sentence: where, what, and which setting has to do with it."""

from __future__ import annotations

import traceback
from pathlib import Path

from raysoft.config import RunConfig
from raysoft.errors import RaysoftError, ResourceError

_LESS = "use a smaller actors.pack_size, train.batch_size or eval.batch_size"
_NO_MEMORY = ("can't allocate memory", "out of memory", "unable to allocate", "bad_alloc")


def explained(error: Exception, where: str, stage: str, config: RunConfig) -> RaysoftError:
    """`where` names stage, round and clients. Lack of memory is a ResourceError."""
    if is_lack_of_memory(error):
        return ResourceError(f"{where}: not enough memory ({_text(error)[:200]}); {_LESS}")
    return RaysoftError(f"{where}: {in_words(error)}; {_advice(stage, config)}")


def is_lack_of_memory(error: Exception) -> bool:
    """Whether a library had no memory, which is nobody's fault but the settings'."""
    return isinstance(error, MemoryError) or any(words in _text(error).lower() for words in _NO_MEMORY)


def in_words(error: Exception) -> str:
    """Type, message and place of an error, in one line."""
    return f"{type(error).__name__}: {_text(error)[:300]} ({_place(error)})"


def _text(error: Exception) -> str:
    return " ".join(str(error).split())


def ended_by_plug_in(where: str, error: SystemExit) -> RaysoftError:
    """A plug-in that calls exit() has failed, whatever code it gives."""
    return RaysoftError(
        f"{where}: the code of a plug-in ended the program (SystemExit {error.code!r} at {_place(error)})"
    )


def _place(error: BaseException) -> str:
    """The file (with two folders) and line that raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return "no traceback"
    return f"{'/'.join(Path(frames[-1].filename).parts[-3:])}, line {frames[-1].lineno}"


def _advice(stage: str, config: RunConfig) -> str:
    """The settings whose code runs in this stage."""
    if stage in ("sum", "combine"):
        return f"see method.name={config.method.label}, whose sums these are"
    targets = config.model.lora.targets
    shown = targets if isinstance(targets, str) else list(targets)
    return (
        f"model.name={config.model.name!r} cannot compute samples of data.task={config.data.task} with "
        f"data.max_length={config.data.max_length}, model.lora.targets={shown} and "
        f"train.device={config.train.device}: check these first"
    )
