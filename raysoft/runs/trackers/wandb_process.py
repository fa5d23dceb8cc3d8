"""The process that holds the W&B run; started by wandb_tracker.py, which it obeys line by line.

W&B takes hold of a process (its exit, its standard streams, its environment, waits without a bound), so it gets one of
its own, that can be left behind or killed. It is nobody's child: Ray kills the children of a trial that a scheduler has
stopped, and W&B writes the last of its file at the end. Imports nothing of raysoft, and is run by path.

Called with the path of a JSON file that says what to begin, and with the reason where an attempt to be online has
failed before. In, one JSON object a line: {"row", "step"}, at last {"finish", ...}. Out: {"pid"}, {"ready"}, then
{"done"} or {"late"}, or {"failed"}, each with what the parent has to know.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import ssl
import sys
import threading
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, NoReturn

import psutil

PROBE_S = 3.0
INIT_S = 6.0
ORPHANED_S = 4  # where the parent has gone without a word
FINISH_S = 8  # the parent kills earlier, if it is still there


def main() -> None:
    """Until `finish`, or until the parent is gone."""
    begin_path, *reasons = sys.argv[1:]
    if not reasons and os.fork():
        os._exit(0)
    answers = os.dup(1)
    os.dup2(2, 1)  # whatever W&B prints goes to the log

    def answer(**what: Any) -> None:
        with suppress(OSError):  # the parent has gone
            os.write(answers, json.dumps(what).encode() + b"\n")

    answer(pid=os.getpid())
    try:
        begin = json.loads(Path(begin_path).read_text(encoding="utf-8"))
        why = reasons[0] if reasons else None
        run = _offline(begin) if begin["mode"] == "offline" or why else _online(begin, answers)
        Path(begin_path).unlink()
        folder = os.path.abspath(run.settings.sync_dir)
        answer(ready={"offline": bool(run.offline), "folder": folder, "url": run.url, "why": why})
        for line in os.fdopen(0, encoding="utf-8", closefd=False):
            command = json.loads(line)
            if "finish" not in command:
                run.log(command["row"], step=command["step"], commit=True)
                continue
            signal.alarm(FINISH_S)
            late = _finish(run, command)
            if late is None:
                _drop_superseded(Path(folder), begin["init"]["id"])
            answer(**({"done": True} if late is None else {"late": late}))
            os._exit(0)  # past W&B's own wait for what is late; its service ends with this process
        signal.alarm(ORPHANED_S)
        run.finish(exit_code=1)
    except Exception as error:
        reason = " ".join((str(error) or type(error).__name__).split())
        answer(failed=reason[:300])
        os._exit(1)


def _offline(begin: dict[str, Any]) -> Any:
    """A W&B run of files alone."""
    return _init(begin, "offline", resume=None)


def _online(begin: dict[str, Any], answers: int) -> Any:
    """A W&B run on the server. Where that fails or takes too long, this process begins again, offline."""
    import wandb

    address = wandb.setup().settings.base_url
    if (why := _unreachable(address)) is not None:
        _begin_again(why, answers)
    late = f"{address} did not open a run within {INIT_S:g} seconds"
    watch = threading.Timer(INIT_S, _begin_again, [late, answers])
    watch.daemon = True
    watch.start()
    try:
        return _init(begin, "online", resume="allow")
    except Exception as error:
        _begin_again(" ".join((str(error) or type(error).__name__).split())[:200], answers)
    finally:
        watch.cancel()


def _begin_again(why: str, answers: int) -> NoReturn:
    """The same process from the start: nothing of W&B's attempt is left but its log."""
    for service in psutil.Process().children(recursive=True):
        service.kill()
    os.environ.pop("WANDB_SERVICE", None)
    os.dup2(answers, 1)
    os.execv(sys.executable, [sys.executable, *sys.argv[:2], why])  # noqa: S606 (no shell is wanted)


def _init(begin: dict[str, Any], mode: Literal["online", "offline"], resume: Literal["allow"] | None) -> Any:
    import wandb

    wanted = {**begin["settings"], "init_timeout": INIT_S, "silent": True, "console": "off"}
    known = {key: value for key, value in wanted.items() if key in wandb.Settings.model_fields}
    return wandb.init(
        mode=mode, resume=resume, allow_val_change=True, settings=wandb.Settings(**known), **begin["init"]
    )


def _unreachable(address: str) -> str | None:
    """Why nobody answers at `address`, within a few seconds whatever the name service does; None: somebody does."""
    found: list[str | None] = []

    def knock() -> None:
        try:
            urllib.request.urlopen(address, timeout=PROBE_S).close()  # noqa: S310 (the user's own address)
            found.append(None)
        except urllib.error.HTTPError:
            found.append(None)  # an answer
        except Exception as error:
            reason = getattr(error, "reason", error)
            known = isinstance(reason, ssl.SSLCertVerificationError)  # W&B may know its certificate
            found.append(None if known else f"{address} cannot be reached ({reason})")

    thread = threading.Thread(target=knock, daemon=True)
    thread.start()
    thread.join(PROBE_S + 0.5)
    return found[0] if found else f"{address} did not answer within {PROBE_S:g} seconds"


def _finish(run: Any, command: dict[str, Any]) -> str | None:
    """Upload the rest; the reason where that does not end in time."""
    import wandb

    run.summary.update(command["finish"])
    for item in command["artifacts"]:
        artifact = wandb.Artifact(f"{run.id}-{item['name']}", type=item["type"])
        for path in map(Path, item["paths"]):
            artifact.add_dir(str(path)) if path.is_dir() else artifact.add_file(str(path))
        run.log_artifact(artifact)
    try:
        run.finish(exit_code=command["exit_code"])
    except TimeoutError as error:
        return str(error) or "time is up"
    return None


def _drop_superseded(folder: Path, run_id: str) -> None:
    """W&B's folders of this run from before it was resumed: all that they hold was written again into this one."""
    for old in folder.parent.glob(f"*run-*-{run_id}"):
        if old != folder and not old.is_symlink():
            shutil.rmtree(old, ignore_errors=True)


if __name__ == "__main__":
    main()
