"""Weights & Biases: one W&B run a run, in a small process of its own (see wandb_process.py for why)."""

from __future__ import annotations

import hashlib
import json
import os
import queue
import shlex
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from raysoft import __version__
from raysoft.config import WandbConfig
from raysoft.errors import RaysoftError
from raysoft.rundir.folder import FIGURES, REPORT, ROUNDS, RUN_ID, WANDB, write_atomic
from raysoft.rundir.summary import DONE, STOPPED
from raysoft.runs.trackers.base import FINISH_S, Beginning, Row, curves, log
from raysoft.runs.trackers.redact import redacted

BEGIN, LOG = "begin.json", "process.log"
UPLOAD_S = FINISH_S - 3.0  # for what has not been uploaded by the end; then W&B gives up and closes its own file
_OWN_FOLDERS = {"WANDB_DATA_DIR": "data", "WANDB_CACHE_DIR": "cache", "WANDB_ARTIFACT_DIR": "artifacts"}


class Wandb:
    """Sends rounds to the W&B process without waiting for it; only `finish` waits, and not for long."""

    name = "W&B"

    def __init__(self, config: WandbConfig) -> None:
        self._config = config
        self._folder = Path()
        self._process: subprocess.Popen[bytes] | None = None
        self._commands: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._answers: dict[str, Any] = {}  # written by the listening thread only
        self._threads: list[threading.Thread] = []
        self._said_why = False
        self._last_round = -1

    @property
    def ready(self) -> bool:
        """Whether W&B's process has opened its run, online or not."""
        return bool(self._answers.get("ready"))

    def start(self, begin: Beginning) -> None:
        """Start the process and hand it the configuration and the rounds of a resumed run."""
        self._folder = begin.folder.resolve()
        home = self._folder / WANDB
        home.mkdir(exist_ok=True)
        write_atomic(home / BEGIN, json.dumps(self._begin(begin)))
        with (home / LOG).open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, str(Path(__file__).with_name("wandb_process.py")), str(home / BEGIN)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                env=_environment(home),
                start_new_session=True,  # Ctrl-C is for this process alone, and no terminal is left to ask for a key
            )
        self._threads = [threading.Thread(target=target, daemon=True) for target in (self._send, self._listen)]
        for thread in self._threads:
            thread.start()
        for row in begin.earlier:
            self.round(row)

    def round(self, row: Row) -> None:
        """Every number of a round, as step `round`."""
        self._check()
        if row["round"] <= self._last_round:
            return
        self._last_round = row["round"]
        self._commands.put({"row": dict(curves(row)), "step": row["round"]})

    def finish(self, summary: Mapping[str, Any], within_s: float) -> str | None:
        """Wait until all is written, at most `within_s` seconds. What is late can be uploaded later."""
        if self._process is None:
            return None
        self._check()
        well = summary["status"] in (DONE, STOPPED)
        artifacts = [item for kind in self._config.artifacts if (item := self._artifact(kind))] if well else []
        shown = {key: value for key, value in summary.items() if key != "identity"}  # W&B loses keys with dots
        self._commands.put({"finish": redacted(shown), "exit_code": 0 if well else 1, "artifacts": artifacts})
        self._commands.put(None)
        self._threads[1].join(within_s)
        if self._threads[1].is_alive():
            self._answers.setdefault("late", f"W&B did not end within {within_s:g} seconds")
        self.drop()
        self._check()
        if not {"done", "late"} & self._answers.keys():
            raise RaysoftError(self._ended())
        return self._closing_note()

    def drop(self) -> None:
        """End the process and W&B's own service."""
        if self._process is None:
            return
        pid = self._answers.get("pid")
        if pid is not None and "ended" not in self._answers:
            with suppress(psutil.Error):
                holder = psutil.Process(pid)
                for process in (*holder.children(recursive=True), holder):
                    with suppress(psutil.Error):
                        process.kill()
        self._process.wait(5)  # it has made the one that holds the run, and has nothing else to do
        self._commands.put(None)
        for thread in self._threads:
            thread.join(1)
        self._process = None

    def _check(self) -> None:
        """Raises where the process has given up; says once why a run is offline that was to be online."""
        if (reason := self._answers.get("failed")) is not None:
            raise RaysoftError(reason)
        ready = self._answers.get("ready")
        if ready is not None and ready["why"] and not self._said_why:
            self._said_why = True
            log.warning("W&B: %s; this run is kept offline", ready["why"].rstrip("."))
        if self._process is not None and "ended" in self._answers:
            raise RaysoftError(self._ended())

    def _ended(self) -> str:
        return f"its process has ended; see {self._folder / WANDB / LOG}"

    def _closing_note(self) -> str:
        ready, late = self._answers.get("ready"), self._answers.get("late")
        if ready is None:
            raise RaysoftError(f"{late or 'it was not ready in time'}; {ROUNDS} has every round")
        folder = shlex.quote(ready["folder"])
        if late and not ready["offline"]:
            return f"{late.rstrip('.')}; upload the rest with: wandb sync --include-online {folder}"
        return f"offline; upload with: wandb sync {folder}" if ready["offline"] else str(ready["url"])

    def _begin(self, begin: Beginning) -> dict[str, Any]:
        asked = self._config
        about = {"version": __version__, "config_hash": begin.config.config_hash(), **begin.description}
        return {
            "mode": "offline" if os.environ.get("WANDB_MODE") == "offline" else asked.mode,
            "init": {
                "id": _run_id(self._folder, begin.config.config_hash()),
                "dir": str(self._folder),
                "project": asked.project,
                "entity": asked.entity,
                "group": asked.group,
                "name": asked.name or begin.name,
                "tags": asked.tags,
                "config": redacted({**begin.config.model_dump(mode="json"), "raysoft": about}),
            },
            "settings": {
                "disable_git": True,
                "disable_code": True,
                "save_code": False,
                "x_stats_pid": os.getpid(),
                "finish_timeout": UPLOAD_S,
                "finish_timeout_raises": True,
            },
        }

    def _artifact(self, kind: str) -> dict[str, Any] | None:
        names = {"figures": (FIGURES, REPORT), "adapter": ("adapter",)}[kind]
        paths = [str(path) for name in names if (path := self._folder / name).exists()]
        return {"name": kind, "type": {"adapter": "model"}.get(kind, kind), "paths": paths} if paths else None

    def _send(self) -> None:
        """Thread: commands into the pipe, which may be full while W&B starts."""
        pipe = self._process.stdin  # type: ignore[union-attr]
        with suppress(OSError), pipe:  # type: ignore[union-attr]
            while (command := self._commands.get()) is not None:
                pipe.write(json.dumps(command).encode() + b"\n")  # type: ignore[union-attr]
                pipe.flush()  # type: ignore[union-attr]

    def _listen(self) -> None:
        """Thread: answers out of the pipe."""
        with suppress(OSError, ValueError), self._process.stdout as pipe:  # type: ignore[union-attr]
            for line in pipe:
                self._answers |= json.loads(line)
        self._answers["ended"] = True


