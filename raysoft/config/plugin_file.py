"""A plug-in in a file of one's own: `method.name=./mine.py`. What it is, is its content; its path only finds it.

A file is read once, where its name enters a configuration. From there on its bytes go wherever the configuration goes
(actors, workers, trials: what is pickled is the bytes), so an edit meanwhile changes no run. A run folder keeps a copy;
`found_in` makes configurations that are read meanwhile use such copies.
"""

from __future__ import annotations

import ast
import hashlib
import linecache
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from raysoft.errors import ConfigError

SUFFIX = ".py"
Finder = Callable[[str], bytes | None]  # the content of a name, None where it is not kept there
_FINDERS: ContextVar[tuple[Finder, ...]] = ContextVar("finders of plug-in files", default=())


def is_file_name(name: Any) -> bool:
    """Whether the name of a plug-in is that of a file.

    >>> is_file_name("./mine.py"), is_file_name("fedit")
    (True, False)
    """
    return isinstance(name, str) and name.endswith(SUFFIX)


def short_name(name: str) -> str:
    """How a plug-in is called where people read: a file by its stem.

    >>> short_name("../channels/corridor.py"), short_name("umi")
    ('corridor', 'umi')
    """
    return Path(name).stem or name if is_file_name(name) else name


@dataclass(frozen=True)
class PluginFile:
    """The file of a plug-in. `text`: its name, as the configuration has it."""

    text: str
    content: bytes

    @classmethod
    def of(cls, text: str) -> PluginFile:
        """A kept copy of this name where there is one, else what lies there now, loaded. Raises ConfigError.

        A relative name starts at the current folder.
        """
        kept = next((found for find in _FINDERS.get() if (found := find(text)) is not None), None)
        if kept is not None:
            file = cls(text, kept)
        else:
            try:
                path = Path(text).expanduser()
                file = cls(text, path.read_bytes())
            except (OSError, RuntimeError, ValueError) as error:
                raise ConfigError("", f"{text} cannot be read: {getattr(error, 'strerror', None) or error}") from None
            file._refuse_neighbours(path.resolve().parent)
        file.module()
        return file

    @property
    def digest(self) -> str:
        """BLAKE2 of the content, as other files of a user are told apart."""
        return f"blake2b {self._hex}"

    @cached_property
    def _hex(self) -> str:
        return hashlib.blake2b(self.content, digest_size=16).hexdigest()

    def module(self) -> ModuleType:
        """The file as a module, once a content and process. Raises ConfigError with the line that is to blame."""
        name = f"raysoft_plugin_{self._hex}"
        if name in sys.modules:
            return sys.modules[name]
        try:
            code = compile(self.content, self.text, "exec", dont_inherit=True)
        except (SyntaxError, ValueError) as error:  # ValueError: a byte that is no text
            line = getattr(error, "lineno", None)
            what = getattr(error, "msg", None) or str(error)
            raise ConfigError("", f"{self.text}{f', line {line}' if line else ''}: {what}") from None
        module = ModuleType(name)
        module.__file__ = self.text
        text = self.content.decode("utf-8", "replace")
        linecache.cache[self.text] = (len(text), None, text.splitlines(keepends=True), self.text)  # for tracebacks
        sys.modules[name] = module  # dataclasses and pydantic look up the names of annotations there
        try:
            exec(code, module.__dict__)  # noqa: S102 - a plug-in is code of the user's own
        except (Exception, SystemExit) as error:
            del sys.modules[name]
            raise ConfigError("", self._in_words(error)) from None
        except BaseException:
            del sys.modules[name]
            raise
        return module

    def _in_words(self, error: BaseException) -> str:
        """What the file raised while it was loaded."""
        line, trace = None, error.__traceback__
        while trace is not None:
            line = trace.tb_lineno if trace.tb_frame.f_code.co_filename == self.text else line
            trace = trace.tb_next
        what = " ".join(f"{type(error).__name__}: {error}".split())
        alone = "; a plug-in file stands alone: it imports what is installed" if isinstance(error, ImportError) else ""
        return f"{self.text}{f', line {line}' if line else ''}: cannot be loaded: {what:.300}{alone}"

    def _refuse_neighbours(self, folder: Path) -> None:
        """Raise ConfigError where it imports a file that lies beside it: that would not travel, and not be compared."""
        try:
            tree = ast.parse(self.content)
        except (SyntaxError, ValueError):
            return  # `module` says so
        for node in ast.walk(tree):
            if not isinstance(node, ast.Import | ast.ImportFrom):
                continue
            names = [one.name for one in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [f"{'.' * node.level}{node.module or ''}"]
            for name in names:
                top = name.partition(".")[0]
                if name.startswith(".") or _lies_in(folder, top):
                    raise ConfigError(
                        "",
                        f"{self.text}, line {node.lineno}: imports {name!r}, which lies beside it; a plug-in file "
                        "stands alone, so put it into this file or make a package of both (docs/plugins.md)",
                    )

    def __reduce__(self) -> tuple[Any, ...]:
        """Loaded on arrival, before what is made of its classes."""
        return _arrived, (self.text, self.content)


def _arrived(text: str, content: bytes) -> PluginFile:
    file = PluginFile(text, content)
    file.module()
    return file


def _lies_in(folder: Path, name: str) -> bool:
    """Whether `import name` means, or can only mean, what is in this folder."""
    if name in sys.stdlib_module_names or name == "raysoft":
        return False
    beside = [folder / f"{name}{SUFFIX}", folder / name / f"__init__{SUFFIX}"]
    if not any(path.is_file() for path in beside):
        return False
    try:
        spec = find_spec(name)
    except (ImportError, ValueError):
        return True
    return spec is None or spec.origin is None or Path(spec.origin).resolve() in beside


# --------------------------------------------------------------------------------------------------------- kept copies


@contextmanager
def found_in(find: Finder) -> Iterator[None]:
    """Names of plug-in files that are read meanwhile are looked up here first."""
    token = _FINDERS.set((find, *_FINDERS.get()))
    try:
        yield
    finally:
        _FINDERS.reset(token)


def names_in(tree: Any) -> Iterator[str]:
    """Names of plug-in files in a mapping that is not checked yet: under `name`, or keys that end so."""
    if isinstance(tree, Mapping):
        for key, value in tree.items():
            if str(key).rpartition(".")[2] == "name" and is_file_name(value):
                yield value
            yield from names_in(value)
    elif isinstance(tree, (list, tuple)):
        for value in tree:
            yield from names_in(value)


def copy_name(text: str) -> str:
    """Under which name a run folder keeps a file: two of one stem stay apart.

    >>> copy_name("./my codec.py")
    'my-codec-4cb177dd.py'
    """
    stem = re.sub(r"[^A-Za-z0-9_.-]+", "-", Path(text).stem).strip("-.")[:48] or "plugin"
    return f"{stem}-{hashlib.blake2b(text.encode('utf-8', 'surrogateescape'), digest_size=4).hexdigest()}{SUFFIX}"