def allowed(config: WandbConfig) -> bool:
    """Whether W&B is asked for; WANDB_MODE=disabled in the environment has the last word."""
    return config.mode != "off" and os.environ.get("WANDB_MODE") != "disabled"


def _environment(home: Path) -> dict[str, str]:
    """W&B keeps its files in the run folder, and does not join a service of the parent's."""
    environment = {key: value for key, value in os.environ.items() if key not in ("WANDB_SERVICE", "WANDB_MODE")}
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    environment["PYTHONSAFEPATH"] = "1"  # the script's own folder holds modules of raysoft
    return {**{key: str(home / name) for key, name in _OWN_FOLDERS.items()}, **environment}


def _run_id(folder: Path, config_hash: str) -> str:
    """The id of this folder's W&B run: made once, kept in the folder, so that a resumed run goes on under it."""
    path = folder / WANDB / RUN_ID
    if path.exists():
        return path.read_text(encoding="utf-8").strip()
    born = (folder / ROUNDS).stat()  # tells a run from the one that it overwrote
    text = f"{socket.gethostname()}\0{folder}\0{config_hash}\0{born.st_ino}\0{born.st_ctime_ns}"
    run_id = hashlib.blake2b(text.encode(errors="replace"), digest_size=8).hexdigest()
    write_atomic(path, run_id + "\n")
    return run_id
